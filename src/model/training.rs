//! The forward pass of training: without a cache, tracked for gradients.

use candle::{Result, Tensor};
use candle_core as candle;

use super::keys::{KeySource, RowSlots};
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
        let (hidden, index_scores) = self.run_main(&ids, &step, |_| Ok(KeySource::Rows(&slots)), trace)?;
        Ok(TrainingOutput { hidden, index_scores })
    }

    /// Runs the MTP layer without a cache; the arguments are those of [`Model::forward_mtp`] and
    /// [`Model::forward_training`].
    ///
    /// Returns hidden states after `shared_head.norm`, and the scores of the one layer.
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
        let (hidden, index_scores) = self.run_mtp(&ids, hidden, &step, KeySource::Rows(&slots), trace)?;
        Ok(TrainingOutput { hidden, index_scores: vec![index_scores] })
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
        Ok((step, row_slots))
    }
}
