//! Off-policy sequence masking.

/// Whether a sequence's surrogate is masked: its advantage is negative, and `drift`, its mean of `old_logp - logp` over
/// generated tokens, is above `delta`. The same as a geometric mean of its ratios below `exp(-delta)`.
///
/// The mask has no gradient; it leaves the divergence and the denominators as they are.
///
/// # Source
/// arXiv 2512.02556, equations 8 and 9.
pub(crate) fn masked(advantage: f64, drift: f64, delta: Option<f64>) -> bool {
    delta.is_some_and(|delta| advantage < 0.0 && drift > delta)
}
