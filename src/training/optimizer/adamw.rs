//! AdamW.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, Weight, check_learning_rate, taken};
use crate::training::accumulate::Gradients;
use crate::training::error::{Result, TrainingError};
use crate::training::parameters::Parameters;

/// How [`AdamW`] works. The default is that of DeepSeek-V3's pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWOptions {
    /// Share of the old mean of the gradients that each step keeps, in `0..1`.
    pub beta1: f64,
    /// Share of the old mean of their squares that each step keeps, in `0..1`.
    pub beta2: f64,
    /// Added to the root of the mean of squares, more than 0.
    pub epsilon: f64,
    /// Each step takes this times the learning rate times the parameter from it.
    pub weight_decay: f64,
    /// Whether parameters with fewer than two dimensions, norms and biases, decay as well.
    pub decay_vectors: bool,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, decay_vectors: false }
    }
}

impl AdamWOptions {
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(TrainingError::value(name, "in 0..1", value));
            }
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(TrainingError::value("epsilon", "more than 0", self.epsilon));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(TrainingError::value("weight_decay", "at least 0", self.weight_decay));
        }
        Ok(())
    }
}

/// Adam with decoupled weight decay. Moments are f32, and so are the values of parameters in bf16 or f16, of which the
/// parameter itself then is a rounded copy.
///
/// # Source
/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101), algorithm 2, with the decay
/// multiplied by the learning rate; DeepSeek-V3 technical report, section 4.2.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    slots: BTreeMap<String, Slot>,
}

#[derive(Debug)]
struct Slot {
    weight: Weight,
    decay: f64,
    /// `None` before the first step.
    moments: Option<Moments>,
}

/// What is kept of the gradients of a parameter.
#[derive(Debug)]
struct Moments {
    /// Steps with a gradient.
    steps: i64,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

impl AdamW {
    /// Returns an optimizer of `parameters` with an empty state.
    ///
    /// # Errors
    /// If an option is out of range.
    pub fn new(parameters: &Parameters, options: AdamWOptions) -> Result<Self> {
        options.check()?;
        let mut slots = BTreeMap::new();
        for (name, variable) in parameters.iter() {
            let decay = if variable.rank() >= 2 || options.decay_vectors { options.weight_decay } else { 0.0 };
            slots.insert(name.to_string(), Slot { weight: Weight::new(variable)?, decay, moments: None });
        }
        Ok(Self { options, slots })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<()> {
        check_learning_rate(learning_rate)?;
        let AdamWOptions { beta1, beta2, epsilon, .. } = self.options;
        for (name, Slot { weight, decay, moments }) in &mut self.slots {
            let Some(gradient) = weight.gradient(name, gradients)? else { continue };
            let zeros = gradient.zeros_like()?;
            let old = moments.take().unwrap_or(Moments { steps: 0, exp_avg: zeros.clone(), exp_avg_sq: zeros });
            let steps = old.steps + 1;
            let exp_avg = ((old.exp_avg * beta1)? + (gradient * (1.0 - beta1))?)?;
            let exp_avg_sq = ((old.exp_avg_sq * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let correction = |beta: f64| 1.0 - beta.powf(steps as f64);
            let root = ((&exp_avg_sq / correction(beta2))?.sqrt()? + epsilon)?;
            let step = ((&exp_avg / root)? * (learning_rate / correction(beta1)))?;
            *moments = Some(Moments { steps, exp_avg, exp_avg_sq });
            weight.descend(&step, learning_rate, *decay)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, slot) in &self.slots {
            slot.weight.save(name, &mut state);
            if let Some(Moments { steps, exp_avg, exp_avg_sq }) = &slot.moments {
                state.insert(format!("{name}.step"), Tensor::new(&[*steps], &Device::Cpu)?);
                state.insert(format!("{name}.exp_avg"), exp_avg.clone());
                state.insert(format!("{name}.exp_avg_sq"), exp_avg_sq.clone());
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        for (name, slot) in &mut self.slots {
            slot.weight.load(name, state)?;
            let parts = ["step", "exp_avg", "exp_avg_sq"].map(|part| format!("{name}.{part}"));
            slot.moments = None;
            if !parts.iter().any(|part| state.contains_key(part)) {
                continue;
            }
            let (dims, dtype, device) =
                (slot.weight.variable.dims(), slot.weight.dtype(), slot.weight.variable.device());
            let steps = taken(state, &parts[0], &[1], DType::I64)?.to_vec1::<i64>()?[0];
            if steps < 1 {
                return Err(TrainingError::value(format!("the state's {}", parts[0]), "at least 1", steps));
            }
            let moment = |part: &str| Ok::<_, TrainingError>(taken(state, part, dims, dtype)?.to_device(device)?);
            slot.moments = Some(Moments { steps, exp_avg: moment(&parts[1])?, exp_avg_sq: moment(&parts[2])? });
        }
        Ok(())
    }
}
