//! What can go wrong while a model chats.

use crate::chat::{ChatError, TemplateError, ToolError};
use crate::generation::GenerationError;
use crate::show::{one_line, shown};
use crate::weights::WeightsError;

/// The longest that what a server says may be in a message, in characters.
const LONGEST_MESSAGE: usize = 400;

/// An error of [`crate::chat_model`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatModelError {
    /// A conversation could not be put into a prompt.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The checkpoint's chat template gave no prompt.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// There is no chat format for the checkpoint, which can only complete plain text.
    #[error("this checkpoint has no chat format: {}; it can complete plain text", one_line(reason))]
    NoChatFormat {
        /// Why.
        reason: String,
    },
    /// A tool that must be called is not there, or the model did not call it.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// An answer can't be held to what was asked for.
    #[error(transparent)]
    Grammar(#[from] crate::chat::GrammarError),
    /// Text from outside has a control token written out in it, and those are to be refused.
    #[error(
        "{}{field} holds the control token {}, and control tokens are refused",
        message.map(|at| format!("messages[{at}].")).unwrap_or_default(),
        one_line(token)
    )]
    ControlToken {
        /// Which message of the request; none if it is in the request's own tools or response format.
        message: Option<usize>,
        /// The field of the message or the request, e.g. `content`, `tools[2]`.
        field: String,
        /// The token.
        token: String,
    },
    /// The engine refused the request or failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A checkpoint could not be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The feature is not built in, or the model does not support it.
    #[error("{what} needs {needs}")]
    Unsupported {
        /// The feature requested, e.g. `tool_choice required`.
        what: String,
        /// The field of the request that asks for it, in the protocol's words, if one does.
        field: Option<String>,
        /// What it needs, e.g. `the feature constrain`.
        needs: &'static str,
    },
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
    /// A server answered with an error, or not at all.
    #[error("{}: {}", one_line(url), shown(message, LONGEST_MESSAGE))]
    Remote {
        /// The address, without a user and a password.
        url: String,
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// Why.
        message: String,
    },
    /// A server's answer does not follow the protocol. It is not requested again.
    #[error("{}: not an answer: {}", one_line(url), shown(problem, LONGEST_MESSAGE))]
    NotAnAnswer {
        /// The address, without a user and a password.
        url: String,
        /// The field at fault, what it is and what it should be.
        problem: String,
    },
}

impl ChatModelError {
    /// Whether a conversation did not fit the model's context.
    pub fn is_context_full(&self) -> bool {
        match self {
            Self::Generation(GenerationError::PromptTooLong { .. } | GenerationError::PromptTooLarge { .. }) => true,
            // Servers agree on the words, not on a code.
            Self::Remote { status: Some(400 | 413 | 422), message, .. } => {
                let message = message.to_lowercase();
                message.contains("context length")
                    || message.contains("context_length")
                    || message.contains("context window")
                    || message.contains("too many tokens")
                    || message.contains("prompt is too long")
            }
            _ => false,
        }
    }
}

/// `std::result::Result` with [`ChatModelError`].
pub type Result<T> = std::result::Result<T, ChatModelError>;
