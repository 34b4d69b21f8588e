//! Numbers in schemas, and what multiples cost.

use super::error::GrammarError;
use super::schema::Root;
use crate::chat::json::Json;

/// The sum of all `multipleOf` of a request, each as a whole number (`0.25` counts 25): the compiler takes time and
/// memory for every remainder there is, half a second for this many.
pub(super) const MAX_MULTIPLES: u64 = 100_000;

/// Checks a keyword that sets a bound.
pub(super) fn check_bound(root: &Root, value: &Json, path: &str) -> Result<(), GrammarError> {
    number(root, value, path).map(drop)
}

/// Checks a `multipleOf`; returns it as a whole number.
pub(super) fn multiple(root: &Root, value: &Json, path: &str) -> Result<u64, GrammarError> {
    let value = number(root, value, path)?;
    if value <= 0.0 {
        return Err(root.problem(path, "must be above 0"));
    }
    let digits: String = value.to_string().chars().filter(|&c| c != '.').collect();
    digits.parse().ok().filter(|&digits| digits <= MAX_MULTIPLES).ok_or_else(|| too_fine(root, path))
}

/// The error of multiples that cost too much.
pub(super) fn too_fine(root: &Root, path: &str) -> GrammarError {
    root.problem(
        path,
        format!("costs too much: all of a request, without their decimal points, must be {MAX_MULTIPLES} at most"),
    )
}

fn number(root: &Root, value: &Json, path: &str) -> Result<f64, GrammarError> {
    let Json::Number(text) = value else { return Err(root.problem(path, "must be a number")) };
    text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| root.problem(path, "is too large"))
}
