//! The forward pass of training: without a cache, tracked for gradients.

use candle::{Result, Tensor};
use candle_core as candle;

use super::keys::{KeySource, RowSlots};
use super::layer::LayerOutput;
use super::step::Step;
use super::{Model, Precision, Trace};
use crate::ops::layout::{BatchLayout, PAGE_SIZE};

/// What a training pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrainingOptions {
    /// Every row attends to all positions up to its own, whatever `index_topk` says: the indexer's warm-up.
    pub dense_attention: bool,
    /// The indexers' scores are returned.
    pub index_scores: bool,
    /// What the indexers' losses are computed from is returned. Unlike the scores it takes no memory that grows with the
    /// square of a sequence's length.
    pub indexer_inputs: bool,
}

/// What the loss of one layer's indexer is computed from: the vectors that its scores are made of, and the attention
/// whose probabilities they are to predict.
///
/// Rows are those of the batch. Keys lie in the slots of its [`BatchLayout`]; the slots between sequences hold numbers
/// without a meaning.
#[derive(Debug, Clone)]
pub struct IndexerInputs {
    /// Index queries, `[T, index_n_heads, index_head_dim]`. Gradients reach the indexer's parameters and stop there, here
    /// and in the next two.
    pub index_q: Tensor,
    /// Index keys by slot, `[slots, index_head_dim]`.
    pub index_k: Tensor,
    /// Weights of the index heads, with every scale, `[T, index_n_heads]` f32.
    pub weights: Tensor,
    /// The attention's queries in latent space, `[T, num_attention_heads, kv_lora_rank + qk_rope_head_dim]`, without a
    /// gradient.
    pub q: Tensor,
    /// The attention's keys by slot, `[slots, kv_lora_rank + qk_rope_head_dim]`, without a gradient.
    pub kv: Tensor,
    /// Multiplies `q . kv` in the attention's softmax.
    pub softmax_scale: f64,
    /// The slots that the rows at positions from `index_topk` on attended to, `[such rows, index_topk]` i32, -1 = none.
    /// All other rows attended to all positions up to their own; `None` where all rows did.
    pub chosen: Option<Tensor>,
}

/// What a training pass gives back.
#[derive(Debug, Clone)]
pub struct TrainingOutput {
    /// Hidden states after the final norm, `[T, hidden_size]` in the model's dtype.
    pub hidden: Tensor,
    /// For each layer that ran, its indexer's scores `[T, longest sequence]` f32 by position in the row's sequence, -inf
    /// beyond the row's own; `None` in layers without an indexer, and where [`TrainingOptions::index_scores`] is not set.
    ///
    /// Their gradients reach the indexer's parameters only: its input is detached, and the selection has no gradient.
    pub index_scores: Vec<Option<Tensor>>,
    /// For each layer that ran, what its indexer's loss is computed from; `None` in layers without an indexer, and where
    /// [`TrainingOptions::indexer_inputs`] is not set.
    pub indexer_inputs: Vec<Option<IndexerInputs>>,
    /// For each layer that ran, the logits of its router, `[T, n_routed_experts]` f32; `None` in dense layers, and where
    /// they are not tracked for gradients.
    pub router_logits: Vec<Option<Tensor>>,
}

/// What is collected of the layers, one entry for each.
#[derive(Debug, Default)]
pub(super) struct Collected {
    index_scores: Vec<Option<Tensor>>,
    indexer_inputs: Vec<Option<IndexerInputs>>,
    router_logits: Vec<Option<Tensor>>,
}

impl Collected {
    pub(super) fn add(&mut self, out: &LayerOutput) {
        self.index_scores.push(out.index_scores.clone());
        self.indexer_inputs.push(out.indexer_inputs.clone());
        // Without gradients nobody asks for them, and all layers' together are large.
        self.router_logits.push(out.router_logits.clone().filter(Tensor::track_op));
    }

    fn with(self, hidden: Tensor) -> TrainingOutput {
        let Self { index_scores, indexer_inputs, router_logits } = self;
        TrainingOutput { hidden, index_scores, indexer_inputs, router_logits }
    }
}

impl Model {
    /// Runs whole sequences without a cache: `ids: [T]` in the order of `layout`, which [`BatchLayout::uncached`] made.
    ///
    /// The numbers are those of [`Model::forward_batch`] over an empty cache, up to rounding. Where the weights are
    /// variables, gradients flow from the result into all of them, keys included, but not through what is chosen: the
    /// positions of sparse attention, the experts and their correction bias. `trace` collects what was chosen.
    ///
    /// ```
    /// use deepseek_v32::candle::{DType, Device};
    /// use deepseek_v32::candle_nn::{AdamW, Optimizer, ParamsAdamW, VarMap, loss};
    /// use deepseek_v32::model::TrainingOptions;
    /// use deepseek_v32::ops::layout::BatchLayout;
    /// use deepseek_v32::{Config, DeepSeekV32, candle};
    ///
    /// let weights = VarMap::new();
    /// let model = DeepSeekV32::init(&Config::tiny(), &weights, 0, DType::F32, &Device::Cpu)?;
    /// let mut optimizer = AdamW::new(weights.all_vars(), ParamsAdamW::default())?;
    /// // Two sequences, of four and two tokens; each row predicts the token after it.
    /// let layout = BatchLayout::uncached(&[4, 2]);
    /// let output = model.forward_training(&[1, 2, 3, 4, 5, 6], &layout, TrainingOptions::default(), None)?;
    /// let next = candle::Tensor::new(&[2u32, 3, 4, 0, 6, 0], &Device::Cpu)?;
    /// optimizer.backward_step(&loss::cross_entropy(&model.logits(&output.hidden)?, &next)?)?;
    /// # Ok::<(), candle::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Model::forward_batch`]; if a sequence does not start at position 0; for [`Precision::Fp8`], whose rounding
    /// has no gradient.
    ///
    /// # Source
    /// DeepSeek-V3.2-Exp, section 2.1.1: dense warm-up and sparse training of the indexer.
    pub fn forward_training(
        &self,
        ids: &[u32],
        layout: &BatchLayout,
        options: TrainingOptions,
        trace: Option<&mut Trace>,
    ) -> Result<TrainingOutput> {
        let ids = self.ids(ids, layout)?;
        let (step, slots) = self.training_step(layout, options)?;
        let (hidden, collected) = self.run_main(&ids, &step, |_| Ok(KeySource::Rows(&slots)), trace)?;
        Ok(collected.with(hidden))
    }

    /// Runs the MTP layer without a cache; the arguments are those of [`Model::forward_mtp`] and
    /// [`Model::forward_training`].
    ///
    /// Returns hidden states after `shared_head.norm`, and what was asked for of the one layer.
    ///
    /// # Errors
    /// As [`Model::forward_training`], and if the model has no MTP layer.
    pub fn forward_mtp_training(
        &self,
        next_ids: &[u32],
        hidden: &Tensor,
        layout: &BatchLayout,
        options: TrainingOptions,
        trace: Option<&mut Trace>,
    ) -> Result<TrainingOutput> {
        let ids = self.ids(next_ids, layout)?;
        let (step, slots) = self.training_step(layout, options)?;
        let (hidden, collected) = self.run_mtp(&ids, hidden, &step, KeySource::Rows(&slots), trace)?;
        Ok(collected.with(hidden))
    }

    fn training_step<'a>(&self, layout: &'a BatchLayout, options: TrainingOptions) -> Result<(Step<'a>, RowSlots)> {
        if self.options.precision == Precision::Fp8 {
            candle::bail!("FP8 arithmetic has no gradient: training needs Precision::Dequant or Precision::Bf16")
        }
        let rule = if options.dense_attention { self.form_rule.dense() } else { self.form_rule.clone() };
        let row_slots = RowSlots::new(layout, &self.device)?;
        let slots = layout.spans.iter().map(|span| span.block_table.len() * PAGE_SIZE).sum();
        let mut step = Step::new(layout, slots, &rule, &self.rope, &self.device)?;
        step.index_scores = options.index_scores;
        step.indexer_inputs = options.indexer_inputs;
        Ok((step, row_slots))
    }
}
