//! The work of one step, counted: operations, and the bytes that must come from memory.

use super::error::{EvaluationError, Result, positive};
use crate::config::{Config, IndexerType, MlpType};
use crate::model::CacheFormat;
use crate::ops::fp8::{BLOCK, Fp8Row};

/// What one step of a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One new token for each of `batch` sequences.
    Decode {
        /// How many sequences.
        batch: usize,
        /// Positions that each new token sees, its own among them.
        context: usize,
    },
    /// A chunk of one sequence's prompt.
    Prefill {
        /// Tokens of the sequence that the cache holds already.
        start: usize,
        /// Tokens of the chunk.
        tokens: usize,
    },
}

impl Step {
    /// Rows that go through the layers.
    pub fn rows(self) -> usize {
        match self {
            Self::Decode { batch, .. } => batch,
            Self::Prefill { tokens, .. } => tokens,
        }
    }

    /// Rows whose logits are computed: of a prompt only the last.
    fn logit_rows(self) -> usize {
        match self {
            Self::Decode { batch, .. } => batch,
            Self::Prefill { .. } => 1,
        }
    }

    /// Sequences, and the positions that each has at the end.
    fn contexts(self) -> (f64, f64) {
        match self {
            Self::Decode { batch, context } => (batch as f64, context as f64),
            Self::Prefill { start, tokens } => (1.0, start as f64 + tokens as f64),
        }
    }

    /// Pairs of a row and a position that it sees, at most `limit` for each row.
    fn pairs(self, limit: f64) -> f64 {
        // Rows at positions `from..to` see one position more than their own.
        let all = |from: f64, to: f64| (to * (to + 1.0) - from * (from + 1.0)) / 2.0;
        match self {
            Self::Decode { batch, context } => batch as f64 * (context as f64).min(limit),
            Self::Prefill { start, tokens } => {
                let (from, to) = (start as f64, start as f64 + tokens as f64);
                let middle = limit.clamp(from, to);
                all(from, middle) + (to - middle) * if to > middle { limit } else { 0.0 }
            }
        }
    }

    /// Pairs of the rows that see more than `limit` positions.
    fn pairs_beyond(self, limit: f64) -> f64 {
        match self {
            Self::Decode { context, .. } if context as f64 > limit => self.pairs(f64::INFINITY),
            Self::Decode { .. } => 0.0,
            Self::Prefill { start, tokens } => {
                let (from, to) = (start as f64, start as f64 + tokens as f64);
                let middle = limit.clamp(from, to);
                (to * (to + 1.0) - middle * (middle + 1.0)) / 2.0
            }
        }
    }

    /// Fails if the step has no rows or sees nothing.
    fn check(self) -> Result<()> {
        let (name, value) = match self {
            Self::Decode { batch: 0, .. } => ("batch", 0),
            Self::Decode { context: 0, .. } => ("context", 0),
            Self::Prefill { tokens: 0, .. } => ("tokens", 0),
            _ => return Ok(()),
        };
        Err(EvaluationError::Value { name, value: value.to_string(), expected: "at least 1" })
    }
}

/// Operations and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Multiplications and additions, two for a multiply-add.
    pub flops: f64,
    /// Bytes read from or written to memory.
    pub bytes: f64,
}

impl Work {
    /// Seconds that a machine takes at the least: for the operations or for the bytes, whichever are more.
    fn seconds(self, flops_per_second: f64, bytes_per_second: f64) -> f64 {
        (self.flops / flops_per_second).max(self.bytes / bytes_per_second)
    }
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::default(), |sum, work| sum + work)
    }
}

/// The work of one layer by its parts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LayerWork {
    /// The projections of attention, the products with `kv_b_proj` among them.
    pub projections: Work,
    /// The indexer: its projections and the scores. The selection has no operations that count.
    pub indexer: Work,
    /// Scores and sums of attention over the cache.
    pub attention: Work,
    /// The MLP, or the router and the experts.
    pub feed_forward: Work,
}

impl LayerWork {
    /// The sum of the parts.
    pub fn total(&self) -> Work {
        self.parts().map(|(work, _)| work).into_iter().sum()
    }

    /// Seconds that a machine takes at the least, one part after the other.
    pub fn seconds(&self, rates: &Rates) -> f64 {
        self.parts().map(|(work, flops)| work.seconds(flops(rates), rates.bytes_per_second)).iter().sum()
    }

    /// Each part, and the rate of its operations.
    fn parts(&self) -> [(Work, Rate); 4] {
        [
            (self.projections, |rates| rates.product_flops),
            (self.indexer, |rates| rates.indexer_flops),
            (self.attention, |rates| rates.attention_flops),
            (self.feed_forward, |rates| rates.product_flops),
        ]
    }
}

/// One of the rates.
type Rate = fn(&Rates) -> f64;

/// What a machine does in a second, as measured or from a data sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Operations of products with weights.
    pub product_flops: f64,
    /// Operations of attention.
    pub attention_flops: f64,
    /// Operations of the indexer's scores.
    pub indexer_flops: f64,
    /// Bytes between memory and the processor, those read and those written together.
    pub bytes_per_second: f64,
}

impl Rates {
    /// One rate for all operations.
    pub fn uniform(flops_per_second: f64, bytes_per_second: f64) -> Self {
        Self {
            product_flops: flops_per_second,
            attention_flops: flops_per_second,
            indexer_flops: flops_per_second,
            bytes_per_second,
        }
    }

    fn check(&self) -> Result<()> {
        positive("product_flops", self.product_flops)?;
        positive("attention_flops", self.attention_flops)?;
        positive("indexer_flops", self.indexer_flops)?;
        positive("bytes_per_second", self.bytes_per_second)
    }
}

/// How weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 4 bytes a number.
    F32,
    /// 2 bytes a number.
    Bf16,
    /// Linear weights in e4m3 with an f32 scale for each block of 128×128; embedding, head, router and the indexer's head
    /// weights in bf16.
    Fp8,
}

/// Bytes of what a model keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Storage {
    /// An element of a linear weight, its share of a scale included.
    pub linear: f64,
    /// An element of the embedding, the head, the router or the indexer's head weights.
    pub matrix: f64,
    /// The latent and the rotated key of one token in one layer.
    pub latent_row: f64,
    /// The index key of one token in one layer; 0 without an indexer.
    pub index_row: f64,
}

impl Storage {
    /// The bytes of a model with weights and a cache of these formats.
    pub fn new(cfg: &Config, weights: WeightFormat, cache: CacheFormat) -> Self {
        let (linear, matrix) = match weights {
            WeightFormat::F32 => (4.0, 4.0),
            WeightFormat::Bf16 => (2.0, 2.0),
            WeightFormat::Fp8 => (1.0 + 4.0 / (BLOCK * BLOCK) as f64, 2.0),
        };
        let row = |quantized: usize, plain: usize| match cache {
            CacheFormat::Fp8 => Fp8Row { quantized, plain }.bytes(),
            format => (quantized + plain) * format.dtype().size_in_bytes(),
        };
        let index_dim = cfg.index_head_dim.filter(|_| cfg.has_indexer());
        Self {
            linear,
            matrix,
            latent_row: row(cfg.kv_lora_rank, cfg.qk_rope_head_dim) as f64,
            index_row: index_dim.map_or(0, |dim| row(dim, 0)) as f64,
        }
    }
}

/// The least work that a model's steps take.
///
/// Each weight and each cached row that is needed is read once, and each new row is written once; activations are taken to
/// stay close to the processor. Attention is counted in latent space (MQA mode), or, for a prompt without an indexer, with
/// expanded keys and values if that is less. Experts are chosen evenly and independently.
///
/// ```
/// use deepseek_v32::Config;
/// use deepseek_v32::evaluation::{CostModel, Rates, Step, Storage, WeightFormat};
/// use deepseek_v32::model::CacheFormat;
///
/// let config = Config::v32();
/// let storage = Storage::new(&config, WeightFormat::Fp8, CacheFormat::Fp8);
/// let model = CostModel::new(config, storage);
/// let rates = Rates::uniform(790e12, 4.3e12);
/// let short = model.seconds(Step::Decode { batch: 1, context: 4096 }, &rates)?;
/// let long = model.seconds(Step::Decode { batch: 1, context: 131_072 }, &rates)?;
/// assert!(long < 1.05 * short);
/// # Ok::<(), deepseek_v32::evaluation::EvaluationError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CostModel {
    config: Config,
    storage: Storage,
}

impl CostModel {
    /// A model of this configuration, kept in these formats.
    pub fn new(config: Config, storage: Storage) -> Self {
        Self { config, storage }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bytes of what the model keeps.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// The work of a layer with this feed-forward part; with an indexer of its own, if the model has indexers.
    ///
    /// # Errors
    /// If `step` has no rows or no context.
    pub fn layer(&self, step: Step, mlp: MlpType) -> Result<LayerWork> {
        step.check()?;
        Ok(self.layer_with(step, mlp, self.config.has_indexer()))
    }

    /// The work of embedding and output head. Of a prompt's chunk the logits of one row are computed.
    ///
    /// # Errors
    /// If `step` has no rows or no context.
    pub fn ends(&self, step: Step) -> Result<Work> {
        step.check()?;
        let (rows, hidden) = (step.rows() as f64, self.config.hidden_size as f64);
        let head = hidden * self.config.vocab_size as f64;
        Ok(Work { flops: 2.0 * step.logit_rows() as f64 * head, bytes: (rows * hidden + head) * self.storage.matrix })
    }

    /// The work of the whole model, without MTP layers.
    ///
    /// # Errors
    /// If `step` has no rows or no context.
    pub fn work(&self, step: Step) -> Result<Work> {
        Ok(self.layers(step).map(|layer| layer.total()).sum::<Work>() + self.ends(step)?)
    }

    /// Seconds that a step of the whole model takes at the least: part after part, each as long as its operations or its
    /// bytes take, whichever is more.
    ///
    /// # Errors
    /// If `step` has no rows or no context, or a rate is not above 0.
    pub fn seconds(&self, step: Step, rates: &Rates) -> Result<f64> {
        rates.check()?;
        let ends = self.ends(step)?.seconds(rates.product_flops, rates.bytes_per_second);
        Ok(self.layers(step).map(|layer| layer.seconds(rates)).sum::<f64>() + ends)
    }

    fn layers(&self, step: Step) -> impl Iterator<Item = LayerWork> + '_ {
        (0..self.config.num_hidden_layers).map(move |layer| {
            let own_indexer = self.config.indexer_type(layer) == Some(IndexerType::Full);
            self.layer_with(step, self.config.mlp_type(layer), own_indexer)
        })
    }

    fn layer_with(&self, step: Step, mlp: MlpType, own_indexer: bool) -> LayerWork {
        let attention = self.attention(step);
        LayerWork {
            projections: self.projections(step),
            indexer: if own_indexer { self.indexer(step) } else { Work::default() },
            attention,
            feed_forward: match mlp {
                MlpType::Dense => self.mlp(step, self.config.intermediate_size as f64),
                MlpType::Sparse => self.experts(step),
            },
        }
    }

    /// A linear layer of every row, its weight read once.
    fn linear(&self, step: Step, elements: f64) -> Work {
        Work { flops: 2.0 * step.rows() as f64 * elements, bytes: elements * self.storage.linear }
    }

    fn matrix(&self, step: Step, elements: f64) -> Work {
        Work { flops: 2.0 * step.rows() as f64 * elements, bytes: elements * self.storage.matrix }
    }

    fn projections(&self, step: Step) -> Work {
        let c = &self.config;
        let (hidden, heads, latent) = (c.hidden_size as f64, c.num_attention_heads as f64, c.kv_lora_rank as f64);
        let q_dim = heads * c.qk_head_dim() as f64;
        let query = c.q_lora_rank.map_or(hidden * q_dim, |rank| rank as f64 * (hidden + q_dim));
        let kv_a = hidden * (latent + c.qk_rope_head_dim as f64);
        let kv_b = latent * heads * (c.qk_nope_head_dim + c.v_head_dim) as f64;
        let output = heads * c.v_head_dim as f64 * hidden;
        self.linear(step, query + kv_a + kv_b + output)
    }

    fn attention(&self, step: Step) -> Work {
        let c = &self.config;
        let topk = c.index_topk.filter(|_| c.has_indexer()).map_or(f64::INFINITY, |topk| topk as f64);
        let (heads, latent, rope) = (c.num_attention_heads as f64, c.kv_lora_rank as f64, c.qk_rope_head_dim as f64);
        let pairs = step.pairs(topk);
        let absorbed = 2.0 * pairs * heads * (2.0 * latent + rope);
        let (sequences, context) = step.contexts();
        let (nope, value, rows) = (c.qk_nope_head_dim as f64, c.v_head_dim as f64, step.rows() as f64);
        // The chunk's own products with `kv_b_proj` are the projections' already.
        let expanded =
            2.0 * heads * (pairs * (nope + rope + value) + (context - rows).max(0.0) * latent * (nope + value));
        let flops = match step {
            Step::Prefill { .. } if topk.is_infinite() => absorbed.min(expanded),
            _ => absorbed,
        };
        let read = sequences * (context - rows / sequences).min(rows / sequences * topk).max(0.0);
        Work { flops, bytes: (read + rows) * self.storage.latent_row }
    }

    fn indexer(&self, step: Step) -> Work {
        let c = &self.config;
        let size = |value: Option<usize>| value.unwrap_or(0) as f64;
        let (heads, dim, topk) = (size(c.index_n_heads), size(c.index_head_dim), size(c.index_topk));
        let linear = size(c.q_lora_rank) * heads * dim + c.hidden_size as f64 * dim;
        let projections = self.linear(step, linear) + self.matrix(step, c.hidden_size as f64 * heads);
        let pairs = step.pairs_beyond(topk);
        let (sequences, context) = step.contexts();
        let rows = step.rows() as f64;
        let read = if pairs > 0.0 { sequences * (context - rows / sequences) } else { 0.0 };
        let scores = Work { flops: 2.0 * pairs * heads * dim, bytes: (read + rows) * self.storage.index_row };
        projections + scores
    }

    fn mlp(&self, step: Step, width: f64) -> Work {
        self.linear(step, 3.0 * self.config.hidden_size as f64 * width)
    }

    fn experts(&self, step: Step) -> Work {
        let c = &self.config;
        let (rows, count, chosen) = (step.rows() as f64, c.n_routed_experts as f64, c.num_experts_per_tok as f64);
        let one = 3.0 * c.hidden_size as f64 * c.moe_intermediate_size as f64;
        // The mean number of experts that at least one row chooses.
        let used = if count > 0.0 { count * (1.0 - (1.0 - chosen / count).powf(rows)) } else { 0.0 };
        let routed = Work { flops: 2.0 * rows * chosen * one, bytes: used * one * self.storage.linear };
        let shared = self.linear(step, c.n_shared_experts as f64 * one);
        routed + shared + self.matrix(step, c.hidden_size as f64 * count)
    }
}
