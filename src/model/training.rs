//! The forward pass of training: without a cache, tracked for gradients.

use std::borrow::Cow;
use std::sync::Arc;

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::checkpoint::{Reach, checkpoint};
use super::indexer::IndexVectors;
use super::keys::{KeySource, RowSlots};
use super::layer::{Given, Layer, LayerOutput};
use super::parameters::Weights;
use super::step::Step;
use super::{Model, Precision, Replay, Trace};
use crate::ops::layout::{BatchLayout, PAGE_SIZE};

/// What a training pass computes.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrainingOptions<'a> {
    /// Every row attends to all positions up to its own, whatever `index_topk` says: the indexer's warm-up.
    pub dense_attention: bool,
    /// The indexers' scores of all positions are returned.
    pub index_scores: bool,
    /// What the indexers' losses are computed from is returned. Unlike the scores it takes no memory that grows with the
    /// square of a sequence's length.
    pub indexer_inputs: bool,
    /// Of each layer only the input is kept for the backward pass, which runs the layer again with the same choices of
    /// experts and positions.
    ///
    /// The gradients are the same to the last bit. A pass with its backward pass takes the time of one more forward pass,
    /// about a third more, and the memory of the activations of one layer, and of `[T, hidden_size]` for each of the others.
    /// The weights of the layers must be variables or constants, and must not change before the backward pass.
    pub checkpointing: bool,
    /// The dtype of the activations, to which the projections are rounded as they are used; `None` = the model's, and weights
    /// as they are. With variables in f32 and bf16 here, training computes in bf16, and the variables remain the master
    /// weights: their gradients are f32. Norms, router, the indexer's head weights and logits are computed in f32 from the
    /// variables.
    pub dtype: Option<DType>,
    /// Experts and positions that take the place of what the model would choose; their layout must be that of the pass.
    ///
    /// Without it the model chooses anew. With positions, or with the indexers' parameters left out of the optimizer, the
    /// selection of a reinforcement learning run does not drift away from that of its rollouts.
    pub replay: Option<&'a Replay>,
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
    /// The slots that the rows at positions from `index_topk` on attended to, `[such rows, at most index_topk]` i32 or i64, -1 = none.
    /// All other rows attended to all positions up to their own; `None` where all rows did.
    pub chosen: Option<Tensor>,
}

/// What a training pass gives back.
#[derive(Debug, Clone)]
pub struct TrainingOutput {
    /// Hidden states after the final norm, `[T, hidden_size]` in the dtype of the activations.
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

/// What the layers of a training pass share.
struct Pass {
    step: Step<'static>,
    slots: RowSlots,
    dtype: Option<DType>,
    checkpointing: bool,
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
        let pass = self.training_pass(layout, options)?;
        let mut collected = Collected::default();
        let dtype = options.dtype.unwrap_or(self.dtype);
        let hidden = self.run_main(&ids, dtype, &pass.step, trace, |i, layer, x, shared| {
            let out = pass.run(layer, x, shared, given(options, i))?;
            collected.add(&out);
            Ok(out)
        })?;
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
        let pass = self.training_pass(layout, options)?;
        let mut collected = Collected::default();
        let mtp = match options.dtype {
            Some(dtype) => &self.mtp()?.with_input_rounded(dtype)?,
            None => self.mtp()?,
        };
        let hidden = hidden.to_dtype(options.dtype.unwrap_or(hidden.dtype()))?;
        let given = given(options, self.layers.len());
        let hidden = self.run_mtp(mtp, &ids, &hidden, &pass.step, trace, |layer, x| {
            let out = pass.run(layer, x, None, given)?;
            collected.add(&out);
            Ok(out)
        })?;
        Ok(collected.with(hidden))
    }

    fn training_pass(&self, layout: &BatchLayout, options: TrainingOptions) -> Result<Arc<Pass>> {
        if self.options.precision == Precision::Fp8 {
            candle::bail!("FP8 arithmetic has no gradient: training needs Precision::Dequant or Precision::Bf16")
        }
        if let Some(dtype) = options.dtype.filter(|dtype| !dtype.is_float() || dtype.size_in_bytes() == 1) {
            candle::bail!("training computes in f32, bf16, f16 or f64, got {}", dtype.as_str())
        }
        if let Some(replay) = options.replay {
            if replay.layout != *layout {
                candle::bail!("the choices to replay are of a batch with another layout")
            }
            if replay.has_positions && options.dense_attention {
                candle::bail!("there are positions to replay, but with dense_attention none are chosen")
            }
        }
        let rule = if options.dense_attention { self.form_rule.dense() } else { self.form_rule.clone() };
        let slots = RowSlots::new(layout, &self.device)?;
        let count = layout.spans.iter().map(|span| span.block_table.len() * PAGE_SIZE).sum();
        let mut step = Step::new(Cow::Owned(layout.clone()), count, &rule, &self.rope, &self.device)?;
        step.index_scores = options.index_scores;
        step.indexer_inputs = options.indexer_inputs;
        Ok(Arc::new(Pass { step, slots, dtype: options.dtype, checkpointing: options.checkpointing }))
    }
}

/// What the options give to a layer.
fn given(options: TrainingOptions, layer: usize) -> Given {
    options.replay.map_or_else(Given::default, |replay| replay.given(layer))
}

impl Pass {
    /// A layer on the residual stream `x: [T, hidden_size]`.
    fn run(self: &Arc<Self>, layer: &Layer, x: &Tensor, shared: Option<Tensor>, given: Given) -> Result<LayerOutput> {
        let mut out = self.forward(layer, x, shared, &given)?;
        if !self.checkpointing {
            return Ok(out);
        }
        // The graph of this run ends with it: what takes its place runs the layer again, with what was chosen.
        let given = Given { chosen: out.chosen.clone(), experts: out.expert_indices.clone(), again: true };
        let index: Vec<_> = out.of_indexer().into_iter().map(|output| output.clone()).collect();
        if !index.is_empty() {
            let (pass, layer, given) = (self.clone(), layer.clone(), given.clone());
            let variables = layer.index_variables()?;
            let index = checkpoint(x, Reach::Variables, variables, &index, move |x| pass.index(&layer, x, &given))?;
            out.of_indexer().into_iter().zip(index).for_each(|(output, again)| *output = again);
        }
        let main: Vec<_> = out.of_main().into_iter().map(|output| output.clone()).collect();
        let (pass, variables, layer) = (self.clone(), layer.main_variables()?, layer.clone());
        let main = checkpoint(x, Reach::Input, variables, &main, move |x| {
            let mut out = pass.forward(&layer, x, None, &given)?;
            Ok(out.of_main().into_iter().map(|output| output.clone()).collect())
        })?;
        out.of_main().into_iter().zip(main).for_each(|(output, again)| *output = again);
        Ok(out)
    }

    fn forward(&self, layer: &Layer, x: &Tensor, shared: Option<Tensor>, given: &Given) -> Result<LayerOutput> {
        self.layer(layer)?.forward(x, &self.step, KeySource::Rows(&self.slots), shared, given)
    }

    /// What [`LayerOutput::of_indexer`] is for the residual stream `x`.
    fn index(&self, layer: &Layer, x: &Tensor, given: &Given) -> Result<Vec<Tensor>> {
        let out = self.layer(layer)?.index(x, &self.step, KeySource::Rows(&self.slots), given)?;
        let vectors = out.vectors.into_iter().flat_map(|IndexVectors { q, index_k, weights }| [q, index_k, weights]);
        Ok(out.scores.into_iter().chain(vectors).collect())
    }

    fn layer<'a>(&self, layer: &'a Layer) -> Result<Cow<'a, Layer>> {
        match self.dtype {
            Some(dtype) => Ok(Cow::Owned(layer.rounded(dtype)?)),
            None => Ok(Cow::Borrowed(layer)),
        }
    }
}

impl LayerOutput {
    /// What gradients reach the indexer through: the scores, and what they are made of.
    fn of_indexer(&mut self) -> Vec<&mut Tensor> {
        let vectors =
            self.indexer_inputs.as_mut().map(|inputs| [&mut inputs.index_q, &mut inputs.index_k, &mut inputs.weights]);
        self.index_scores.iter_mut().chain(vectors.into_iter().flatten()).collect()
    }

    /// What gradients reach all else through.
    fn of_main(&mut self) -> Vec<&mut Tensor> {
        [&mut self.hidden].into_iter().chain(&mut self.router_logits).collect()
    }
}
