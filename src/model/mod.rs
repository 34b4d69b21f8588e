//! The model: MLA, DeepSeek Sparse Attention, group-limited mixture of experts, multi-token prediction.
//!
//! A batch is flattened: rows `[T, ..]` of several sequences without padding, described by a
//! [`BatchLayout`] that the [`Cache`] hands out. Prefill, chunked prefill, decode and
//! batches of unequal length are the same call.
//!
//! This folder, `config/`, `show.rs` and the ops' references depend on candle and serde alone.

use std::borrow::Cow;

use candle::{DType, Device, Error, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use crate::config::{Config, IndexerType, MlpType};
use crate::ops;
use crate::ops::layout::{BatchLayout, PAGE_SIZE};
use crate::ops::linear::{LinearMode, LinearWeight};

mod adapter;
mod attention;
mod cache;
mod checkpoint;
#[cfg(feature = "cuda")]
mod decode;
mod finite;
mod indexer;
mod init;
mod keys;
mod layer;
mod linear;
mod mlp;
mod moe;
mod mtp;
mod norm;
mod options;
mod parameters;
mod replay;
mod rope;
mod step;
mod trace;
mod training;

pub use cache::{Cache, CacheFormat, SequenceId};
pub use checkpoint::backward;
pub use options::{ModelOptions, Precision};
pub use replay::{Replay, ReplayError, ReplayField};
pub use trace::Trace;
pub use training::{IndexerInputs, TrainingOptions, TrainingOutput};

#[cfg(feature = "cuda")]
pub(crate) use decode::FixedStep;

use adapter::Adapter;
#[cfg(feature = "cuda")]
pub(crate) use finite::FiniteCheck;
#[cfg(not(feature = "cuda"))]
use finite::FiniteCheck;
use keys::KeySource;
use layer::{Given, Layer, LayerOutput};
use mtp::Mtp;
use norm::RmsNorm;
use rope::Rope;
use step::{FormRule, Step};

/// A causal language model of the DeepSeek-V3 family.
#[derive(Debug)]
pub struct Model {
    config: Config,
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: LinearWeight,
    mtp: Option<Mtp>,
    rope: Rope,
    options: ModelOptions,
    form_rule: FormRule,
    dtype: DType,
    device: Device,
    adapter: Option<Adapter>,
}

impl Model {
    /// Builds the model from weights with the released names; FP8 weights are dequantized as they are used.
    ///
    /// Activations and cache have `vb`'s dtype. The MTP layer is built if `vb` has it.
    ///
    /// With [`VarBuilder::from_varmap`], variables that the map lacks are made as [`Model::init`] describes, but from
    /// candle's generator, which takes no seed on CPU; the MTP layer is built if the map has it or is empty.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape than `cfg` says.
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        Self::with_options(cfg, ModelOptions::default(), vb)
    }

    /// As [`Model::new`], with a choice of arithmetic and of the cache's format; a [`Precision`] alone will do.
    ///
    /// # Errors
    /// As [`Model::new`], and for [`Precision::Fp8`] if `index_head_dim` is not a power of two.
    pub fn with_options(cfg: &Config, options: impl Into<ModelOptions>, vb: VarBuilder) -> Result<Self> {
        let has_mtp = Mtp::is_in(cfg, &vb);
        Self::build(cfg, options.into(), has_mtp, vb)
    }

    fn build(cfg: &Config, options: ModelOptions, has_mtp: bool, vb: VarBuilder) -> Result<Self> {
        let mode = options.precision.mode(cfg);
        let is_fp8 = options.precision == Precision::Fp8;
        let index_head_dim = cfg.index_head_dim.filter(|_| cfg.has_indexer() && is_fp8);
        if let Some(dim) = index_head_dim.filter(|dim| !dim.is_power_of_two()) {
            candle::bail!("index_head_dim: {dim} is not a power of two, which FP8 precision needs")
        }
        let model_vb = vb.pp("model");
        let stdev = cfg.initializer_range;
        let table = (cfg.vocab_size, cfg.hidden_size);
        let embed_tokens = model_vb.pp("embed_tokens").get_with_hints(table, "weight", init::normal(stdev))?;
        let mut layers = Vec::with_capacity(cfg.num_hidden_layers);
        for i in 0..cfg.num_hidden_layers {
            let mlp = cfg.mlp_layer_types.get(i).copied().unwrap_or(MlpType::Sparse);
            let full = cfg.indexer_types.get(i).copied().unwrap_or(IndexerType::Full) == IndexerType::Full;
            let layer_vb = model_vb.pp("layers").pp(i);
            layers.push(Layer::new(cfg, mode, mlp, cfg.has_indexer() && full, layer_vb)?);
        }
        let lm_head = if cfg.tie_word_embeddings {
            LinearWeight { weight: embed_tokens.clone(), weight_scale_inv: None }
        } else {
            linear::linear(cfg.hidden_size, cfg.vocab_size, stdev, vb.pp("lm_head"))?
        };
        let mtp_vb = model_vb.pp("layers").pp(cfg.num_hidden_layers);
        let mtp = if has_mtp { Some(Mtp::new(cfg, mode, &embed_tokens, &lm_head, mtp_vb)?) } else { None };
        Ok(Self {
            embed_tokens,
            layers,
            norm: RmsNorm::new(cfg.hidden_size, cfg.rms_norm_eps, model_vb.pp("norm"))?,
            lm_head,
            mtp,
            rope: Rope::new(cfg, vb.device()),
            options,
            form_rule: FormRule::new(cfg, mode, vb.dtype(), vb.device()),
            dtype: vb.dtype(),
            device: vb.device().clone(),
            adapter: None,
            config: cfg.clone(),
        })
    }

    /// The configuration that the model was built with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Dtype of activations and cache.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the checkpoint has an MTP layer.
    pub fn has_mtp(&self) -> bool {
        self.mtp.is_some()
    }

    /// Returns how the model computes and what its cache keeps.
    pub fn options(&self) -> ModelOptions {
        self.options
    }

    /// Returns how many rows cost as much as what a chunk of a prefill adds: the keys and values of all heads of the
    /// `context` tokens before it, which it expands again. 0 where later rows attend to chosen positions alone.
    pub fn chunk_overhead(&self, context: usize) -> usize {
        self.form_rule.chunk_overhead(&self.config, context)
    }

    /// Returns an empty cache for this model with `pages` pages of 64 tokens, in the format of
    /// [`Model::options`].
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new_cache(&self, pages: usize) -> Result<Cache> {
        self.new_cache_in(self.options.cache_format(self.dtype)?, pages)
    }

    /// As [`Model::new_cache`], in a format of the caller's choice.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new_cache_in(&self, format: CacheFormat, pages: usize) -> Result<Cache> {
        Cache::new(&self.config, format, &self.device, pages)
    }

    /// Runs a flattened batch: `ids: [T]` in the order of `layout`, which [`Cache::append`] made for it.
    ///
    /// Returns the hidden states after the final norm, `[T, hidden_size]` in the model's dtype; `trace` collects what
    /// the layers saw and chose.
    ///
    /// A row at a position below `index_topk` attends to all positions up to its own, a later one to those that the
    /// indexer chooses; the form of the computation follows [`Span::prefill`](crate::ops::layout::Span::prefill). So a
    /// row's numbers depend on its own sequence alone.
    ///
    /// ```
    /// use deepseek_v32::candle::{DType, Device};
    /// use deepseek_v32::candle_nn::VarMap;
    /// use deepseek_v32::{Config, DeepSeekV32};
    ///
    /// let model = DeepSeekV32::init(&Config::tiny(), &VarMap::new(), 0, DType::F32, &Device::Cpu)?;
    /// let mut cache = model.new_cache(0)?;
    /// let (a, b) = (cache.create(), cache.create());
    /// // A prompt of three tokens and one of two.
    /// let layout = cache.append(&[(a, 3), (b, 2)])?;
    /// let hidden = model.forward_batch(&[1, 2, 3, 4, 5], &layout, &mut cache, None)?;
    /// // One more token of the first.
    /// let layout = cache.append(&[(a, 1)])?;
    /// let next = model.forward_batch(&[6], &layout, &mut cache, None)?;
    /// assert_eq!((hidden.dims()[0], model.logits(&next)?.dims()[0]), (5, 1));
    /// # Ok::<(), deepseek_v32::candle::Error>(())
    /// ```
    ///
    /// # Errors
    /// If an id is not below `vocab_size`, the number of ids is not the layout's, or the weights overflow in the model's
    /// dtype, naming the layer.
    pub fn forward_batch(
        &self,
        ids: &[u32],
        layout: &BatchLayout,
        cache: &mut Cache,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let ids = self.ids(ids, layout)?;
        let step = self.cached_step(layout, cache)?;
        self.run_main(&ids, self.dtype, &step, trace, |i, layer, x, shared| {
            layer.forward(x, &step, KeySource::Cached(cache.layer(i)?), shared, &Given::default())
        })
    }

    /// The layers and the final norm over `ids: [T]` u32: hidden states `[T, hidden_size]` of `dtype`. `run` runs a layer,
    /// given its number, the residual stream and what an earlier layer chose.
    fn run_main(
        &self,
        ids: &Tensor,
        dtype: DType,
        step: &Step,
        trace: Option<&mut Trace>,
        run: impl FnMut(usize, &Layer, &Tensor, Option<Tensor>) -> Result<LayerOutput>,
    ) -> Result<Tensor> {
        let mut finite = FiniteCheck::default();
        let result = self.run_layers(ids, dtype, step, trace, run, &mut finite);
        // What overflowed is the cause of what failed after it.
        finite.finish()?;
        result
    }

    fn run_layers(
        &self,
        ids: &Tensor,
        dtype: DType,
        step: &Step,
        mut trace: Option<&mut Trace>,
        mut run: impl FnMut(usize, &Layer, &Tensor, Option<Tensor>) -> Result<LayerOutput>,
        finite: &mut FiniteCheck,
    ) -> Result<Tensor> {
        let mut x = ops::gather(&self.embed_tokens, ids, dtype)?;
        let mut chosen = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let out = run(i, layer, &x, chosen).map_err(|e| in_layer(i, e))?;
            finite.see(|| residual_stream(i), &out.hidden)?;
            if let Some(trace) = trace.as_deref_mut() {
                self.record(trace, &out, step)?;
            }
            (x, chosen) = (out.hidden, out.chosen);
        }
        let hidden = self.norm.forward(&x)?;
        finite.see(|| "model.norm: the output".to_string(), &hidden)?;
        Ok(hidden)
    }

    /// The weight behind [`Model::logits`], `[vocab_size, hidden_size]`; that of the embedding where they are tied.
    pub fn lm_head(&self) -> &LinearWeight {
        &self.lm_head
    }

    /// Logits `[n, vocab_size]` f32 of hidden states `[n, hidden_size]` from [`Model::forward_batch`].
    ///
    /// # Errors
    /// If `hidden` has another shape.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.lm_head.forward(&ops::cast(hidden, DType::F32)?, LinearMode::Dequant)
    }

    /// Runs the MTP layer: row `i` combines `next_ids[i]`, the token after row `i`, with `hidden[i]`, the main model's
    /// hidden state after the final norm, `[T, hidden_size]`.
    ///
    /// Its keys go to the same slots as the main model's, in a layer of their own: `layout` is the main model's.
    /// Returns hidden states after `shared_head.norm`, `[T, hidden_size]`; `trace` collects what the layer gave before
    /// that norm and what it chose, as one more entry.
    ///
    /// # Errors
    /// If the model has no MTP layer, or as [`Model::forward_batch`].
    ///
    /// # Source
    /// DeepSeek-V3 technical report, section 2.2.
    pub fn forward_mtp(
        &self,
        next_ids: &[u32],
        hidden: &Tensor,
        layout: &BatchLayout,
        cache: &mut Cache,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let ids = self.ids(next_ids, layout)?;
        let step = self.cached_step(layout, cache)?;
        let source = KeySource::Cached(cache.layer(self.layers.len())?);
        self.run_mtp(self.mtp()?, &ids, hidden, &step, trace, |layer, x| {
            layer.forward(x, &step, source, None, &Given::default())
        })
    }

    /// The MTP layer over `next_ids: [T]` u32 and `hidden: [T, hidden_size]`: hidden states `[T, hidden_size]`. `run` runs
    /// its decoder layer, given the residual stream.
    fn run_mtp(
        &self,
        mtp: &Mtp,
        next_ids: &Tensor,
        hidden: &Tensor,
        step: &Step,
        trace: Option<&mut Trace>,
        run: impl FnOnce(&Layer, &Tensor) -> Result<LayerOutput>,
    ) -> Result<Tensor> {
        let layer = self.layers.len();
        let (hidden, out) = mtp.forward(next_ids, hidden, run).map_err(|e| in_layer(layer, e))?;
        let mut finite = FiniteCheck::default();
        finite.see(|| residual_stream(layer), &out.hidden)?;
        finite.finish()?;
        if let Some(trace) = trace {
            self.record(trace, &out, step)?;
        }
        Ok(hidden)
    }

    /// Logits `[n, vocab_size]` f32 of the MTP layer's hidden states; they predict the token after the next one.
    ///
    /// # Errors
    /// If the model has no MTP layer or `hidden` has another shape.
    pub fn mtp_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.mtp()?.logits(hidden)
    }

    /// The weight behind [`Model::mtp_logits`], `[vocab_size, hidden_size]`; that of [`Model::lm_head`] where the
    /// checkpoint does not repeat it.
    ///
    /// # Errors
    /// If the model has no MTP layer.
    pub fn mtp_head(&self) -> Result<&LinearWeight> {
        Ok(self.mtp()?.head())
    }

    fn mtp(&self) -> Result<&Mtp> {
        match &self.mtp {
            Some(mtp) => Ok(mtp),
            None => candle::bail!("the checkpoint has no MTP layer (num_nextn_predict_layers)"),
        }
    }

    fn ids(&self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor> {
        if ids.len() != layout.tokens() {
            candle::bail!("{} ids for a batch of {} tokens", ids.len(), layout.tokens())
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            candle::bail!("token id {id} is not below vocab_size {}", self.config.vocab_size)
        }
        Tensor::from_slice(ids, ids.len(), &self.device)
    }

    fn cached_step<'a>(&self, layout: &'a BatchLayout, cache: &Cache) -> Result<Step<'a>> {
        let slots = cache.pages() * PAGE_SIZE;
        Step::new(Cow::Borrowed(layout), slots, &self.form_rule, &self.rope, &self.device)
    }

    fn record(&self, trace: &mut Trace, out: &LayerOutput, step: &Step) -> Result<()> {
        trace.expert_indices.push(out.expert_indices.clone());
        if trace.experts_only {
            return Ok(());
        }
        trace.hidden.push(out.hidden.clone());
        let positions = match self.config.has_indexer() {
            true => Some(trace::selected_positions(out.chosen.as_ref(), step)?),
            false => None,
        };
        trace.topk_indices.push(positions);
        Ok(())
    }
}

fn residual_stream(layer: usize) -> String {
    format!("model.layers.{layer}: the residual stream")
}

/// Says in which layer an error came up, on the error's own line: candle's contexts would take another one.
fn in_layer(layer: usize, error: Error) -> Error {
    match error {
        Error::WithBacktrace { inner, backtrace } => {
            Error::WithBacktrace { inner: Box::new(in_layer(layer, *inner)), backtrace }
        }
        error => Error::Msg(format!("model.layers.{layer}: {error}")),
    }
}
