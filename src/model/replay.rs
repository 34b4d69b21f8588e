//! Choices that were recorded, for a training pass to take instead of its own.

use std::fmt;

use candle::{DType, Device, Error, Tensor};
use candle_core as candle;

use super::Model;
use super::layer::{FeedForward, Given, Layer};
use crate::ops::layout::BatchLayout;

type Result<T> = std::result::Result<T, ReplayError>;

/// The experts and positions that a batch's tokens were sent to when they were sampled, checked by [`Model::replay`].
///
/// Only the choice is taken from the record. Weights of experts and attention come from the model as it is now, so that
/// gradients flow through the router's scores, and a choice that the router would not make any more counts all the same.
#[derive(Debug, Clone)]
pub struct Replay {
    pub(super) layout: BatchLayout,
    /// Of the main layers and, if the record has it, the MTP layer.
    given: Vec<Given>,
    /// Whether positions are among what is given.
    pub(super) has_positions: bool,
}

impl Replay {
    /// What a layer takes as chosen; nothing if the record ends before it.
    pub(super) fn given(&self, layer: usize) -> Given {
        self.given.get(layer).cloned().unwrap_or_default()
    }
}

/// What a record may say of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayField {
    /// The experts of each token.
    ExpertIndices,
    /// The positions that each token attends to.
    TopkIndices,
}

impl fmt::Display for ReplayField {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::ExpertIndices => "expert_indices",
            Self::TopkIndices => "topk_indices",
        })
    }
}

/// Why a record can't be replayed. A row is one of the batch, a layer counts from 0; the MTP layer comes after the others.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplayError {
    /// The record has entries for another number of layers.
    Layers {
        /// Which part of the record.
        field: ReplayField,
        /// Entries that there are.
        found: usize,
        /// Layers of the model, without its MTP layer.
        layers: usize,
        /// Whether it has one.
        mtp: bool,
    },
    /// The record has an entry for a layer that has nothing to choose.
    NoChoice {
        /// Which part of the record.
        field: ReplayField,
        /// The layer.
        layer: usize,
    },
    /// An entry has another shape.
    Shape {
        /// Which part of the record.
        field: ReplayField,
        /// The layer.
        layer: usize,
        /// Its shape.
        found: Vec<usize>,
        /// Rows of the batch.
        rows: usize,
        /// Choices of a row; `None` = any number.
        columns: Option<usize>,
    },
    /// An entry is not of an integer dtype.
    Dtype {
        /// Which part of the record.
        field: ReplayField,
        /// The layer.
        layer: usize,
        /// Its dtype.
        found: DType,
    },
    /// A number is out of range.
    OutOfRange {
        /// Which part of the record.
        field: ReplayField,
        /// The layer.
        layer: usize,
        /// The row.
        row: usize,
        /// The number.
        found: i64,
        /// The largest number that the row may have.
        last: usize,
    },
    /// A row names something twice.
    Repeated {
        /// Which part of the record.
        field: ReplayField,
        /// The layer.
        layer: usize,
        /// The row.
        row: usize,
        /// What it names twice.
        found: i64,
    },
    /// A row has too few or too many positions.
    Count {
        /// The layer.
        layer: usize,
        /// The row.
        row: usize,
        /// Positions that it names.
        found: usize,
        /// The most that it may name; one is the fewest.
        most: usize,
    },
    /// The layout of the batch is no layout of whole sequences, or a tensor could not be read or made.
    Candle(Error),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Layers { field, found, layers, mtp } => {
                let more = if *mtp { format!(" or {}", layers + 1) } else { String::new() };
                write!(f, "replay: {field} has {found} entries, expected 0, {layers}{more}: one for each layer")
            }
            Self::NoChoice { field: field @ ReplayField::ExpertIndices, layer } => {
                write!(f, "replay: {field} of layer {layer}: the layer has no experts")
            }
            Self::NoChoice { field, layer } => {
                write!(f, "replay: {field} of layer {layer}: the model has no indexer")
            }
            Self::Shape { field, layer, found, rows, columns } => {
                let columns = columns.map_or("any number".to_string(), |columns| columns.to_string());
                write!(f, "replay: {field} of layer {layer} is {found:?}, expected [{rows}, {columns}]")
            }
            Self::Dtype { field, layer, found } => {
                write!(f, "replay: {field} of layer {layer} is {}, expected an integer dtype", found.as_str())
            }
            Self::OutOfRange { field, layer, row, found, last } => {
                write!(f, "replay: {field} of layer {layer}: row {row} names {found}, expected 0 to {last}")
            }
            Self::Repeated { field, layer, row, found } => {
                write!(f, "replay: {field} of layer {layer}: row {row} names {found} twice")
            }
            Self::Count { layer, row, found, most } => {
                let field = ReplayField::TopkIndices;
                write!(f, "replay: {field} of layer {layer}: row {row} names {found} positions, expected 1 to {most}")
            }
            Self::Candle(error) => write!(f, "replay: {error}"),
        }
    }
}

impl std::error::Error for ReplayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Candle(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for ReplayError {
    fn from(error: Error) -> Self {
        Self::Candle(error)
    }
}

impl Model {
    /// Checks recorded choices for the rows of `layout`, which [`BatchLayout::uncached`] made, and puts them on the model's
    /// device.
    ///
    /// Both lists have an entry for each layer, or none at all; an entry is as in [`Trace`](super::Trace), and `None` leaves
    /// the choice to the model. They may have one more entry for the MTP layer, whose rows are those of the same batch.
    ///
    /// A sampled token is fed back but for the last one: a rollout of `n` tokens has `n - 1` rows of choices, and its first
    /// `n - 1` tokens are the rows to train on, each of which predicts the one after it.
    ///
    /// # Shapes
    /// - `expert_indices`: `[T, num_experts_per_tok]` integers in `0..n_routed_experts`, in any order, none twice
    /// - `topk_indices`: `[T, any]` integers: positions in the row's sequence up to its own, in any order, none twice; -1 =
    ///   none, at any place. At most `index_topk` in a row. Rows at positions below `index_topk` attend to all they see,
    ///   whatever the record says
    ///
    /// # Errors
    /// If a record is not as above, naming the layer and the row.
    ///
    /// # Source
    /// arXiv 2512.02556, section 3.1, "keep routing"; the selection of sparse attention is kept likewise.
    pub fn replay(
        &self,
        layout: &BatchLayout,
        expert_indices: &[Option<Tensor>],
        topk_indices: &[Option<Tensor>],
    ) -> Result<Replay> {
        layout.check_rows(layout.tokens())?;
        let layers: Vec<&Layer> = self.layers.iter().chain(self.mtp.as_ref().map(|mtp| mtp.layer())).collect();
        self.check_entries(ReplayField::ExpertIndices, expert_indices)?;
        self.check_entries(ReplayField::TopkIndices, topk_indices)?;
        let mut given = vec![Given::default(); layers.len()];
        for (layer, indices) in expert_indices.iter().enumerate() {
            let Some(indices) = indices else { continue };
            let FeedForward::Sparse(_) = layers[layer].mlp else {
                return Err(ReplayError::NoChoice { field: ReplayField::ExpertIndices, layer });
            };
            given[layer].experts = Some(self.experts(layer, layout.tokens(), indices)?);
        }
        for (layer, indices) in topk_indices.iter().enumerate() {
            let Some(indices) = indices else { continue };
            given[layer].chosen = self.chosen(layer, layout, indices)?;
        }
        let has_positions = topk_indices.iter().any(Option::is_some);
        Ok(Replay { layout: layout.clone(), given, has_positions })
    }

    fn check_entries(&self, field: ReplayField, entries: &[Option<Tensor>]) -> Result<()> {
        let (found, layers, mtp) = (entries.len(), self.layers.len(), self.mtp.is_some());
        if found == 0 || found == layers || mtp && found == layers + 1 {
            return Ok(());
        }
        Err(ReplayError::Layers { field, found, layers, mtp })
    }

    /// `[T, num_experts_per_tok]` u32, ascending, on the model's device.
    fn experts(&self, layer: usize, rows: usize, indices: &Tensor) -> Result<Tensor> {
        let field = ReplayField::ExpertIndices;
        let columns = self.config.num_experts_per_tok;
        let mut all = Vec::with_capacity(rows * columns);
        for (row, mut experts) in integers(field, layer, indices, rows, Some(columns))?.into_iter().enumerate() {
            check_row(field, layer, row, &mut experts, self.config.n_routed_experts.saturating_sub(1))?;
            all.extend(experts.into_iter().map(|expert| expert as u32));
        }
        Ok(Tensor::from_vec(all, (rows, columns), &self.device)?)
    }

    /// Slots of the sparse rows, `[sparse rows, K]` i64 by position, padded with -1, on the model's device; `None` without
    /// such rows. `K` is the most that a row may choose.
    fn chosen(&self, layer: usize, layout: &BatchLayout, indices: &Tensor) -> Result<Option<Tensor>> {
        let field = ReplayField::TopkIndices;
        let Some(index_topk) = self.config.index_topk.filter(|_| self.config.has_indexer()) else {
            return Err(ReplayError::NoChoice { field, layer });
        };
        let rows = integers(field, layer, indices, layout.tokens(), None)?;
        let width = index_topk.min(layout.max_context());
        let mut slots = Vec::new();
        for span in &layout.spans {
            for (row, position) in span.tokens.clone().zip(span.start..).filter(|&(_, p)| p >= index_topk) {
                let mut positions: Vec<i64> = rows[row].iter().copied().filter(|&p| p != -1).collect();
                if !(1..=index_topk).contains(&positions.len()) {
                    return Err(ReplayError::Count { layer, row, found: positions.len(), most: index_topk });
                }
                check_row(field, layer, row, &mut positions, position)?;
                let end = slots.len() + width;
                slots.extend(positions.into_iter().map(|position| span.slot(position as usize) as i64));
                slots.resize(end, -1);
            }
        }
        match slots.len().checked_div(width) {
            None | Some(0) => Ok(None),
            Some(sparse) => Ok(Some(Tensor::from_vec(slots, (sparse, width), &self.device)?)),
        }
    }
}

/// The rows of an entry.
fn integers(
    field: ReplayField,
    layer: usize,
    entry: &Tensor,
    rows: usize,
    columns: Option<usize>,
) -> Result<Vec<Vec<i64>>> {
    if !entry.dtype().is_int() {
        return Err(ReplayError::Dtype { field, layer, found: entry.dtype() });
    }
    match *entry.dims() {
        [r, c] if r == rows && columns.is_none_or(|columns| columns == c) => {}
        _ => return Err(ReplayError::Shape { field, layer, found: entry.dims().to_vec(), rows, columns }),
    }
    Ok(entry.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.to_vec2()?)
}

/// Sorts what a row names; refuses what is beyond `0..=last` and what stands twice.
fn check_row(field: ReplayField, layer: usize, row: usize, named: &mut [i64], last: usize) -> Result<()> {
    named.sort_unstable();
    let inside = |&found: &i64| usize::try_from(found).is_ok_and(|found| found <= last);
    if let Some(&found) = named.iter().find(|found| !inside(found)) {
        return Err(ReplayError::OutOfRange { field, layer, row, found, last });
    }
    match named.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ReplayError::Repeated { field, layer, row, found: pair[0] }),
        None => Ok(()),
    }
}
