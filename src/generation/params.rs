//! How the next token is chosen: the parameters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{GenerationError, Result};
use crate::show;
use crate::weights::GenerationConfig;

/// Parameters of the choice of a token; the default is greedy without penalties.
///
/// They apply in this order, that of Hugging Face's `generate`: repetition, presence and frequency penalty,
/// `logit_bias`, `temperature`, `top_k`, `top_p`, `min_p`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// Divides the logits; finite, `>= 0`. `0` = greedy: the largest logit after penalties and bias, ties to the
    /// smaller id; `top_k`, `top_p`, `min_p` and `seed` then do nothing. Default 0.
    pub temperature: f64,
    /// Keep the `k >= 1` largest logits, ties to the smaller id. Default: keep all.
    pub top_k: Option<usize>,
    /// Keep the most probable tokens, as few as reach this mass of what `top_k` left; in `(0, 1]`. Default 1.
    pub top_p: f64,
    /// Keep tokens at least this many times as probable as the most probable one; in `[0, 1]`. Default 0.
    pub min_p: f64,
    /// Logits of tokens seen in the prompt or the answer are divided (positive) or multiplied (negative) by this;
    /// finite, `> 0`. Default 1.
    pub repetition_penalty: f64,
    /// How many of the latest tokens `repetition_penalty` looks at. Default: all.
    pub repeat_last_n: Option<usize>,
    /// Subtracted from the logits of tokens seen in the answer; in `[-2, 2]`. Default 0.
    pub presence_penalty: f64,
    /// Subtracted from a token's logit once for each time it occurs in the answer; in `[-2, 2]`. Default 0.
    pub frequency_penalty: f64,
    /// Added to the logits of these token ids; finite, or -inf to forbid a token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Seed of this sequence's own random numbers. Default: derived from the engine's seed and the request's number.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repeat_last_n: None,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
        }
    }
}

impl SamplingParams {
    /// Greedy choice.
    pub fn greedy() -> Self {
        Self::default()
    }

    /// Sampling from the whole vocabulary at a temperature, with a seed.
    pub fn sampled(temperature: f64, seed: u64) -> Self {
        Self { temperature, seed: Some(seed), ..Self::default() }
    }

    /// Returns the parameters that a checkpoint recommends: greedy unless `do_sample` is true, whatever its other values.
    pub fn recommended(config: &GenerationConfig) -> Self {
        let repetition_penalty = config.repetition_penalty.unwrap_or(1.0);
        if config.do_sample != Some(true) {
            return Self { repetition_penalty, ..Self::default() };
        }
        Self {
            temperature: config.temperature.unwrap_or(1.0),
            top_k: config.top_k.filter(|&k| k > 0),
            top_p: config.top_p.unwrap_or(1.0),
            min_p: config.min_p.unwrap_or(0.0),
            repetition_penalty,
            ..Self::default()
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`GenerationError::Parameter`] names the first field outside its range, [`GenerationError::TokenId`] a
    /// `logit_bias` id that is not below `vocab_size`.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        let number = |name, value: f64, valid: bool, expected| {
            if valid { Ok(()) } else { Err(parameter(name, show::number(value), expected)) }
        };
        let t = self.temperature;
        number("temperature", t, t.is_finite() && t >= 0.0, "a finite number >= 0 (0 = greedy)")?;
        if self.top_k == Some(0) {
            return Err(parameter("top_k", 0, "at least 1 (leave it out to keep every token)"));
        }
        number("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "a number in (0, 1]")?;
        number("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "a number in [0, 1]")?;
        let r = self.repetition_penalty;
        number("repetition_penalty", r, r.is_finite() && r > 0.0, "a finite number > 0 (1 = none)")?;
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            number(name, value, (-2.0..=2.0).contains(&value), "a number in [-2, 2]")?;
        }
        for (&id, &bias) in &self.logit_bias {
            if id as usize >= vocab_size {
                return Err(GenerationError::TokenId { place: "logit_bias".to_string(), id, vocab_size });
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(parameter("logit_bias", format!("{id}: {bias}"), "a finite number, or -inf"));
            }
        }
        Ok(())
    }

    /// Whether the choice is greedy.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// A [`GenerationError::Parameter`].
pub(crate) fn parameter(name: &'static str, value: impl ToString, expected: &'static str) -> GenerationError {
    GenerationError::Parameter { name, value: value.to_string(), expected }
}
