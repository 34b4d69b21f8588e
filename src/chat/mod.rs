//! Chats: messages to text and back.

mod delta;
mod encode;
mod error;
mod format;
mod json;
mod message;
mod parse;
mod python;
mod stream;
mod tools;
mod version;

pub use delta::Delta;
pub use encode::{
    EncodeOptions, Origin, Piece, Prompt, Start, arguments_to_dsml, encode, order_results, place_tools, tools_block,
};
pub use error::{ChatError, FieldProblem};
pub use json::Json;
pub use message::{Message, Role, Tool, ToolCall};
pub use parse::{Accumulator, ParseMode, ParseOptions, Parsed, arguments_from_dsml, parse};
pub use stream::StreamParser;
pub use tools::{ToolChoice, ToolError, ToolSet};
pub use version::Version;
