//! What the layers of one step share: made on the host and uploaded once, before the first layer.

use std::borrow::Cow;
use std::ops::Range;

use candle::{DType, Device, Result, Tensor};
use candle_core as candle;

use super::rope::{Rope, RopeTables};
use crate::config::{Config, MlpType};
use crate::ops;
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use crate::ops::linear::LinearMode;

/// How a row attends. The forms are equivalent up to rounding where they attend to the same positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttentionForm {
    /// To all its positions, with keys and values of every head expanded from the latents (MHA).
    Expanded,
    /// To all its positions in latent space, with `kv_b_proj` absorbed into query and output (MQA).
    Absorbed,
    /// To the `index_topk` positions that the indexer chooses.
    Sparse,
}

/// Chooses the form for each row from its own sequence's figures, so that a row's numbers depend neither on the other
/// sequences of the batch nor on how its own was cut into chunks.
#[derive(Debug, Clone)]
pub(super) struct FormRule {
    /// Positions up to which a row attends to all it sees; `None` without an indexer.
    index_topk: Option<usize>,
    /// In FP8 arithmetic keys and values always go through `kv_b_proj`: the output is rounded to e4m3, and the absorbed
    /// form's other f32 rounding would now and then fall to the other side.
    always_expands: bool,
    /// Whether steps of decoding are sparse at every position: a row that sees at most `index_topk` positions chooses all
    /// of them. On GPUs, so that all decoding rows are computed alike.
    decodes_sparse: bool,
    /// Whether latent space is the faster one whatever the lengths.
    never_expands: bool,
    latent_dim: usize,
    nope_dim: usize,
    rope_dim: usize,
    v_dim: usize,
}

impl FormRule {
    /// `dtype`: of activations.
    pub(super) fn new(cfg: &Config, mode: LinearMode, dtype: DType, device: &Device) -> Self {
        // GPUs have fast kernels for attention in latent space of this width, in bf16, where no rounding agrees to the last
        // bit anyway.
        let latent_width = (cfg.kv_lora_rank, cfg.qk_rope_head_dim);
        let never_expands = device.is_cuda() && dtype == DType::BF16 && latent_width == (512, 64);
        let always_expands = matches!(mode, LinearMode::Fp8 { .. }) && !never_expands;
        Self {
            index_topk: cfg.index_topk.filter(|_| cfg.has_indexer()),
            always_expands,
            never_expands,
            decodes_sparse: cfg.has_indexer() && !always_expands && device.is_cuda(),
            latent_dim: cfg.kv_lora_rank,
            nope_dim: cfg.qk_nope_head_dim,
            rope_dim: cfg.qk_rope_head_dim,
            v_dim: cfg.v_head_dim,
        }
    }

    /// The same rule with every row dense.
    pub(super) fn dense(&self) -> Self {
        Self { index_topk: None, decodes_sparse: false, ..self.clone() }
    }

    /// The rows that cost as much as expanding the contexts of a chunk of a prefill that begins at `context`.
    pub(super) fn chunk_overhead(&self, cfg: &Config, context: usize) -> usize {
        if self.never_expands || self.index_topk.is_some_and(|limit| context >= limit) {
            return 0;
        }
        let (hidden, heads) = (cfg.hidden_size, cfg.num_attention_heads);
        let expansion = self.latent_dim * heads * (self.nope_dim + self.v_dim);
        let q_dim = heads * (self.nope_dim + self.rope_dim);
        let query = cfg.q_lora_rank.map_or(hidden * q_dim, |rank| rank * (hidden + q_dim));
        let attention = query + hidden * (self.latent_dim + self.rope_dim + heads * self.v_dim) + expansion;
        let mlp = |kind: &MlpType| match kind {
            MlpType::Dense => 3 * hidden * cfg.intermediate_size,
            MlpType::Sparse => {
                3 * hidden * cfg.moe_intermediate_size * (cfg.num_experts_per_tok + cfg.n_shared_experts)
            }
        };
        let layers = cfg.mlp_layer_types.len();
        let row = layers * attention + cfg.mlp_layer_types.iter().map(mlp).sum::<usize>();
        context.saturating_mul(layers * expansion) / row.max(1)
    }

    /// Whether all rows of a step of decoding have one form, which needs nothing but the layout.
    #[cfg(feature = "cuda")]
    pub(super) fn decodes_alike(&self) -> bool {
        !self.always_expands && (self.decodes_sparse || self.index_topk.is_none())
    }

    /// A span's rows by form: its first rows attend to all they see, those from position `index_topk` on are sparse.
    fn split(&self, span: &Span) -> [(AttentionForm, Range<usize>); 2] {
        let limit = match span.prefill {
            None if self.decodes_sparse => 0,
            _ => self.index_topk.unwrap_or(usize::MAX),
        };
        let dense = limit.saturating_sub(span.start).min(span.tokens.len());
        let middle = span.tokens.start + dense;
        let form = match &span.prefill {
            _ if self.always_expands => AttentionForm::Expanded,
            _ if self.never_expands => AttentionForm::Absorbed,
            Some(run) if self.prefers_expanded(run.start..run.end.min(limit)) => AttentionForm::Expanded,
            _ => AttentionForm::Absorbed,
        };
        [(form, span.tokens.start..middle), (AttentionForm::Sparse, middle..span.tokens.end)]
    }

    /// Whether expanding a whole context costs a prefill of these positions less than attending in the wider latent
    /// space.
    fn prefers_expanded(&self, run: Range<usize>) -> bool {
        let (t, s) = (run.len() as f64, run.end as f64);
        let pairs = t * (s - (t - 1.0) / 2.0);
        let projection = (self.latent_dim * (self.nope_dim + self.v_dim)) as f64;
        let expanded = s * projection + pairs * (self.nope_dim + self.rope_dim + self.v_dim) as f64;
        let absorbed = t * projection + pairs * (2 * self.latent_dim + self.rope_dim) as f64;
        expanded < absorbed
    }
}

/// Some rows of a batch.
#[derive(Debug, Clone)]
enum Rows {
    All,
    Range(Range<usize>),
    /// Row numbers, `[n]` u32 on the model's device.
    Index(Tensor),
}

impl Rows {
    /// `ranges` of `0..tokens`, in ascending order.
    fn new(ranges: &[Range<usize>], tokens: usize, device: &Device) -> Result<Self> {
        let (start, end) = (ranges.first().map_or(0, |r| r.start), ranges.last().map_or(0, |r| r.end));
        let count: usize = ranges.iter().map(Range::len).sum();
        Ok(if count == tokens {
            Self::All
        } else if count == end - start {
            Self::Range(start..end)
        } else {
            let index: Vec<u32> = ranges.iter().flat_map(|r| r.start as u32..r.end as u32).collect();
            Self::Index(Tensor::from_vec(index, count, device)?)
        })
    }

    fn of(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::All => Ok(x.clone()),
            Self::Range(range) => x.narrow(0, range.start, range.len()),
            Self::Index(index) => ops::gather(x, index, x.dtype()),
        }
    }
}

/// The rows of a batch that attend in the same form.
#[derive(Debug, Clone)]
pub(super) struct RowGroup {
    pub(super) form: AttentionForm,
    /// Their sequences, with rows counted from 0.
    pub(super) layout: BatchLayout,
    /// Rows of the batch, one range for each span of `layout`.
    pub(super) ranges: Vec<Range<usize>>,
    /// Where keys and values are expanded, those to expand.
    pub(super) contexts: Option<Contexts>,
    /// The tables of these rows.
    pub(super) rope: RopeTables,
    rows: Rows,
}

/// The contexts of some sequences, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    /// Their slots, `[layout.total_context()]` u32.
    pub(super) slots: Tensor,
    /// The place of each page's first slot in `slots`, `[pages]` i64, 0 for pages of other sequences.
    places: Tensor,
}

impl Contexts {
    pub(super) fn new(layout: &BatchLayout, device: &Device) -> Result<Self> {
        let slots = layout.spans.iter().flat_map(Span::context_slots).map(|slot| slot as u32).collect();
        let slots = Tensor::from_vec(slots, layout.total_context(), device)?;
        let pages = layout.spans.iter().flat_map(|span| &span.block_table).max().map_or(0, |&page| page as usize + 1);
        // Of a page that sequences share, the place where more of it is.
        let mut places = vec![(0, 0); pages];
        let mut base = 0;
        for span in &layout.spans {
            for (i, &page) in span.block_table.iter().enumerate().take(span.context().div_ceil(PAGE_SIZE)) {
                let (first, filled) = (i * PAGE_SIZE, (span.context() - i * PAGE_SIZE).min(PAGE_SIZE));
                if filled > places[page as usize].1 {
                    places[page as usize] = ((base + first) as i64, filled);
                }
            }
            base += span.context();
        }
        let places = places.into_iter().map(|(place, _)| place).collect();
        Ok(Self { slots, places: Tensor::from_vec(places, pages, device)? })
    }

    /// The keys to expand for the `chosen` slots `[n, k]` (-1 = none): their slots `[keys]` u32, and where among them
    /// each chosen one is, `[n, k]` i64, -1 = none.
    ///
    /// These are the chosen ones themselves, or whole contexts, whichever are fewer.
    pub(super) fn keys(&self, chosen: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, k) = chosen.dims2()?;
        let chosen = ops::indices_i64(chosen)?;
        let none = chosen.lt(0i64)?;
        let slots = chosen.maximum(0i64)?.flatten_all()?;
        let (keys, places) = if n * k <= self.slots.dim(0)? {
            (slots.to_dtype(DType::U32)?, Tensor::arange(0, (n * k) as i64, chosen.device())?)
        } else {
            let size = Tensor::full(PAGE_SIZE as i64, n * k, chosen.device())?;
            let page = (&slots / &size)?;
            let within = (slots - (&page * size)?)?;
            (self.slots.clone(), (self.places.index_select(&page, 0)? + within)?)
        };
        let places = places.reshape((n, k))?;
        Ok((keys, none.where_cond(&places.zeros_like()?.affine(1.0, -1.0)?, &places)?))
    }
}

impl RowGroup {
    fn new(
        form: AttentionForm,
        rule: &FormRule,
        batch: &BatchLayout,
        rope: &RopeTables,
        device: &Device,
    ) -> Result<Self> {
        let (mut layout, mut ranges) = (BatchLayout::default(), Vec::new());
        for span in &batch.spans {
            let parts = rule.split(span).into_iter().filter(|(part, rows)| *part == form && !rows.is_empty());
            for (_, rows) in parts {
                let first = layout.tokens();
                layout.spans.push(Span {
                    tokens: first..first + rows.len(),
                    start: span.start + rows.start - span.tokens.start,
                    block_table: span.block_table.clone(),
                    prefill: span.prefill.clone(),
                });
                ranges.push(rows);
            }
        }
        let expands = form == AttentionForm::Expanded || rule.always_expands && form == AttentionForm::Sparse;
        let contexts = if expands { Some(Contexts::new(&layout, device)?) } else { None };
        let rows = Rows::new(&ranges, batch.tokens(), device)?;
        let rope = RopeTables { cos: rows.of(&rope.cos)?, sin: rows.of(&rope.sin)? };
        Ok(Self { form, rows, layout, ranges, contexts, rope })
    }

    /// The group's rows of `x: [T, ..]`.
    pub(super) fn rows(&self, x: &Tensor) -> Result<Tensor> {
        self.rows.of(x)
    }
}

/// One step of the model: a batch, with what its layers share on the model's device.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) layout: Cow<'a, BatchLayout>,
    pub(super) rope: RopeTables,
    /// The slot of each row, `[T]` u32.
    pub(super) slots: Tensor,
    /// Positions up to which rows attend to all they see; `None`: all rows do.
    pub(super) index_topk: Option<usize>,
    /// Whether the indexers also give their scores.
    pub(super) index_scores: bool,
    /// Whether the layers also give what their indexers' losses are computed from.
    pub(super) indexer_inputs: bool,
    /// The rows by form, in the order of their first rows.
    pub(super) groups: Vec<RowGroup>,
    /// The place of each row among the groups' rows one after the other, `[T]` u32, where that is another order.
    order: Option<Tensor>,
}

impl<'a> Step<'a> {
    /// `slots`: how many there are for keys.
    pub(super) fn new(
        layout: Cow<'a, BatchLayout>,
        slots: usize,
        rule: &FormRule,
        rope: &Rope,
        device: &Device,
    ) -> Result<Self> {
        layout.check(layout.tokens(), slots)?;
        let rope = rope.tables(&layout.positions())?;
        let slots = Tensor::from_vec(layout.slots(), layout.tokens(), device)?;
        Self::from_parts(layout, rope, slots, rule, device)
    }

    /// A step whose tables and slots, `[T]` u32, lie on the device already.
    pub(super) fn from_parts(
        layout: Cow<'a, BatchLayout>,
        rope: RopeTables,
        slots: Tensor,
        rule: &FormRule,
        device: &Device,
    ) -> Result<Self> {
        let mut groups = Vec::new();
        for form in [AttentionForm::Expanded, AttentionForm::Absorbed, AttentionForm::Sparse] {
            let group = RowGroup::new(form, rule, &layout, &rope, device)?;
            if !group.ranges.is_empty() {
                groups.push(group);
            }
        }
        groups.sort_by_key(|group| group.ranges[0].start);
        let order = order(&groups, layout.tokens(), device)?;
        let index_topk = rule.index_topk;
        let (index_scores, indexer_inputs) = (false, false);
        Ok(Self { layout, rope, slots, index_topk, index_scores, indexer_inputs, groups, order })
    }

    /// The sparse rows, if there are any.
    pub(super) fn sparse(&self) -> Option<&RowGroup> {
        self.groups.iter().find(|group| group.form == AttentionForm::Sparse)
    }

    /// Most positions that a row attends to.
    pub(super) fn widest(&self) -> usize {
        self.index_topk.unwrap_or(usize::MAX).min(self.layout.max_context())
    }

    /// The groups' results `[rows of the group, ..]`, in the order of the groups, as one result `[T, ..]`.
    pub(super) fn join(&self, mut outs: Vec<Tensor>) -> Result<Tensor> {
        let joined = if outs.len() == 1 { outs.swap_remove(0) } else { ops::join_rows(&outs)? };
        match &self.order {
            Some(order) => ops::gather(&joined, order, joined.dtype()),
            None => Ok(joined),
        }
    }
}

/// See [`Step::join`].
fn order(groups: &[RowGroup], tokens: usize, device: &Device) -> Result<Option<Tensor>> {
    let rows: Vec<usize> = groups.iter().flat_map(|group| group.ranges.iter().cloned().flatten()).collect();
    if rows.is_sorted() {
        return Ok(None);
    }
    let mut places = vec![0u32; tokens];
    for (place, row) in (0..).zip(rows) {
        places[row] = place;
    }
    Tensor::from_vec(places, tokens, device).map(Some)
}
