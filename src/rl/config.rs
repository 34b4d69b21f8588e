//! The options of the GRPO loss.

use serde::{Deserialize, Serialize};

use super::error::{Result, RlError};

/// How rewards become advantages, in each group of `n` sequences with the same prompt.
///
/// A group with one sequence, or whose rewards are all equal, has advantages of exactly 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// `R - mean(R)`: DeepSeek-V3.2, equation 6.
    Mean,
    /// `(R - mean(R)) / (std(R) + std_eps)`: DeepSeekMath and R1.
    MeanStd,
    /// `R` minus the mean of the group's other rewards.
    LeaveOneOut,
}

/// How the terms of tokens become one number.
///
/// `N` is the number of counted sequences of the optimizer's step, `|o_i|` the number of generated tokens of sequence i.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// `1/N sum_i 1/|o_i| sum_t`: DeepSeek-V3.2, equation 5.
    SeqMeanTokenMean,
    /// `sum / sum_i |o_i|`: DAPO.
    TokenMean,
    /// `1/N sum_i sum_t`.
    SeqMeanTokenSum,
    /// `1/(N agg_const) sum_i sum_t`: Dr.GRPO.
    SeqMeanTokenSumConst,
}

/// The estimate of the divergence from the reference, with `d = ref_logp - logp` and `r = exp(logp - old_logp)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kl {
    /// No term.
    None,
    /// `-d`. Its expected gradient on policy is 0.
    K1,
    /// `d^2 / 2`.
    K2,
    /// `exp(d) - d - 1`: DeepSeekMath and R1. Its gradient is biased, and its weights have no bound.
    K3,
    /// `r (exp(d) - d - 1)` with the gradient of `r`: DeepSeek-V3.2, equation 7. The gradient is unbiased.
    RhoK3,
    /// `r d^2 / 2` without the gradient of `r`: the gradient of [`Self::RhoK3`], another value.
    RhoK2Detached,
}

/// What happens to a sequence that was cut off at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// It counts like any other.
    Keep,
    /// Its reward is 0 before the advantages are computed; its tokens count.
    ZeroReward,
    /// It does not count; its reward stays in its group's baseline.
    Drop,
}

/// The options of [`loss`](crate::rl::loss). Written and read by serde under these names; a missing option has the value
/// of [`Self::v32`], an unknown one is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// How rewards become advantages.
    pub advantage: Advantage,
    /// What the standard deviation subtracts from `n`: 0 (population) or 1 (sample). Only [`Advantage::MeanStd`] reads it.
    pub std_ddof: u32,
    /// Added to the standard deviation; at least 0. Only [`Advantage::MeanStd`] reads it.
    pub std_eps: f64,
    /// How the terms of tokens become one number.
    pub aggregation: Aggregation,
    /// The constant of [`Aggregation::SeqMeanTokenSumConst`], in tokens; above 0. No other mode reads it.
    pub agg_const: Option<f64>,
    /// The ratio is clipped below `1 - clip_low`; at least 0. From 1 on nothing is clipped below.
    pub clip_low: f64,
    /// The ratio is clipped above `1 + clip_high`; at least 0.
    pub clip_high: f64,
    /// With `c`, the term of a negative advantage is not below `c A`; `c` is above 1. `None`: no bound.
    pub dual_clip: Option<f64>,
    /// The estimate of the divergence from the reference. Its weight is each sequence's `beta`.
    pub kl: Kl,
    /// Off-policy sequence masking: a sequence with a negative advantage is masked if its mean of `old_logp - logp` is
    /// above this, in nats a token; at least 0. `None`: off.
    pub opsm_delta: Option<f64>,
    /// The sampler's temperature; above 0. Logits are divided by it.
    pub temperature: f64,
    /// Keep sampling mask: the softmax runs over each row's kept set, after the temperature. `false`: kept sets are ignored.
    pub keep_sampling_mask: bool,
    /// Whether the reference is renormalised on the kept set, too, where its log-probabilities are computed from its
    /// logits. The gradient is the same, the value is not.
    pub ref_renormalise: bool,
    /// What happens to sequences that were cut off.
    pub truncated: Truncated,
    /// Whether the sequences of a group with equal rewards do not count. Otherwise they count with advantage 0, so that
    /// the divergence still holds them.
    pub drop_zero_variance: bool,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self::v32()
    }
}

impl GrpoConfig {
    /// DeepSeek-V3.2's objective with all of its techniques.
    ///
    /// The paper has no numbers: `clip_low` = `clip_high` = 0.2 and `opsm_delta` = 0.1 are common choices, temperature 1.
    ///
    /// # Source
    /// arXiv 2512.02556, equations 5 to 9 and section 3.1.
    pub fn v32() -> Self {
        Self {
            advantage: Advantage::Mean,
            std_ddof: 0,
            std_eps: 1e-6,
            aggregation: Aggregation::SeqMeanTokenMean,
            agg_const: None,
            clip_low: 0.2,
            clip_high: 0.2,
            dual_clip: None,
            kl: Kl::RhoK3,
            opsm_delta: Some(0.1),
            temperature: 1.0,
            keep_sampling_mask: true,
            ref_renormalise: true,
            truncated: Truncated::Keep,
            drop_zero_variance: false,
        }
    }

    /// DeepSeek-R1's recipe: advantages over the standard deviation, clipping at 10, k3 (with a `beta` of 0.001).
    ///
    /// `1 - 10` clips nothing below: a negative advantage has no lower bound. Setting `opsm_delta` is the brake.
    ///
    /// # Source
    /// arXiv 2501.12948, version of the Nature article, section on the training of R1.
    pub fn r1() -> Self {
        Self {
            advantage: Advantage::MeanStd,
            clip_low: 10.0,
            clip_high: 10.0,
            kl: Kl::K3,
            opsm_delta: None,
            keep_sampling_mask: false,
            ..Self::v32()
        }
    }

    /// Checks every option's range.
    ///
    /// # Errors
    /// [`RlError::Config`] with the first option that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |key: &str, value: f64, expected: &str| {
            Err(RlError::config(key, format!("{value} was given, expected {expected}")))
        };
        let not_negative = |value: f64| value >= 0.0 && value.is_finite();
        if self.std_ddof > 1 {
            return refuse("std_ddof", f64::from(self.std_ddof), "0 or 1");
        }
        for (key, value) in [("std_eps", self.std_eps), ("clip_low", self.clip_low), ("clip_high", self.clip_high)] {
            if !not_negative(value) {
                return refuse(key, value, "a finite number of at least 0");
            }
        }
        match self.agg_const {
            Some(value) if !(value > 0.0 && value.is_finite()) => {
                return refuse("agg_const", value, "a finite number above 0");
            }
            None if self.aggregation == Aggregation::SeqMeanTokenSumConst => {
                return Err(RlError::config(
                    "agg_const",
                    "aggregation seq_mean_token_sum_const needs a number of tokens",
                ));
            }
            _ => {}
        }
        match self.dual_clip {
            Some(value) if !(value > 1.0 && value.is_finite()) => {
                return refuse("dual_clip", value, "a finite number above 1");
            }
            _ => {}
        }
        match self.opsm_delta {
            // Infinity masks nothing.
            Some(value) if value.is_nan() || value < 0.0 => refuse("opsm_delta", value, "a number of at least 0"),
            _ if !(self.temperature > 0.0 && self.temperature.is_finite()) => {
                refuse("temperature", self.temperature, "a finite number above 0")
            }
            _ => Ok(()),
        }
    }
}
