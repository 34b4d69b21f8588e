//! Errors of reinforcement learning.

use std::path::PathBuf;

use crate::agent::AgentError;
use crate::chat_model::ChatModelError;
use crate::generation::GenerationError;
use crate::model::ReplayError;
use crate::show::{one_line, one_line_path};
use crate::training::TrainingError;

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
    /// A rollout is not whole, or a part of its reward is no number.
    #[error("{}: {}", one_line(place), one_line(problem))]
    Rollout {
        /// The field, answer, task or reward at fault.
        place: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// Episodes lack what training needs, such as those of a model behind a server.
    #[error("{}: no {what} were recorded, which {technique} needs", one_line(episode))]
    NotRecorded {
        /// The task and the attempt.
        episode: String,
        /// What is missing.
        what: &'static str,
        /// What needs it: an option, or the loss itself.
        technique: &'static str,
    },
    /// A file of rollouts cannot be read or written.
    #[error("{}: {}", one_line_path(path), one_line(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// Why; with the line or tensor at fault, if there is one.
        problem: String,
    },
    /// The agent failed: its model refused a conversation, or broke down.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The system gives no thread.
    #[error("no thread for a rollout: {0}")]
    Thread(std::io::Error),
    /// The optimizer, its options or a checkpoint failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The rollouts' experts do not fit the model.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The engine refused its new weights.
    #[error(transparent)]
    Generation(#[from] GenerationError),
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

impl From<ChatModelError> for RlError {
    fn from(error: ChatModelError) -> Self {
        Self::Agent(error.into())
    }
}
