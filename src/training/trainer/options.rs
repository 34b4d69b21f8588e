//! What a run trains with.

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::model::TrainingOptions;
use crate::training::error::{Result, TrainingError};
use crate::training::objective::Objective;
use crate::training::optimizer::{AdamW, AdamWOptions, Muon, MuonOptions, Optimizer};
use crate::training::packing::PackingOptions;
use crate::training::parameters::Parameters;
use crate::training::schedule::Schedule;

/// How a [`Trainer`](super::Trainer) works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerOptions {
    /// What is learnt.
    #[serde(default)]
    pub objective: Objective,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerOptions,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// How examples become batches.
    pub packing: PackingOptions,
    /// Batches of a step, over all ranks; at least 1. Default 1.
    #[serde(default = "one")]
    pub batches_per_step: usize,
    /// Longest gradient, of all parameters as one vector; longer ones are shortened. Default 1; `None`: any.
    #[serde(default = "max_norm")]
    pub max_norm: Option<f64>,
    /// How far a step moves the selection biases of the router; 0: not at all. Default 0.001.
    #[serde(default = "bias_speed")]
    pub bias_speed: f64,
    /// Whether of each layer only the input is kept for the backward pass, which runs it again: the same bits, less memory
    /// ([`TrainingOptions::checkpointing`]). Default false.
    #[serde(default)]
    pub checkpointing: bool,
    /// The dtype that activations and projections are computed in; the variables are the master weights, and gradients,
    /// moments, router and losses stay f32 ([`TrainingOptions::dtype`]). Default `None`: that of the model.
    #[serde(default)]
    pub dtype: Option<ComputeDtype>,
}

/// A dtype of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeDtype {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
}

impl From<ComputeDtype> for DType {
    fn from(dtype: ComputeDtype) -> Self {
        match dtype {
            ComputeDtype::F32 => Self::F32,
            ComputeDtype::Bf16 => Self::BF16,
        }
    }
}

fn one() -> usize {
    1
}

fn max_norm() -> Option<f64> {
    Some(1.0)
}

fn bias_speed() -> f64 {
    1e-3
}

impl TrainerOptions {
    /// The defaults at a constant learning rate, with batches of this many tokens.
    pub fn new(learning_rate: f64, batch_tokens: usize) -> Self {
        Self {
            objective: Objective::default(),
            optimizer: OptimizerOptions::default(),
            schedule: Schedule::constant(learning_rate),
            packing: PackingOptions::new(batch_tokens),
            batches_per_step: one(),
            max_norm: max_norm(),
            bias_speed: bias_speed(),
            checkpointing: false,
            dtype: None,
        }
    }

    /// How the model runs.
    pub(super) fn computation(&self, checkpointing: bool) -> TrainingOptions<'static> {
        TrainingOptions { checkpointing, dtype: self.dtype.map(DType::from), ..TrainingOptions::default() }
    }

    /// Checks every number that the parts do not check themselves.
    ///
    /// # Errors
    /// [`TrainingError::Value`] names the first that is outside its range.
    pub fn validate(&self) -> Result<()> {
        self.schedule.validate()?;
        if self.batches_per_step == 0 {
            return Err(TrainingError::value("batches_per_step", "at least 1", 0));
        }
        if !(self.bias_speed >= 0.0 && self.bias_speed.is_finite()) {
            return Err(TrainingError::value("bias_speed", "at least 0", self.bias_speed));
        }
        match self.max_norm {
            Some(norm) if norm.is_nan() || norm <= 0.0 => Err(TrainingError::value("max_norm", "more than 0", norm)),
            _ => Ok(()),
        }
    }
}

/// Which optimizer, and its options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum OptimizerOptions {
    /// [`AdamW`].
    #[serde(rename = "adamw")]
    AdamW(AdamWOptions),
    /// [`Muon`].
    Muon(MuonOptions),
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self::AdamW(AdamWOptions::default())
    }
}

impl OptimizerOptions {
    /// The optimizer of `parameters`.
    ///
    /// # Errors
    /// If an option is outside its range.
    pub fn build(&self, parameters: &Parameters) -> Result<Box<dyn Optimizer>> {
        Ok(match self {
            Self::AdamW(options) => Box::new(AdamW::new(parameters, *options)?),
            Self::Muon(options) => Box::new(Muon::new(parameters, *options)?),
        })
    }
}
