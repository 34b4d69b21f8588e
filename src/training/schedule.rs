//! Learning rates by step.

use serde::{Deserialize, Serialize};

use super::error::{Result, TrainingError};

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Not at all.
    #[default]
    Constant,
    /// Along a straight line.
    Linear,
    /// Along half a cosine.
    Cosine,
}

/// The learning rate as a function of the step: up from 0 along a line, flat, down.
///
/// ```
/// use deepseek_v32::training::{Decay, Schedule};
///
/// let schedule = Schedule {
///     learning_rate: 1e-3,
///     warmup_steps: 10,
///     hold_steps: 0,
///     decay: Decay::Cosine,
///     decay_steps: 100,
///     final_learning_rate: 1e-4,
/// };
/// assert_eq!(schedule.at(0), 1e-4);
/// assert_eq!(schedule.at(9), 1e-3);
/// assert!((schedule.at(60) - 5.5e-4).abs() < 1e-12);
/// assert_eq!(schedule.at(1_000_000), 1e-4);
/// ```
///
/// # Source
/// DeepSeek-V3 technical report, section 4.2: linear warm-up, constant, cosine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps on the way up; step `warmup_steps - 1` has the highest rate, and with 0 the first has it.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Steps at the highest rate after the warm-up.
    #[serde(default)]
    pub hold_steps: u64,
    /// The way down.
    #[serde(default)]
    pub decay: Decay,
    /// Steps on the way down; later ones have the final rate. Not looked at where the rate stays constant.
    #[serde(default)]
    pub decay_steps: u64,
    /// The rate at the end of the way down.
    #[serde(default)]
    pub final_learning_rate: f64,
}

impl Schedule {
    /// The same rate in every step.
    pub fn constant(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            warmup_steps: 0,
            hold_steps: 0,
            decay: Decay::Constant,
            decay_steps: 0,
            final_learning_rate: learning_rate,
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// If a rate is negative or not finite, or the way down has no steps.
    pub fn validate(&self) -> Result<()> {
        for (name, rate) in [("learning_rate", self.learning_rate), ("final_learning_rate", self.final_learning_rate)] {
            if !(rate >= 0.0 && rate.is_finite()) {
                return Err(TrainingError::value(name, "at least 0", rate));
            }
        }
        if self.decay != Decay::Constant && self.decay_steps == 0 {
            return Err(TrainingError::value("decay_steps", "at least 1", 0));
        }
        Ok(())
    }

    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let after = step - self.warmup_steps;
        if self.decay == Decay::Constant || after < self.hold_steps {
            return self.learning_rate;
        }
        let share = ((after - self.hold_steps) as f64 / self.decay_steps.max(1) as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - share,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
        };
        if share >= 1.0 {
            return self.final_learning_rate;
        }
        self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * left
    }
}
