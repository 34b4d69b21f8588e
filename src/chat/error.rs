//! What can be wrong with a conversation or a completion.

/// Why messages could not be written as a prompt, or a completion not be read as a message.
///
/// Messages are counted from 0 in the list that was to be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// No such format.
    #[error("unknown chat format {0:?}, expected one of v3, v3-dec2024, v3.1, v3.2")]
    UnknownVersion(String),
    /// The prompts of this format are those of the checkpoint's own template.
    #[error("the prompts of the chat format {0} are those of the checkpoint's own chat template")]
    NeedsTemplate(&'static str),
    /// A message's field is not what the format needs.
    #[error("message {message}: `{field}`: {problem}")]
    Field {
        /// Which message.
        message: usize,
        /// Which field.
        field: &'static str,
        /// What was expected instead.
        problem: FieldProblem,
    },
    /// A completion does not follow the format's grammar.
    #[error("completion, byte {at}: expected {expected}")]
    Completion {
        /// Where in the text.
        at: usize,
        /// What should have been there.
        expected: &'static str,
    },
}

/// What is wrong with a field of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldProblem {
    /// The field must not be empty.
    #[error("is empty, expected text")]
    Empty,
    /// While thinking, an assistant's message after the last user message has a reasoning or calls.
    #[error("is empty, expected reasoning or tool calls after the last user message")]
    NoReasoning,
    /// A call's arguments are not the text of a JSON object.
    #[error("call {call}: arguments: {reason}, expected the text of a JSON object")]
    Arguments {
        /// Which call of the message, from 0.
        call: usize,
        /// What is wrong.
        reason: String,
    },
    /// A tool result that answers no call: no assistant message with so many calls stands right before the results.
    #[error("answers no call: the message before the results has {calls} calls, this is result {result}")]
    ResultWithoutCall {
        /// Calls of the assistant message before the results; 0 also if there is no such message.
        calls: usize,
        /// Which result this is, from 1.
        result: usize,
    },
    /// Calls without results, where complete results are required.
    #[error("has {calls} calls, but {results} results follow")]
    MissingResults {
        /// Calls of the message.
        calls: usize,
        /// Results right after it.
        results: usize,
    },
    /// A `tool_call_id` that no call has, or that two results have.
    #[error("{0:?} is not the id of exactly one call without a result")]
    UnknownCall(String),
    /// The format has no place for the field.
    #[error("{0} has no place for it")]
    Unsupported(&'static str),
}

impl ChatError {
    /// An error about a field.
    pub(crate) fn field(message: usize, field: &'static str, problem: FieldProblem) -> Self {
        Self::Field { message, field, problem }
    }
}
