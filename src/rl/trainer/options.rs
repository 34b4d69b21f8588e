//! What a run of reinforcement learning trains with.

use std::collections::BTreeMap;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::rl::config::{GrpoConfig, Kl};
use crate::rl::error::{Result, RlError};
use crate::rl::rollout::RolloutOptions;
use crate::training::{ComputeDtype, OptimizerOptions, Schedule};

/// How a [`GrpoTrainer`](super::GrpoTrainer) works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoOptions {
    /// The loss.
    #[serde(default)]
    pub loss: GrpoConfig,
    /// How episodes are played.
    #[serde(default)]
    pub rollout: RolloutOptions,
    /// Groups whose rewards differ that a step wants; at least 1. Default 4.
    #[serde(default = "four")]
    pub groups_per_step: usize,
    /// Optimizer steps that a step's groups are divided among; at least 1. Default 1: all on policy.
    #[serde(default = "one")]
    pub mini_batches: usize,
    /// Weight of the divergence from the reference, at least 0. Default 0: there is no reference.
    #[serde(default)]
    pub beta: f64,
    /// The same for some domains.
    #[serde(default)]
    pub domain_beta: BTreeMap<String, f64>,
    /// Steps after which the reference becomes the policy as it is then; at least 1. Default: never.
    #[serde(default)]
    pub refresh_steps: Option<u64>,
    /// Whether the rollouts' experts are replayed in training. Default: yes.
    #[serde(default = "yes")]
    pub keep_routing: bool,
    /// Which positions sparse attention takes in training. Default: those that the model chooses then.
    #[serde(default)]
    pub selection: Selection,
    /// Whether layers are run again in the backward pass, for less memory. Default: no.
    #[serde(default)]
    pub checkpointing: bool,
    /// The dtype that activations and projections are computed in, and that of the engine's weights; the variables are the
    /// f32 master weights, and gradients, moments, router and loss stay f32. Default: f32.
    #[serde(default)]
    pub dtype: Option<ComputeDtype>,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerOptions,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// Longest gradient, of all parameters as one vector; longer ones are shortened. Default 1.
    #[serde(default = "unit")]
    pub max_norm: f64,
}

/// Which positions sparse attention takes in training. The indexers do not learn in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Those that the indexers choose from the hidden states as they are now.
    #[default]
    Recompute,
    /// Those that the engine's weights choose for the same tokens: the selection stays what it was in the rollouts while
    /// mini-batches move the model. Costs one more forward pass.
    Replay,
}

fn four() -> usize {
    4
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn unit() -> f64 {
    1.0
}

impl GrpoOptions {
    /// The defaults at a constant learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            loss: GrpoConfig::v32(),
            rollout: RolloutOptions::default(),
            groups_per_step: four(),
            mini_batches: one(),
            beta: 0.0,
            domain_beta: BTreeMap::new(),
            refresh_steps: None,
            keep_routing: yes(),
            selection: Selection::default(),
            checkpointing: false,
            dtype: None,
            optimizer: OptimizerOptions::default(),
            schedule: Schedule::constant(learning_rate),
            max_norm: unit(),
        }
    }

    /// The weight of the divergence in a domain.
    pub fn beta_of(&self, domain: &str) -> f64 {
        self.domain_beta.get(domain).copied().unwrap_or(self.beta)
    }

    /// Whether a reference is needed.
    pub fn has_reference(&self) -> bool {
        self.loss.kl != Kl::None && (self.beta > 0.0 || self.domain_beta.values().any(|beta| *beta > 0.0))
    }

    /// The dtype of the engine's weights.
    pub fn sampler_dtype(&self) -> DType {
        self.dtype.map_or(DType::F32, DType::from)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`RlError::Config`] names the first option at fault; the optimizer's own are checked as it is made.
    pub fn validate(&self) -> Result<()> {
        self.loss.validate()?;
        self.rollout.validate()?;
        self.schedule.validate()?;
        for (key, value) in [("groups_per_step", self.groups_per_step), ("mini_batches", self.mini_batches)] {
            if value == 0 {
                return Err(RlError::config(key, "0, expected at least 1"));
            }
        }
        if self.refresh_steps == Some(0) {
            return Err(RlError::config("refresh_steps", "0, expected at least 1"));
        }
        let named = self.domain_beta.iter().map(|(domain, beta)| (format!("domain_beta.{domain}"), *beta));
        for (key, beta) in [("beta".to_string(), self.beta)].into_iter().chain(named) {
            if !(beta >= 0.0 && beta.is_finite()) {
                return Err(RlError::config(key, format!("{beta}, expected a finite number of at least 0")));
            }
        }
        if self.max_norm.is_nan() || self.max_norm <= 0.0 {
            return Err(RlError::config("max_norm", format!("{}, expected more than 0", self.max_norm)));
        }
        let record = self.rollout.record;
        if !record.logprobs || self.loss.keep_sampling_mask && !record.kept || self.keep_routing && !record.routes {
            let message = "lacks what training needs: logprobs, kept for keep_sampling_mask, routes for keep_routing";
            return Err(RlError::config("rollout.record", message));
        }
        let sampled = self.rollout.agent.params.temperature;
        if sampled != self.loss.temperature {
            let message = format!("{}, expected the rollouts' temperature, {sampled}", self.loss.temperature);
            return Err(RlError::config("loss.temperature", message));
        }
        Ok(())
    }
}
