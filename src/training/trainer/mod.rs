//! The loop that all stages share.

mod checkpoint;
mod events;
mod metrics;
mod options;

use std::time::Instant;

use candle_nn::VarMap;
use serde::{Deserialize, Serialize};

pub use checkpoint::latest_checkpoint;
pub(crate) use checkpoint::save_step;
pub use events::EventFile;
pub use metrics::MetricsFile;
pub use options::{ComputeDtype, OptimizerOptions, TrainerOptions};

use super::accumulate::Gradients;
use super::balance::ExpertLoad;
use super::batch::{Batch, Denominators, Example};
use super::error::{Result, TrainingError};
use super::objective::{Stage, batch_loss, language_loss};
use super::optimizer::Optimizer;
use super::packing::Packer;
use super::parameters::Parameters;
use crate::distributed::Communicator;
use crate::model::{Model, backward};

/// What a step came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 0.
    pub step: u64,
    /// Passes through the data that were over when it began.
    pub epoch: u64,
    /// Tokens that went through the model, on all ranks.
    pub tokens: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean next-token loss, nats a token; 0 in the indexers' warm-up.
    pub next_token: f64,
    /// Mean loss of the MTP layer, nats a token.
    pub mtp: f64,
    /// Mean divergence of the indexers, nats a row, summed over layers.
    pub indexer: f64,
    /// The sequence-wise balance loss.
    pub balance: f64,
    /// The gradient's length before it was shortened.
    pub gradient_norm: f64,
    /// The largest load of an expert over the mean load, minus 1, of the layer where that is largest; 0 without experts.
    pub max_violation: f64,
    /// Seconds that the step took on this rank.
    pub seconds: f64,
}

/// Trains the variables of a model on examples, step by step.
///
/// A step takes `batches_per_step` batches from the [`Packer`], adds up their gradients over batches and ranks, shortens
/// them, moves the parameters, and moves the router's selection biases by the experts' loads. Rank r takes the batches
/// whose number leaves r when divided by the number of ranks.
///
/// ```
/// use deepseek_v32::candle::{DType, Device};
/// use deepseek_v32::candle_nn::VarMap;
/// use deepseek_v32::distributed::SingleRank;
/// use deepseek_v32::training::{Example, Trainer, TrainerOptions};
/// use deepseek_v32::{Config, DeepSeekV32};
///
/// let varmap = VarMap::new();
/// let model = DeepSeekV32::init(&Config::tiny(), &varmap, 0, DType::F32, &Device::Cpu)?;
/// let examples = (0..8).map(|i| Example::whole(vec![i, i + 1, i + 2])).collect();
/// let mut trainer = Trainer::new(model, varmap, examples, TrainerOptions::new(1e-3, 16), Box::new(SingleRank))?;
/// let report = trainer.step()?;
/// assert!(report.next_token > 0.0 && trainer.steps() == 1);
/// # Ok::<(), deepseek_v32::Error>(())
/// ```
pub struct Trainer {
    model: Model,
    varmap: VarMap,
    parameters: Parameters,
    optimizer: Box<dyn Optimizer>,
    packer: Packer,
    options: TrainerOptions,
    communicator: Box<dyn Communicator>,
    steps: u64,
}

impl Trainer {
    /// A trainer at its first step. `model` must have been made from `varmap`.
    ///
    /// # Errors
    /// If an option is outside its range, there are no examples, the stage trains none of the variables, or there are
    /// fewer batches a step than ranks.
    pub fn new(
        model: Model,
        varmap: VarMap,
        examples: Vec<Example>,
        options: TrainerOptions,
        communicator: Box<dyn Communicator>,
    ) -> Result<Self> {
        options.validate()?;
        let ranks = communicator.world_size();
        if options.batches_per_step < ranks {
            let expected = format!("at least the number of ranks, {ranks}");
            return Err(TrainingError::value("batches_per_step", expected, options.batches_per_step));
        }
        let stage = options.objective.stage;
        let parameters = Parameters::of(&varmap, |name| stage.learns(name));
        if parameters.is_empty() {
            return Err(TrainingError::value("stage", "one that trains some of the variables", format!("{stage:?}")));
        }
        let optimizer = options.optimizer.build(&parameters)?;
        let packer = Packer::new(examples, options.packing)?;
        Ok(Self { model, varmap, parameters, optimizer, packer, options, communicator, steps: 0 })
    }

    /// The model, whose weights are those after the last step.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The variables.
    pub fn varmap(&self) -> &VarMap {
        &self.varmap
    }

    /// What the stage trains.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Steps taken, those before a resumption among them.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step.
    ///
    /// # Errors
    /// [`TrainingError::NotFinite`] names the parameter that is not finite, or whose gradient is not, or else the loss; the parameters and the
    /// optimizer's state are then as they were before the step, and the data's position, too. If the ranks cannot reach
    /// each other, or a tensor operation fails.
    pub fn step(&mut self) -> Result<StepReport> {
        let position = self.packer.position();
        let result = self.try_step();
        if result.is_err() {
            self.packer.seek(position)?;
            // What failed may be an op far behind the cause.
            if let Some(name) = Parameters::of(&self.varmap, |_| true).not_finite()? {
                return Err(TrainingError::NotFinite { name: format!("the parameter {name}") });
            }
        }
        result
    }

    fn try_step(&mut self) -> Result<StepReport> {
        let started = Instant::now();
        let communicator = &*self.communicator;
        let epoch = self.packer.position().epoch;
        let (rank, ranks) = (communicator.rank(), communicator.world_size());
        let mut batches = Vec::new();
        for number in 0..self.options.batches_per_step {
            let batch = self.packer.next_batch()?;
            if number % ranks == rank {
                batches.push(batch);
            }
        }
        let denominators = batches.iter().map(Denominators::of).sum::<Denominators>().all_reduce(communicator)?;
        let (mut gradients, mut load) = (Gradients::default(), ExpertLoad::default());
        let options = self.options.computation(self.options.checkpointing);
        let mut sums = [0.0; 5];
        for batch in &batches {
            let loss = batch_loss(&self.model, batch, &self.options.objective, &denominators, options)?;
            let parts = [loss.next_token, loss.mtp, loss.indexer, loss.balance, batch.tokens() as f64];
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
            gradients.add(Gradients::of(&backward(loss.loss)?, &self.parameters)?)?;
            load.merge(&loss.load)?;
        }
        let sums = communicator.all_reduce_numbers(&sums)?;
        for (name, value) in ["next_token", "mtp", "indexer", "balance"].into_iter().zip(&sums) {
            if !value.is_finite() {
                return Err(TrainingError::NotFinite { name: format!("the loss {name} of step {}", self.steps) });
            }
        }
        gradients.all_reduce(communicator, &self.parameters)?;
        let gradient_norm = match self.options.max_norm {
            Some(max_norm) => gradients.clip(max_norm)?,
            None => gradients.norm()?,
        };
        let learning_rate = self.options.schedule.at(self.steps);
        self.optimizer.step(&gradients, learning_rate)?;
        load.all_reduce(communicator)?;
        if self.options.bias_speed > 0.0 && self.options.objective.stage != Stage::IndexerWarmUp {
            load.update_biases(&self.varmap, self.options.bias_speed)?;
        }
        let max_violation = load.metrics().iter().map(|metrics| metrics.max_violation).fold(0.0, f64::max);
        let step = self.steps;
        self.steps += 1;
        Ok(StepReport {
            step,
            epoch,
            tokens: sums[4] as u64,
            learning_rate,
            next_token: sums[0],
            mtp: sums[1],
            indexer: sums[2],
            balance: sums[3],
            gradient_norm,
            max_violation,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The mean next-token loss on examples that are not trained on, nats a token. Each must fit `batch_tokens`.
    ///
    /// # Errors
    /// As [`Self::step`], and if no token has a next one.
    pub fn evaluate(&self, examples: &[Example]) -> Result<f64> {
        let batches = Batch::in_order(examples, self.options.packing.batch_tokens)?;
        // No gradient is asked for: each layer's graph goes with the layer.
        language_loss(&self.model, &batches, self.options.computation(true))
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Trainer");
        debug.field("options", &self.options).field("parameters", &self.parameters.len()).field("steps", &self.steps);
        debug.finish_non_exhaustive()
    }
}
