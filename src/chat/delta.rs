//! What an answer brings as it is written.

/// A piece of an answer. Put together in their order, the pieces of an answer are the message that the batch parser
/// reads from the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the content.
    Content(String),
    /// A call begins.
    ToolCallStart {
        /// Which call of the answer, from 0.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments; the fragments of a call that ends are together the text of a JSON object.
    ToolCallArguments {
        /// Which call.
        index: usize,
        /// The text.
        fragment: String,
    },
    /// A call is complete. One that never ends was cut off or malformed and counts as not made.
    ToolCallEnd {
        /// Which call.
        index: usize,
    },
}
