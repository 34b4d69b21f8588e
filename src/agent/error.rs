//! What can go wrong while an agent works.

use std::path::PathBuf;

use crate::chat_model::ChatModelError;
use crate::generation::GenerationError;
use crate::show::{one_line, one_line_path, shown};

/// The longest that a reason may be in a message, in characters.
const LONGEST_MESSAGE: usize = 400;

/// An error of [`crate::agent`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The model refused a request or failed.
    #[error(transparent)]
    ChatModel(#[from] ChatModelError),
    /// An option is outside its range.
    #[error("{name} is {}: expected {expected}", one_line(value))]
    Option {
        /// The field's name.
        name: &'static str,
        /// The value given.
        value: String,
        /// The values allowed.
        expected: &'static str,
    },
    /// A trace could not be written or read.
    #[error(
        "{}{}{}: {}",
        one_line_path(path),
        line.map(|line| format!(": line {line}")).unwrap_or_default(),
        field.as_ref().map(|field| format!(": `{field}`")).unwrap_or_default(),
        shown(message, LONGEST_MESSAGE)
    )]
    Trace {
        /// The file.
        path: PathBuf,
        /// The line at fault, from 1, if it is one.
        line: Option<usize>,
        /// The field of its record at fault, if it is one, e.g. `usage.prompt_tokens`.
        field: Option<String>,
        /// Why.
        message: String,
    },
}

impl From<GenerationError> for AgentError {
    fn from(error: GenerationError) -> Self {
        Self::ChatModel(error.into())
    }
}

/// `std::result::Result` with [`AgentError`].
pub type Result<T> = std::result::Result<T, AgentError>;
