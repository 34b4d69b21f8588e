//! Numbers over attempts.

/// Returns how likely it is that at least one of `k` attempts succeeds, where `solved` of `attempts` did: the estimator
/// `1 - C(attempts - solved, k) / C(attempts, k)`, which is right on average.
///
/// The quotient is multiplied up from factors in `[0, 1]`, so that no binomial can overflow. Returns `None` unless
/// `1 <= k <= attempts` and `solved <= attempts`.
pub fn pass_at_k(attempts: u64, solved: u64, k: u64) -> Option<f64> {
    if k == 0 || k > attempts || solved > attempts {
        return None;
    }
    if attempts - solved < k {
        return Some(1.0);
    }
    // C(n - c, k) / C(n, k) = (1 - k / (n - c + 1)) ... (1 - k / n), of the fewer factors.
    let (factors, other) = (solved.min(k), solved.max(k));
    let miss: f64 = (attempts - factors + 1..=attempts).map(|i| (i - other) as f64 / i as f64).product();
    Some(1.0 - miss)
}
