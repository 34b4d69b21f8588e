//! What can go wrong in training.

use std::path::PathBuf;

use crate::chat::ChatError;
use crate::config::ConfigError;
use crate::distributed::DistributedError;
use crate::generation::GenerationError;
use crate::show::{one_line, one_line_path};
use crate::weights::WeightsError;

/// `std::result::Result` with [`TrainingError`].
pub type Result<T> = std::result::Result<T, TrainingError>;

/// Why a training function refused its arguments or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// An argument has the wrong number of elements.
    #[error("{what}: {got} of them, expected {expected}")]
    Count {
        /// The argument.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A value is outside its range.
    #[error("{what} is {got}, expected {expected}")]
    Value {
        /// The value's name, with its place.
        what: String,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A gradient, a loss or a state has a NaN or an infinity.
    #[error("{name} is not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// A saved state lacks a tensor.
    #[error("the state lacks `{}`", one_line(.name))]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", one_line_path(.path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{}: {source}", one_line_path(.path))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A saved state is not that of this run.
    #[error("{}: {}", one_line_path(.path), one_line(.problem))]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights could not be saved or loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A line of a data file is not what was expected.
    #[error("{}:{line}: {problem}", one_line_path(.path))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A conversation does not fit its format.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A text could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] GenerationError),
    /// The ranks could not tell each other something.
    #[error(transparent)]
    Distributed(#[from] DistributedError),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl TrainingError {
    pub(super) fn value(what: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Value { what: what.into(), expected: expected.into(), got: got.to_string() }
    }
}

/// Refuses a number of elements other than `expected`.
pub(super) fn check_count(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(TrainingError::Count { what, expected, got }) }
}
