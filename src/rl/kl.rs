//! Estimates of the divergence from the reference.

use super::config::Kl;
use super::surrogate::Term;

/// Above this `d`, `exp(d)` and the ratio are not multiplied but their exponents added.
const LARGE: f64 = 1.0;

/// The estimate of one token, from `logp`, `old_logp` and `ref_logp`, and its derivative by `logp`.
///
/// With `d = ref_logp - logp` and `r = exp(logp - old_logp)`, the derivative of `r (exp(d) - d - 1)` is `-r d`: the
/// ratio is neither detached nor clipped, and `exp(d)`, which may overflow, is not in it. Its value is
/// `exp(ref_logp - old_logp) - r (d + 1)` where `d` is large.
///
/// # Source
/// arXiv 2512.02556, equation 7 ([`Kl::RhoK3`]); <http://joschu.net/blog/kl-approx.html> (k1, k2, k3).
pub(crate) fn divergence(kind: Kl, logp: f64, old_logp: f64, ref_logp: f64) -> Term {
    let d = ref_logp - logp;
    let ratio = (logp - old_logp).exp();
    let k3 = |d: f64| d.exp_m1() - d;
    match kind {
        Kl::None => Term::ZERO,
        Kl::K1 => Term { value: -d, gradient: 1.0 },
        Kl::K2 => Term { value: d * d / 2.0, gradient: -d },
        Kl::K3 => Term { value: k3(d), gradient: -d.exp_m1() },
        Kl::RhoK3 => {
            let value = if d > LARGE { (ref_logp - old_logp).exp() - ratio * (d + 1.0) } else { ratio * k3(d) };
            Term { value, gradient: -ratio * d }
        }
        Kl::RhoK2Detached => Term { value: ratio * d * d / 2.0, gradient: -ratio * d },
    }
}
