//! The losses that the lightning indexer learns from: dense warm-up and sparse stage.
//!
//! A row's target is the attention's distribution over the positions that the row attends to: its heads' probabilities
//! summed and divided by their sum. The indexer's own distribution is the softmax of its scores over the same positions,
//! and the row's loss is `KL(target || softmax(scores))`, in nats. In the warm-up a row attends to all positions up to its
//! own; in the sparse stage the attention's softmax runs over the chosen positions alone.
//!
//! Rows are computed in blocks, loss and gradients together, so that neither `[T, T]` scores nor `[T, k, D]` gathered
//! keys are held whole.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::error::{Result, TrainingError, check_count};
use crate::model::IndexerInputs;
use crate::ops::deferred::with_known;
use crate::ops::layout::{BatchLayout, Span};

mod block;
mod recall;

pub use block::IndexerBlock;
pub use recall::indexer_recall;

use block::Keys;

/// Scores of all heads, and elements of gathered keys, that are held at a time.
const BLOCK_ELEMENTS: usize = 1 << 23;

/// What the indexer's distribution is compared with. It has no gradient.
#[derive(Debug, Clone, Copy)]
pub enum IndexTarget<'a> {
    /// The probabilities of an attention, computed from its queries and keys block by block.
    Attention {
        /// Queries, `[T, H, D]`, any float dtype.
        q: &'a Tensor,
        /// Keys by slot, shared by the heads, `[slots, D]`, any float dtype.
        kv: &'a Tensor,
        /// Multiplies `q . kv`.
        softmax_scale: f64,
    },
    /// Given masses, `[T, slots]`, any float dtype, not negative: probabilities summed over heads. They are divided by
    /// their sum over what the row attends to; a row without any mass there has the loss 0.
    Mass(&'a Tensor),
}

/// The positions that some rows attend to, where it is not all up to their own.
#[derive(Debug, Clone, Copy)]
pub struct ChosenSlots<'a> {
    /// Rows at this position and later ones of their sequence have chosen slots; all others attend to all they see.
    pub from_position: usize,
    /// Their slots, `[such rows, k]`, i32 or i64, -1 = none; each at most once in a row, and of its own sequence.
    pub slots: &'a Tensor,
}

/// The arguments of [`indexer_loss`].
#[derive(Debug, Clone, Copy)]
pub struct IndexerBatch<'a> {
    /// Index queries, `[T, H_I, D_I]`, any float dtype.
    pub index_q: &'a Tensor,
    /// Index keys by slot, `[slots, D_I]`, any float dtype.
    pub index_k: &'a Tensor,
    /// Weights of the index heads, with every scale, `[T, H_I]`, any float dtype.
    pub weights: &'a Tensor,
    /// Where the rows' keys lie.
    pub layout: &'a BatchLayout,
    /// Chosen positions; `None`: every row attends to all positions up to its own.
    pub chosen: Option<ChosenSlots<'a>>,
    /// What the scores are to predict.
    pub target: IndexTarget<'a>,
}

impl<'a> IndexerBatch<'a> {
    /// Returns the arguments for what a training pass gave of a layer. `index_topk` is that of the model's configuration.
    ///
    /// # Errors
    /// If rows have chosen slots and `index_topk` is `None`.
    pub fn of_layer(inputs: &'a IndexerInputs, layout: &'a BatchLayout, index_topk: Option<usize>) -> Result<Self> {
        let IndexerInputs { index_q, index_k, weights, q, kv, softmax_scale, chosen } = inputs;
        let chosen = match (chosen, index_topk) {
            (None, _) => None,
            (Some(slots), Some(from_position)) => Some(ChosenSlots { from_position, slots }),
            (Some(_), None) => return Err(TrainingError::value("index_topk", "a number", "none")),
        };
        let target = IndexTarget::Attention { q, kv, softmax_scale: *softmax_scale };
        Ok(Self { index_q, index_k, weights, layout, chosen, target })
    }
}

/// The loss of one layer's indexer.
#[derive(Debug, Clone)]
pub struct IndexerLoss {
    /// The weighted sum of the rows' divergences, a scalar, f32 or f64. Its gradients reach index queries, keys and
    /// weights of heads, and nothing else.
    pub loss: Tensor,
    /// `KL(target || softmax(scores))` of each row, `[T]`, without gradients.
    pub kl: Vec<f64>,
}

/// `sum over t of row_weights[t] * KL(p_t || softmax(I_t))` over the positions that row `t` attends to, where
/// `I[t, s] = sum over j of weights[t, j] * relu(index_q[t, j] . index_k[s])` and `p_t` is the target.
///
/// Everything is computed in f32, or in f64 where `index_q` is. A row that attends to nothing has the loss 0.
///
/// - `row_weights`: `[T]`, finite: 1 for the paper's sum over rows; 1 over the number of rows of the whole step of the
///   optimizer for their mean
///
/// # Errors
/// If a shape, dtype, slot or weight is not as [`IndexerBatch`] says.
///
/// # Source
/// DeepSeek-V3.2-Exp, equations 1, 3 and 4.
pub fn indexer_loss(batch: &IndexerBatch, row_weights: &[f64]) -> Result<IndexerLoss> {
    indexer_loss_with(batch, row_weights, |_| Ok(()))
}

/// As [`indexer_loss`]; `see` is shown every block of rows with its scores, targets and gradients, for reports such as
/// the recall of the attention's mass.
///
/// # Errors
/// As [`indexer_loss`], and what `see` returns.
pub fn indexer_loss_with(
    batch: &IndexerBatch,
    row_weights: &[f64],
    mut see: impl FnMut(&IndexerBlock) -> Result<()>,
) -> Result<IndexerLoss> {
    let sizes = check(batch, row_weights)?;
    let IndexerBatch { index_q, index_k, weights, .. } = *batch;
    let compute = if index_q.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let arguments = [index_q, index_k, weights];
    let tracked = arguments.iter().any(|argument| argument.track_op());
    let plain = |tensor: &Tensor| tensor.detach().to_dtype(compute)?.contiguous();
    let reader = block::Reader::new(batch, arguments.map(plain), compute)?;
    let row_weights = Tensor::new(row_weights, index_q.device())?.to_dtype(compute)?;
    let mut kl = Vec::new();
    let (mut d_q, mut d_weights) = (Vec::new(), Vec::new());
    let mut d_k = index_k.detach().to_dtype(compute)?.zeros_like()?;
    for part in parts(batch, &sizes) {
        let block = reader.block(&part)?;
        see(&block)?;
        if tracked {
            let own = row_weights.narrow(0, part.rows.start, part.rows.len())?;
            let gradients = reader.gradients(&part, &block, &own)?;
            d_q.push(gradients.index_q);
            d_weights.push(gradients.weights);
            d_k = d_k.index_add(&gradients.slots, &gradients.index_k, 0)?;
        }
        kl.push(block.kl);
    }
    if sizes.tokens == 0 {
        return Ok(IndexerLoss { loss: Tensor::zeros((), compute, index_q.device())?, kl: Vec::new() });
    }
    let kl = Tensor::cat(&kl, 0)?;
    let loss = (&kl * row_weights)?.sum_all()?;
    let kl = kl.to_dtype(DType::F64)?.to_vec1()?;
    if !tracked {
        return Ok(IndexerLoss { loss, kl });
    }
    let gradients = [Tensor::cat(&d_q, 0)?, d_k, Tensor::cat(&d_weights, 0)?];
    let [d_q, d_k, d_weights] = gradients;
    let of = |argument: &Tensor, gradient: Tensor| gradient.to_dtype(argument.dtype());
    let arguments = [(index_q, of(index_q, d_q)?), (index_k, of(index_k, d_k)?), (weights, of(weights, d_weights)?)];
    Ok(IndexerLoss { loss: with_known(&loss, arguments)?, kl })
}

/// Sizes of a batch whose shapes agree.
struct Sizes {
    tokens: usize,
    /// The larger number of heads.
    heads: usize,
    /// The larger width of a key.
    width: usize,
}

fn check(batch: &IndexerBatch, row_weights: &[f64]) -> Result<Sizes> {
    let (tokens, heads, dim) = batch.index_q.dims3()?;
    let (slots, k_dim) = batch.index_k.dims2()?;
    check_count("index_k: columns", dim, k_dim)?;
    let (rows, weight_heads) = batch.weights.dims2()?;
    check_count("weights: rows", tokens, rows)?;
    check_count("weights: columns", heads, weight_heads)?;
    check_count("row_weights", tokens, row_weights.len())?;
    if let Some(row) = row_weights.iter().position(|weight| !weight.is_finite()) {
        return Err(TrainingError::value(format!("row_weights[{row}]"), "finite", row_weights[row]));
    }
    batch.layout.check(tokens, slots)?;
    if let Some(ChosenSlots { from_position, slots: chosen }) = batch.chosen {
        let rows = batch.layout.spans.iter().map(|span| span.tokens.len() - dense_rows(span, from_position)).sum();
        check_count("chosen slots: rows", rows, chosen.dims2()?.0)?;
    }
    let (mut all_heads, mut width) = (heads, dim);
    match batch.target {
        IndexTarget::Attention { q, kv, softmax_scale } => {
            let (rows, q_heads, q_dim) = q.dims3()?;
            let (kv_slots, kv_dim) = kv.dims2()?;
            check_count("attention q: rows", tokens, rows)?;
            check_count("attention kv: slots", slots, kv_slots)?;
            check_count("attention kv: columns", q_dim, kv_dim)?;
            if !softmax_scale.is_finite() {
                return Err(TrainingError::value("softmax_scale", "finite", softmax_scale));
            }
            (all_heads, width) = (heads.max(q_heads), dim.max(q_dim));
        }
        IndexTarget::Mass(mass) => {
            let (rows, columns) = mass.dims2()?;
            check_count("target mass: rows", tokens, rows)?;
            check_count("target mass: columns", slots, columns)?;
        }
    }
    Ok(Sizes { tokens, heads: all_heads.max(1), width: width.max(1) })
}

/// How many first rows of a span attend to all they see.
fn dense_rows(span: &Span, from_position: usize) -> usize {
    from_position.saturating_sub(span.start).min(span.tokens.len())
}

/// Rows of one sequence that are computed together.
struct Part {
    rows: Range<usize>,
    keys: Keys,
}

/// All rows of a batch in order, in parts of a bounded size.
fn parts(batch: &IndexerBatch, sizes: &Sizes) -> Vec<Part> {
    let from = batch.chosen.map_or(usize::MAX, |chosen| chosen.from_position);
    let k = batch.chosen.map_or(0, |chosen| chosen.slots.dims().last().copied().unwrap_or(0));
    let (mut parts, mut listed) = (Vec::new(), 0);
    for span in &batch.layout.spans {
        let middle = span.tokens.start + dense_rows(span, from);
        let mut row = span.tokens.start;
        while row < middle {
            // The later the row, the more it sees: the last one's keys are those of the part.
            let position = |row: usize| span.start + row - span.tokens.start;
            let mut end = row + 1;
            while end < middle && (end + 1 - row) * sizes.heads * (position(end) + 1) <= BLOCK_ELEMENTS {
                end += 1;
            }
            let slots = (0..position(end)).map(|position| span.slot(position) as u32).collect();
            parts.push(Part { rows: row..end, keys: Keys::UpTo { slots, first: position(row) } });
            row = end;
        }
        let step = (BLOCK_ELEMENTS / (k * sizes.heads.max(sizes.width)).max(1)).max(1);
        while row < span.tokens.end {
            let end = (row + step).min(span.tokens.end);
            parts.push(Part { rows: row..end, keys: Keys::Listed { first: listed } });
            listed += end - row;
            row = end;
        }
    }
    parts
}
