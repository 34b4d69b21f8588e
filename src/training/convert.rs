//! A dense model becomes one with DeepSeek Sparse Attention: new indexers, the dense warm-up, the sparse stage.

use candle_core::{DType, Device};
use candle_nn::VarMap;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Example};
use super::error::{Result, TrainingError};
use super::indexer_loss::{IndexerBatch, indexer_recall};
use super::objective::{Stage, language_loss};
use super::parameters::Parameters;
use super::trainer::{StepReport, Trainer, TrainerOptions};
use crate::config::{Config, IndexerType, ModelType};
use crate::distributed::SingleRank;
use crate::model::{Model, TrainingOptions};
use crate::ops::layout::BatchLayout;
use crate::weights::{Checkpoint, LoadOptions};

/// The indexers that a dense model gets, one in each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexerShape {
    /// Heads.
    pub index_n_heads: usize,
    /// Dimensions of a head; at least `qk_rope_head_dim`.
    pub index_head_dim: usize,
    /// Positions that a query attends to, at most.
    pub index_topk: usize,
}

impl Default for IndexerShape {
    /// That of DeepSeek-V3.2.
    fn default() -> Self {
        Self { index_n_heads: 64, index_head_dim: 128, index_topk: 2048 }
    }
}

impl IndexerShape {
    /// Returns the configuration of a V3.2 model that is `dense` with these indexers. Its weights are not quantized, as
    /// trained ones are not.
    ///
    /// # Errors
    /// If `dense` has an indexer already or no `q_lora_rank`, or a number is outside its range.
    pub fn sparse_config(&self, dense: &Config) -> Result<Config> {
        if dense.has_indexer() {
            return Err(TrainingError::value(
                "model_type",
                "a dense one, such as deepseek_v3",
                dense.model_type.as_str(),
            ));
        }
        let sparse = Config {
            model_type: ModelType::DeepseekV32,
            index_n_heads: Some(self.index_n_heads),
            index_head_dim: Some(self.index_head_dim),
            index_topk: Some(self.index_topk),
            indexer_rope_interleave: false,
            indexer_types: vec![IndexerType::Full; dense.num_hidden_layers],
            quantization_config: None,
            ..dense.clone()
        };
        sparse.validate()?;
        Ok(sparse)
    }
}

/// Loads a dense checkpoint as variables in f32 and adds indexers.
///
/// The variables are those of the checkpoint to the last bit (FP8 weights times their scales), and new ones for the
/// indexers: projections normal with standard deviation `1 / sqrt(inputs)`, so that index queries, keys and the weights of
/// heads are of size one whatever the model's width, norms at one. The values depend on `seed` and the name alone.
///
/// # Errors
/// As [`IndexerShape::sparse_config`]; if the checkpoint cannot be loaded.
pub fn with_indexers(
    checkpoint: &Checkpoint,
    indexer: &IndexerShape,
    seed: u64,
    device: &Device,
) -> Result<(Model, VarMap)> {
    let mut config = indexer.sparse_config(checkpoint.config())?;
    // An MTP layer that the files lack is not made up.
    config.num_nextn_predict_layers = checkpoint.mtp_layers();
    let varmap = VarMap::new();
    let options = LoadOptions { dtype: DType::F32, weight_dtype: None, device: device.clone() };
    checkpoint.load_variables(&varmap, &options, |_| ())?;
    // What is missing now are the indexers alone: they are drawn with standard deviation 1 and then shortened.
    let unit = Config { initializer_range: 1.0, ..config.clone() };
    Model::init(&unit, &varmap, seed, DType::F32, device)?;
    for (_, variable) in Parameters::of(&varmap, |name| Stage::IndexerWarmUp.learns(name)).iter() {
        if let [_, inputs] = *variable.dims() {
            variable.set(&(variable.as_tensor().detach() * (inputs.max(1) as f64).powf(-0.5))?)?;
        }
    }
    let model = Model::init(&config, &varmap, seed, DType::F32, device)?;
    Ok((model, varmap))
}

/// What a model loses by sparse attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SparseReport {
    /// For each layer with an indexer, the mean over rows of [`indexer_recall`]: the attention's mass on what the indexer
    /// chooses over that on the best choice. Rows are those at positions from `index_topk` on, which have a choice.
    pub recall: Vec<f64>,
    /// Mean next-token loss with dense attention, nats a token.
    pub dense_loss: f64,
    /// The same with sparse attention.
    pub sparse_loss: f64,
}

impl SparseReport {
    /// The mean recall of the layers.
    pub fn mean_recall(&self) -> f64 {
        self.recall.iter().sum::<f64>() / self.recall.len().max(1) as f64
    }

    /// How much the loss grows by sparse attention, nats a token.
    pub fn gap(&self) -> f64 {
        self.sparse_loss - self.dense_loss
    }
}

/// Measures what `model` loses by sparse attention on examples, in batches of at most `batch_tokens` tokens.
///
/// # Errors
/// If the model has no indexer, no example is longer than `index_topk` tokens, or none has a token that counts.
pub fn measure_sparsity(model: &Model, examples: &[Example], batch_tokens: usize) -> Result<SparseReport> {
    let Some(index_topk) = model.config().index_topk else {
        return Err(TrainingError::value("model", "one with an indexer", model.config().model_type.as_str()));
    };
    if !examples.iter().any(|example| example.ids.len() > index_topk) {
        return Err(TrainingError::value("examples", format!("some longer than index_topk = {index_topk}"), "none"));
    }
    let batches = Batch::in_order(examples, batch_tokens)?;
    // No gradient is asked for: with checkpointing each layer's graph goes with the layer.
    let sparse = TrainingOptions { checkpointing: true, ..TrainingOptions::default() };
    let dense = TrainingOptions { dense_attention: true, ..sparse };
    let mut sums: Vec<f64> = Vec::new();
    let mut rows = 0.0;
    for batch in &batches {
        let chooses = rows_from(batch.layout(), index_topk);
        let options = TrainingOptions { indexer_inputs: true, ..dense };
        let output = model.forward_training(batch.ids(), batch.layout(), options, None)?;
        let inputs: Vec<_> = output.indexer_inputs.iter().flatten().collect();
        sums.resize(inputs.len(), 0.0);
        for (sum, inputs) in sums.iter_mut().zip(inputs) {
            let recall =
                indexer_recall(&IndexerBatch::of_layer(inputs, batch.layout(), Some(index_topk))?, index_topk)?;
            *sum += recall.iter().zip(&chooses).filter(|(_, chooses)| **chooses).map(|(recall, _)| recall).sum::<f64>();
        }
        rows += chooses.iter().filter(|&&chooses| chooses).count() as f64;
    }
    Ok(SparseReport {
        recall: sums.into_iter().map(|sum| sum / rows).collect(),
        dense_loss: language_loss(model, &batches, dense)?,
        sparse_loss: language_loss(model, &batches, sparse)?,
    })
}

/// Whether a row's position is at least `first`, `[T]`.
fn rows_from(layout: &BatchLayout, first: usize) -> Vec<bool> {
    let position = |span: &crate::ops::layout::Span| (0..span.tokens.len()).map(move |row| row >= first);
    layout.spans.iter().flat_map(position).collect()
}

/// A stage of a conversion.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversionStage {
    /// Steps; 0: the stage is left out.
    pub steps: u64,
    /// How it trains. The stage of its objective is not looked at.
    pub trainer: TrainerOptions,
}

/// How [`convert`] works.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversionOptions {
    /// The indexers.
    pub indexer: IndexerShape,
    /// Decides their initial values.
    pub seed: u64,
    /// The dense warm-up: the indexers learn, all else is frozen.
    pub warm_up: ConversionStage,
    /// The sparse stage: everything learns.
    pub sparse: ConversionStage,
}

impl ConversionOptions {
    /// Stages of that many steps with DeepSeek's learning rates, in batches of `batch_tokens` tokens.
    ///
    /// # Source
    /// DeepSeek-V3.2-Exp, section 2.1.1.
    pub fn new(indexer: IndexerShape, warm_up_steps: u64, sparse_steps: u64, batch_tokens: usize) -> Self {
        let stage =
            |steps, learning_rate| ConversionStage { steps, trainer: TrainerOptions::new(learning_rate, batch_tokens) };
        Self { indexer, seed: 0, warm_up: stage(warm_up_steps, 1e-3), sparse: stage(sparse_steps, 7.3e-6) }
    }
}

/// What [`convert`] tells while it works.
#[derive(Debug, Clone, PartialEq)]
pub enum ConversionEvent {
    /// What the model loses by sparse attention: after this stage, or with new indexers (`None`).
    Measured(Option<Stage>, SparseReport),
    /// A stage has taken a step.
    Step(Stage, StepReport),
}

/// Makes a V3.2 model of a dense checkpoint: adds indexers, warms them up, trains with sparse attention, on `examples`. Measures
/// on `held_out` before, between and after.
///
/// The variables of the result are f32; [`save_variables`](crate::weights::save_variables) writes them with the model's
/// configuration. The warm-up leaves all but the indexers as it is, to the last bit. A conversion of hours is better made of
/// [`with_indexers`] and two [`Trainer`]s, which can be resumed.
///
/// # Errors
/// As [`with_indexers`], [`measure_sparsity`] and [`Trainer::step`].
pub fn convert(
    checkpoint: &Checkpoint,
    examples: &[Example],
    held_out: &[Example],
    options: &ConversionOptions,
    device: &Device,
    tell: &mut dyn FnMut(ConversionEvent),
) -> Result<(Model, VarMap)> {
    let (model, varmap) = with_indexers(checkpoint, &options.indexer, options.seed, device)?;
    let measure = |batch_tokens| measure_sparsity(&model, held_out, batch_tokens);
    tell(ConversionEvent::Measured(None, measure(options.warm_up.trainer.packing.batch_tokens)?));
    for (stage, part) in [(Stage::IndexerWarmUp, &options.warm_up), (Stage::Sparse, &options.sparse)] {
        if part.steps == 0 {
            continue;
        }
        // Over the same variables: each model sees what the other's trainer does.
        let own = Model::init(model.config(), &varmap, options.seed, DType::F32, device)?;
        let mut trainer = part.trainer.clone();
        trainer.objective.stage = stage;
        let mut trainer = Trainer::new(own, varmap.clone(), examples.to_vec(), trainer, Box::new(SingleRank))?;
        for _ in 0..part.steps {
            tell(ConversionEvent::Step(stage, trainer.step()?));
        }
        tell(ConversionEvent::Measured(Some(stage), measure(part.trainer.packing.batch_tokens)?));
    }
    Ok((model, varmap))
}
