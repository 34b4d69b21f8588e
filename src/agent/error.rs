//! What can go wrong while a model chats or an agent works.

use std::path::PathBuf;

use crate::chat::ChatError;
use crate::generation::GenerationError;

/// An error of the agent layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A conversation could not be put into a prompt.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The engine refused the request or failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A checkpoint could not be loaded.
    #[error(transparent)]
    Load(Box<crate::Error>),
    /// What was asked for is not built in, or the model can't do it.
    #[error("{what} needs {needs}")]
    Unsupported {
        /// What was asked for, e.g. `tool_choice "required"`.
        what: String,
        /// What it takes, e.g. `the feature constrain`.
        needs: &'static str,
    },
    /// A server answered with an error, or not at all.
    #[error("{url}: {message}")]
    Remote {
        /// The address.
        url: String,
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// Why.
        message: String,
    },
    /// A trace could not be written or read.
    #[error("{}: {message}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

impl From<crate::Error> for AgentError {
    fn from(error: crate::Error) -> Self {
        Self::Load(Box::new(error))
    }
}

/// `std::result::Result` with [`AgentError`].
pub type Result<T> = std::result::Result<T, AgentError>;
