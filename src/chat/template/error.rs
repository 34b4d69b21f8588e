//! Why a checkpoint's chat template gives no prompt.

use std::path::PathBuf;

use crate::show::{one_line, one_line_path};

/// Why a checkpoint's chat template gives no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A file that may hold the template could not be read, or is malformed.
    #[error("{}: {}", one_line_path(path), one_line(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The template is not one.
    #[error("the chat template: line {line}: {}", one_line(problem))]
    Syntax {
        /// The line, counted from 1; 0 if it is not known.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The template refused the conversation, with `raise_exception`.
    #[error("the chat template refuses the conversation: {}", one_line(.0))]
    Refused(String),
    /// The template failed.
    #[error("the chat template: line {line}: {}", one_line(problem))]
    Render {
        /// The line, counted from 1; 0 if it is not known.
        line: usize,
        /// What failed.
        problem: String,
    },
    /// The template takes more steps or more memory than any conversation needs.
    #[error("the chat template takes too many steps or writes too much text")]
    TooMuch,
    /// The arguments of a call are not the text of a JSON object.
    #[error("message {message}: `tool_calls`: call {call}: expected the text of a JSON object as arguments")]
    Arguments {
        /// Which message, counted from 0.
        message: usize,
        /// Which call of the message, counted from 0.
        call: usize,
    },
    /// The crate was built without the feature.
    #[error("the checkpoint's chat template needs the feature template")]
    FeatureMissing,
}
