//! The crate's own model behind the engine.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

#[cfg(feature = "cuda")]
mod graphs;
#[cfg(feature = "cuda")]
mod passes;

#[cfg(feature = "cuda")]
use super::draw::{self, Draw, Drawn};
#[cfg(feature = "cuda")]
use super::largest::Largest;
use super::record::RouteShape;
use super::token_model::{Pages, TokenModel};
use crate::config::MlpType;
use crate::model::{Cache, Model, ModelOptions, SequenceId, Trace};
use crate::ops::layout::BatchLayout;
use crate::weights::{self, LoadOptions, Progress};

/// A [`Model`] with its own cache. Engines on the same model share its weights.
#[derive(Debug)]
pub struct LocalModel {
    model: Arc<Model>,
    cache: Cache,
    /// Steps that can be replayed; `None` if they are to be launched piece by piece.
    #[cfg(feature = "cuda")]
    graphs: Option<graphs::Graphs>,
}

impl LocalModel {
    /// A model with an empty cache.
    ///
    /// # Errors
    /// If the cache's tensors can't be made on the model's device.
    pub fn new(model: Arc<Model>) -> Result<Self> {
        let cache = model.new_cache(0)?;
        Ok(Self::with_cache(model, cache))
    }

    /// A model with a cache that [`Model::new_cache`] made for it, of as many pages as the caller wants to have from the start.
    pub fn with_cache(model: Arc<Model>, cache: Cache) -> Self {
        Self {
            model,
            cache,
            #[cfg(feature = "cuda")]
            graphs: Some(graphs::Graphs::default()),
        }
    }

    /// The cache, to write rows that were computed elsewhere.
    pub fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Says whether steps of decoding on a GPU are recorded as CUDA graphs when they come for the second time, and
    /// replayed from then on; the default. Otherwise, and where a step cannot be recorded, its kernels are launched one by
    /// one, with the same results.
    #[cfg(feature = "cuda")]
    pub fn set_graphs(&mut self, graphs: bool) {
        self.graphs = graphs.then(graphs::Graphs::default);
    }

    /// How many CUDA graphs there are to replay.
    #[cfg(feature = "cuda")]
    pub fn graphs(&self) -> usize {
        self.graphs.as_ref().map_or(0, graphs::Graphs::recorded)
    }

    /// Loads a checkpoint folder in Hugging Face format; `progress` is called for every tensor.
    ///
    /// # Errors
    /// As [`weights::load`], and if the model can't be built from the weights.
    pub fn load(
        dir: impl AsRef<Path>,
        options: &LoadOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> crate::weights::Result<Self> {
        Self::load_with(dir, options, ModelOptions::default(), progress)
    }

    /// As [`LocalModel::load`], with a choice of arithmetic and of the cache's format.
    ///
    /// # Errors
    /// As [`LocalModel::load`].
    pub fn load_with(
        dir: impl AsRef<Path>,
        options: &LoadOptions,
        model: impl Into<ModelOptions>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> crate::weights::Result<Self> {
        let (config, vb) = weights::load(dir, options, progress)?;
        let model = Model::with_options(&config, model, vb)?;
        Ok(Self::new(Arc::new(model))?)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

impl TokenModel for LocalModel {
    type Sequence = SequenceId;

    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn max_context(&self) -> usize {
        self.model.config().max_position_embeddings
    }

    fn has_mtp(&self) -> bool {
        self.model.has_mtp()
    }

    fn create(&mut self) -> SequenceId {
        self.cache.create()
    }

    fn free(&mut self, sequence: SequenceId) {
        self.cache.free(sequence);
    }

    fn fork(&mut self, sequence: SequenceId, len: usize) -> Result<Option<SequenceId>> {
        let forked = self.cache.fork(sequence)?;
        self.cache.truncate(forked, len)?;
        Ok(Some(forked))
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        self.cache.truncate(sequence, len)
    }

    fn pages(&self) -> Option<Pages> {
        let free = self.cache.free_pages();
        Some(Pages { used: self.cache.pages() - free, free })
    }

    fn chunk_overhead(&self, context: usize) -> usize {
        self.model.chunk_overhead(context)
    }

    fn set_weights(&mut self, weights: Arc<Model>) -> Result<()> {
        let (old, new) = (&*self.model, &*weights);
        if new.config() != old.config() {
            bail!("the new model has another config")
        }
        if new.dtype() != old.dtype() || !new.device().same_device(old.device()) {
            let (new, old) = ((new.dtype(), new.device()), (old.dtype(), old.device()));
            bail!("the new model has dtype and device {new:?}, expected {old:?}")
        }
        if new.has_mtp() != old.has_mtp() {
            bail!("the MTP layer: the new model has one: {}, the old one: {}", new.has_mtp(), old.has_mtp())
        }
        self.model = weights;
        #[cfg(feature = "cuda")]
        if let Some(graphs) = &mut self.graphs {
            graphs.clear();
        }
        Ok(())
    }

    fn append(&mut self, new_tokens: &[(SequenceId, usize)]) -> Result<BatchLayout> {
        self.cache.append(new_tokens)
    }

    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor> {
        self.model.forward_batch(ids, layout, &mut self.cache, None)
    }

    fn route_shape(&self) -> Option<RouteShape> {
        let config = self.model.config();
        let kind = |layer: usize| config.mlp_layer_types.get(layer).copied().unwrap_or(MlpType::Sparse);
        let sparse = |&layer: &usize| kind(layer) == MlpType::Sparse;
        let layers = (0..config.num_hidden_layers).filter(sparse).collect();
        let fits = config.n_routed_experts <= usize::from(u16::MAX) + 1;
        fits.then_some(RouteShape { layers, experts_per_token: config.num_experts_per_tok })
    }

    fn forward_with_routes(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<(Tensor, Vec<u16>)> {
        let mut trace = Trace::experts();
        let hidden = self.model.forward_batch(ids, layout, &mut self.cache, Some(&mut trace))?;
        let layers: Vec<&Tensor> = trace.expert_indices.iter().flatten().collect();
        if layers.is_empty() {
            return Ok((hidden, Vec::new()));
        }
        let experts = Tensor::stack(&layers, 1)?.flatten_all()?.to_vec1::<u32>()?;
        // `route_shape` says that they fit.
        Ok((hidden, experts.into_iter().map(|expert| expert as u16).collect()))
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.model.logits(hidden)
    }

    fn forward_mtp(&mut self, next_ids: &[u32], hidden: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
        self.model.forward_mtp(next_ids, hidden, layout, &mut self.cache, None)
    }

    fn mtp_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.model.mtp_logits(hidden)
    }

    #[cfg(feature = "cuda")]
    fn forward_largest(
        &mut self,
        ids: &[u32],
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Vec<Largest>)>> {
        let input = graphs::Input { pass: graphs::Pass::Main, ids, layout, hidden: None };
        self.pass(input, rows).map(|output| output.map(|output| (output.hidden, output.largest)))
    }

    #[cfg(feature = "cuda")]
    fn forward_logits(
        &mut self,
        ids: &[u32],
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Tensor)>> {
        let input = graphs::Input { pass: graphs::Pass::Main, ids, layout, hidden: None };
        self.pass(input, rows).map(|output| output.map(|output| (output.hidden, output.logits)))
    }

    #[cfg(feature = "cuda")]
    fn draw(&self, logits: &Tensor, draws: &[Draw]) -> Result<Option<Vec<Drawn>>> {
        draw::draw(logits, draws)
    }

    #[cfg(feature = "cuda")]
    fn forward_mtp_largest(
        &mut self,
        next_ids: &[u32],
        hidden: &Tensor,
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Vec<Largest>)>> {
        let input = graphs::Input { pass: graphs::Pass::Mtp, ids: next_ids, layout, hidden: Some(hidden) };
        self.pass(input, rows).map(|output| output.map(|output| (output.hidden, output.largest)))
    }
}
