//! The clipped surrogate objective.

use super::config::GrpoConfig;

/// A term of one token, and its derivative by the token's log-probability.
///
/// Both are computed in closed form: an automatic derivative of the value would take the difference of large numbers
/// where ratios are large, and 0 times infinity where a clipped branch overflows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Term {
    pub(crate) value: f64,
    pub(crate) gradient: f64,
}

impl Term {
    pub(crate) const ZERO: Self = Self { value: 0.0, gradient: 0.0 };
}

/// `min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, for `A < 0` not below `dual_clip A`. To be maximised.
///
/// The gradient is `r A` where the ratio itself decides and 0 where a bound does.
///
/// # Source
/// arXiv 2512.02556, equation 5; arXiv 2503.14476, section 3.1 (two bounds); arXiv 1912.09729, equation 5 (dual clip).
pub(crate) fn surrogate(ratio: f64, advantage: f64, config: &GrpoConfig) -> Term {
    let bound = if advantage > 0.0 && ratio > 1.0 + config.clip_high {
        1.0 + config.clip_high
    } else if advantage < 0.0 && ratio < 1.0 - config.clip_low {
        1.0 - config.clip_low
    } else if advantage < 0.0
        && let Some(bound) = config.dual_clip.filter(|&bound| ratio > bound)
    {
        bound
    } else if advantage == 0.0 {
        // The ratio may be infinite.
        return Term::ZERO;
    } else {
        return Term { value: ratio * advantage, gradient: ratio * advantage };
    };
    Term { value: bound * advantage, gradient: 0.0 }
}
