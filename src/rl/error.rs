//! Errors of reinforcement learning.

use crate::show::one_line;

/// `std::result::Result` with [`RlError`].
pub type Result<T> = std::result::Result<T, RlError>;

/// An error of [`crate::rl`]. Its text is one line that names the option, or the field and the row, at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RlError {
    /// An option of [`GrpoConfig`](crate::rl::GrpoConfig) was refused.
    #[error("config.{}: {}", one_line(key), one_line(message))]
    Config {
        /// The option.
        key: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A field of a [`Batch`](crate::rl::Batch) was refused.
    #[error("batch.{}: {}", one_line(field), one_line(message))]
    Batch {
        /// The field, with an index where one value is at fault (`kept[3]`).
        field: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A number that the loss needs is infinite or no number.
    #[error("row {row}: {what} is {value}, which is not finite in {dtype}")]
    NotFinite {
        /// The token row, `0..T`.
        row: usize,
        /// The number's name.
        what: &'static str,
        /// Its value in f64.
        value: f64,
        /// The dtype it should fit.
        dtype: &'static str,
    },
    /// A text is not the JSON it should be.
    #[error("{}", one_line(message))]
    Json {
        /// Where and why.
        message: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl RlError {
    pub(crate) fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into() }
    }

    pub(crate) fn batch(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Batch { field: field.into(), message: message.into() }
    }
}
