//! Why there is no grammar.

use crate::grammar::SchemaOf;
use crate::show::one_line;

/// A request that no grammar can hold an answer to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A call is required, but there are no tools.
    #[error("a tool call is required, but no tools are given")]
    NoTools,
    /// A call is required of a tool that is not there.
    #[error("a call of {0:?} is required, but no tool has this name")]
    UnknownTool(String),
    /// Two tools with one name.
    #[error("two tools are named {0:?}")]
    SameName(String),
    /// A tool's name that the format, which does not escape names, cannot carry.
    #[error("the tool name {0:?} cannot be written in the tool-call format")]
    Name(String),
    /// A `response_format` that is none.
    #[error("response_format: {0}")]
    ResponseFormat(String),
    /// A schema that cannot be held to.
    #[error("{of}{}: {problem}", one_line(pointer))]
    Schema {
        /// Whose schema.
        of: SchemaOf,
        /// Where in it, as a JSON pointer.
        pointer: String,
        /// Why.
        problem: String,
    },
}
