//! Steps of decoding as CUDA graphs: recorded once for each size of batch and of context, and replayed.

use std::collections::HashMap;

use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};

use super::super::largest::Largest;
use crate::model::{Cache, FiniteCheck, FixedStep, Model};
use crate::ops::cuda::{Arena, DeviceLayout, Graph, MAX_SCORES, copy_to, empty, upload, write_largest};
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use crate::ops::residual::NOTHING;

/// The most rows of a recorded step.
const MOST_ROWS: usize = 256;
/// The shortest context that a step is recorded for; longer ones are powers of two.
const LEAST_CONTEXT: usize = 512;
/// Numbers of a span on the device.
const SPAN: usize = 4;

/// Which layers a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    /// The main layers.
    Main,
    /// The MTP layer.
    Mtp,
}

/// What steps must share to be the same graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pass: Pass,
    /// Rows, a power of two: those of the step and copies of its first one.
    rows: usize,
    /// The longest context.
    context: usize,
    /// Rows of one sequence at most, a power of two.
    span_rows: usize,
}

/// The recorded steps of a model and its cache.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    entries: HashMap<Key, Entry>,
    /// Pages of the cache when the entries were made: a cache that grows moves its tensors.
    pages: usize,
    /// Where the recordings' tensors are; dropped after these.
    arena: Option<Arena>,
}

#[derive(Debug)]
enum Entry {
    /// Ran once, so that its kernels are loaded.
    Known(Box<Places>),
    Recorded(Box<Recorded>),
    /// Cannot be recorded.
    Refused,
}

/// The places of a step's inputs and of what is read of it.
#[derive(Debug)]
struct Places {
    step: FixedStep,
    /// Everything of 32 bits that changes from step to step: spans `[rows, 4]`, ids and slots `[rows]`, then what is read
    /// back: the first number that is not finite `[2]` and the largest logits `[rows, 2]`.
    words: Tensor,
    /// cos and sin, `[2, rows, qk_rope_head_dim / 2]` f32.
    tables: Tensor,
    /// `[rows * context / 64]` u32.
    pages: Tensor,
    /// The pages that are there.
    uploaded: Vec<u32>,
    device_layout: DeviceLayout,
    first: Tensor,
    largest: Tensor,
    /// What the MTP layer takes, `[rows, hidden_size]`.
    hidden: Option<Tensor>,
}

/// A step that can be replayed, and what it gives.
#[derive(Debug)]
struct Recorded {
    places: Places,
    graph: Graph,
    made: Made,
}

/// What a step gives, on the device.
#[derive(Debug)]
struct Made {
    finite: FiniteCheck,
    /// `[rows, hidden_size]`.
    hidden: Tensor,
    /// `[rows, vocab_size]` f32.
    logits: Tensor,
}

/// What a step gave for its rows; the tensors are overwritten by the next step.
#[derive(Debug)]
pub(super) struct Output {
    /// `[T, hidden_size]`.
    pub(super) hidden: Tensor,
    /// `[T, vocab_size]` f32.
    pub(super) logits: Tensor,
    /// The largest logit of each row.
    pub(super) largest: Vec<Largest>,
}

/// What a step takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) pass: Pass,
    pub(super) ids: &'a [u32],
    pub(super) layout: &'a BatchLayout,
    /// What the MTP layer takes.
    pub(super) hidden: Option<&'a Tensor>,
}

impl Graphs {
    /// Forgets all recordings, as must be done when the weights are replaced.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Runs a step, if it is one that can be recorded; `None` if it is not.
    ///
    /// # Errors
    /// As [`Model::forward_batch`].
    pub(super) fn run(&mut self, model: &Model, cache: &Cache, input: Input) -> Result<Option<Output>> {
        let Device::Cuda(device) = model.device() else { return Ok(None) };
        let Some(key) = key(model, input) else { return Ok(None) };
        if self.pages != cache.pages() {
            self.entries.clear();
            self.pages = cache.pages();
        }
        input.layout.check(input.ids.len(), cache.pages() * PAGE_SIZE)?;
        let rows = input.ids.len();
        match self.entries.remove(&key) {
            Some(Entry::Refused) => {
                self.entries.insert(key, Entry::Refused);
                Ok(None)
            }
            None => {
                let mut places = Places::new(model, device, key)?;
                places.fill(model, input)?;
                let made = places.run(model, cache, key.pass)?;
                let output = read(&places, &made, rows)?;
                self.entries.insert(key, Entry::Known(Box::new(places)));
                Ok(Some(output))
            }
            Some(Entry::Known(mut places)) => {
                places.fill(model, input)?;
                let arena = match self.arena.take() {
                    Some(arena) => arena,
                    None => Arena::new(device)?,
                };
                let recorded = Graph::record(device, &arena, || places.run(model, cache, key.pass));
                self.arena = Some(arena);
                match recorded {
                    Ok((graph, made)) => {
                        let recorded = Recorded { places: *places, graph, made };
                        self.replay(key, Box::new(recorded), rows).map(Some)
                    }
                    Err(error) => {
                        tracing::warn!(?key, %error, "a step of decoding cannot be recorded");
                        self.entries.insert(key, Entry::Refused);
                        Ok(None)
                    }
                }
            }
            Some(Entry::Recorded(mut recorded)) => {
                recorded.places.fill(model, input)?;
                self.replay(key, recorded, rows).map(Some)
            }
        }
    }

    fn replay(&mut self, key: Key, mut recorded: Box<Recorded>, rows: usize) -> Result<Output> {
        let output = recorded.graph.launch().and_then(|()| read(&recorded.places, &recorded.made, rows));
        self.entries.insert(key, Entry::Recorded(recorded));
        output
    }

    /// Steps that are replayed.
    pub(super) fn recorded(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry, Entry::Recorded(_))).count()
    }
}

/// The graph of a step; `None` if it has to be launched piece by piece.
fn key(model: &Model, input: Input) -> Option<Key> {
    let spans = &input.layout.spans;
    let decodes = spans.iter().all(|span| span.prefill.is_none() && !span.tokens.is_empty());
    let rows = input.ids.len();
    if !decodes || rows == 0 || rows > MOST_ROWS || rows != input.layout.tokens() || !model.decodes_alike() {
        return None;
    }
    if input.ids.iter().any(|&id| id as usize >= model.config().vocab_size) {
        return None;
    }
    let rows = rows.next_power_of_two();
    let context = input.layout.max_context().max(LEAST_CONTEXT).next_power_of_two();
    let span_rows = spans.iter().map(|span| span.tokens.len()).max()?.next_power_of_two();
    let fits = rows.checked_mul(context).is_some_and(|scores| scores <= MAX_SCORES);
    fits.then_some(Key { pass: input.pass, rows, context, span_rows })
}

/// A layout that launches kernels as any of the key's steps needs them.
fn widest(key: Key) -> BatchLayout {
    let span = |first: usize, rows: usize| Span {
        tokens: first..first + rows,
        start: key.context - rows,
        block_table: vec![0; key.context / PAGE_SIZE],
        prefill: None,
    };
    let spans = (0..key.rows).step_by(key.span_rows).map(|first| span(first, key.span_rows.min(key.rows - first)));
    BatchLayout { spans: spans.collect() }
}

impl Places {
    fn new(model: &Model, device: &CudaDevice, key: Key) -> Result<Self> {
        let Key { rows, context, .. } = key;
        let half = model.config().qk_rope_head_dim / 2;
        let words = empty(rows * (SPAN + 2) + 2 + 2 * rows, DType::U32, device)?;
        let tables = empty((2, rows, half), DType::F32, device)?;
        let pages = empty(rows * context / PAGE_SIZE, DType::U32, device)?;
        let spans = words.narrow(0, 0, SPAN * rows)?.reshape((rows, SPAN))?;
        let hidden = match key.pass {
            Pass::Main => None,
            // Rows that a step lacks compute with what is there.
            Pass::Mtp => Some(Tensor::zeros((rows, model.config().hidden_size), model.dtype(), model.device())?),
        };
        let step = FixedStep {
            layout: widest(key),
            ids: words.narrow(0, SPAN * rows, rows)?,
            slots: words.narrow(0, (SPAN + 1) * rows, rows)?,
            cos: tables.get(0)?,
            sin: tables.get(1)?,
        };
        let read = (SPAN + 2) * rows;
        Ok(Self {
            step,
            first: words.narrow(0, read, 2)?,
            largest: words.narrow(0, read + 2, 2 * rows)?.reshape((rows, 2))?,
            device_layout: DeviceLayout::at(spans, pages.clone())?,
            words,
            tables,
            pages,
            uploaded: Vec::new(),
            hidden,
        })
    }

    fn rows(&self) -> usize {
        self.step.layout.tokens()
    }

    /// Writes a step's inputs. Rows that it lacks are copies of its first one that leave no key.
    fn fill(&mut self, model: &Model, input: Input) -> Result<()> {
        let (rows, layout) = (self.rows(), input.layout);
        let (mut spans, mut pages, mut firsts) = (Vec::with_capacity(rows), Vec::new(), Vec::new());
        for span in &layout.spans {
            spans.push([span.tokens.start as u32, span.start as u32, pages.len() as u32, 0]);
            firsts.push(pages.len());
            pages.extend_from_slice(&span.block_table[..span.context().div_ceil(PAGE_SIZE)]);
        }
        let (mut ids, mut slots, mut positions) = (input.ids.to_vec(), layout.slots(), layout.positions());
        for row in ids.len()..rows {
            spans.push([row as u32, positions[0], 0, 0]);
            ids.push(ids[0]);
            positions.push(positions[0]);
        }
        slots.resize(rows, u32::MAX);
        // Behind all rows: no row belongs to such a span.
        spans.resize(rows, [u32::MAX, 0, 0, 0]);
        let mut words = spans.into_flattened();
        words.extend(ids);
        words.extend(slots);
        words.extend([NOTHING; 2]);
        upload(&words, &self.words)?;
        let (mut tables, sin) = model.rope_values(&positions);
        tables.extend(sin);
        upload(&tables, &self.tables)?;
        if !self.uploaded.starts_with(&pages) {
            if pages.len() > self.pages.elem_count() {
                bail!("{} pages for a step of {rows} rows", pages.len())
            }
            upload(&pages, &self.pages)?;
            self.uploaded = pages;
        }
        match (&self.hidden, input.hidden) {
            (Some(to), Some(hidden)) => copy_to(hidden, to),
            (None, None) => Ok(()),
            _ => bail!("hidden states are what the MTP layer takes, and nothing else"),
        }
    }

    /// Launches the step.
    fn run(&self, model: &Model, cache: &Cache, pass: Pass) -> Result<Made> {
        let Device::Cuda(device) = model.device() else { bail!("the model is not on a GPU") };
        let _bound = self.device_layout.bind(&self.step.layout, device);
        let mut finite = FiniteCheck::keeping(self.first.clone());
        let (hidden, logits) = match (pass, &self.hidden) {
            (Pass::Main, _) => {
                let hidden = model.forward_fixed(&self.step, cache, &mut finite)?;
                let logits = model.logits(&hidden)?;
                (hidden, logits)
            }
            (Pass::Mtp, Some(hidden)) => {
                let hidden = model.forward_mtp_fixed(&self.step, hidden, cache, &mut finite)?;
                let logits = model.mtp_logits(&hidden)?;
                (hidden, logits)
            }
            (Pass::Mtp, None) => bail!("the MTP layer takes hidden states"),
        };
        write_largest(&logits, &self.largest)?;
        Ok(Made { finite, hidden, logits })
    }
}

/// Waits for a step and reads what it found.
fn read(places: &Places, made: &Made, rows: usize) -> Result<Output> {
    let of_the_step = places.words.narrow(0, (SPAN + 2) * places.rows(), 2 + 2 * rows)?.to_vec1::<u32>()?;
    let (first, largest) = of_the_step.split_at(2);
    made.finite.verify([first[0], first[1]])?;
    let largest = largest.chunks_exact(2).map(|pair| Largest { id: pair[0], logit: f32::from_bits(pair[1]) });
    Ok(Output {
        hidden: made.hidden.narrow(0, 0, rows)?,
        logits: made.logits.narrow(0, 0, rows)?,
        largest: largest.collect(),
    })
}
