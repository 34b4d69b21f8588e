//! What the evaluation refuses.

use crate::chart::ChartError;

/// `std::result::Result` with [`EvaluationError`].
pub type Result<T> = std::result::Result<T, EvaluationError>;

/// A number or a chart that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// A number is out of range.
    #[error("{name} is {value}, expected {expected}")]
    Value {
        /// What it is.
        name: &'static str,
        /// The number as it was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A chart cannot be drawn.
    #[error(transparent)]
    Chart(#[from] ChartError),
}

/// Refuses a number that is not finite and above 0.
pub(super) fn positive(name: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(EvaluationError::Value { name, value: value.to_string(), expected: "a finite number above 0" })
}
