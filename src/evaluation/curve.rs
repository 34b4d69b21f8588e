//! From seconds to money, from a stack of layers to a model, and where curves meet.

use super::error::{EvaluationError, Result, positive};

/// Dollars that a million tokens cost at `seconds_per_token` on a machine of `dollars_per_hour`.
///
/// # Errors
/// If a number is not finite or not above 0.
pub fn dollars_per_million_tokens(seconds_per_token: f64, dollars_per_hour: f64) -> Result<f64> {
    positive("seconds_per_token", seconds_per_token)?;
    positive("dollars_per_hour", dollars_per_hour)?;
    Ok(seconds_per_token * 1e6 / 3600.0 * dollars_per_hour)
}

/// Seconds of a step of a model of `layers` layers of each kind, `[with an MLP, with experts]`, from three stacks with the
/// same embedding and head: `one` layer with an MLP, `two` of these, and `whole`, two of these and `stacked` with experts.
///
/// Without layers with experts in the stack (`stacked` of 0), those of the model may not be any either.
///
/// # Errors
/// If a time is not finite or not above 0, or the model has experts and the stack none.
pub fn scaled_seconds(one: f64, two: f64, whole: f64, stacked: usize, layers: [usize; 2]) -> Result<f64> {
    for (name, value) in [("one", one), ("two", two), ("whole", whole)] {
        positive(name, value)?;
    }
    if stacked == 0 && layers[1] > 0 {
        return Err(EvaluationError::Value { name: "stacked", value: "0".to_string(), expected: "at least 1" });
    }
    // Noise can make a difference negative, time cannot be.
    let dense = (two - one).max(0.0);
    let sparse = (whole - two).max(0.0) / stacked.max(1) as f64;
    let ends = (one - dense).max(0.0);
    Ok(ends + layers[0] as f64 * dense + layers[1] as f64 * sparse)
}

/// Returns the position from which on `a` stays below `b`, between two points by linear interpolation; `None` if it is not
/// below `b` at the end. Both are `(position, cost)` at the same ascending positions.
///
/// # Errors
/// If the positions differ, do not ascend, or a number is not finite.
pub fn crossover(a: &[(f64, f64)], b: &[(f64, f64)]) -> Result<Option<f64>> {
    let wrong = |value: String, expected| Err(EvaluationError::Value { name: "position", value, expected });
    if a.len() != b.len() {
        return wrong(format!("of {} and of {} points", a.len(), b.len()), "the same points in both curves");
    }
    for (i, ((x, y), (other, z))) in a.iter().zip(b).enumerate() {
        if !(x.is_finite() && y.is_finite() && z.is_finite()) || x != other {
            return wrong(x.to_string(), "finite numbers at the same positions in both curves");
        }
        if i > 0 && a[i - 1].0 >= *x {
            return wrong(x.to_string(), "positions in ascending order");
        }
    }
    let gap: Vec<(f64, f64)> = a.iter().zip(b).map(|((x, y), (_, z))| (*x, y - z)).collect();
    let Some(last) = gap.iter().rposition(|(_, gap)| *gap >= 0.0) else {
        return Ok(gap.first().map(|(x, _)| *x));
    };
    let Some(&(x1, after)) = gap.get(last + 1) else { return Ok(None) };
    let (x0, before) = gap[last];
    Ok(Some(x0 + (x1 - x0) * before / (before - after)))
}
