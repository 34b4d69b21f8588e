//! Chats: messages to text and back.
//!
//! ```text
//! messages ── encode ──> Prompt (text, and where each piece of it came from; the state the answer begins in)
//! completion ── parse ──> Parsed (message, what was dropped)
//! pieces of it ── StreamParser ──> deltas ── Accumulator ──> message
//! calls ── ToolSet::check ──> arguments
//! messages ── ChatTemplate::render ──> TemplatePrompt (for models whose format the crate does not have)
//! ```
//!
//! All that differs between versions is in one table of texts (`table`, `format`); V3.2's layout (`encode/turns`) and that of
//! V3, R1 and V3.1 (`encode/gathered`; of V3 and R1 with tools, `encode/tooled`), DSML (`stream/dsml`), the call tokens
//! before it (`stream/tokens`) and GLM-5's elements (`stream/elements`) read it.
//! The tolerant batch parser is the stream parser fed with the whole text, so both give the same message. JSON is kept
//! as it was written ([`Json`]) and printed as Python prints it ([`Json::to_python`]): that is what the models know.
//!
//! # Source
//! The published formats: DeepSeek-V3.2's model card and test pairs, the chat templates of V3, R1 and V3.1. Written
//! from their description; `tests/data/chat` holds what they give.

mod delta;
mod encode;
mod error;
mod format;
mod grammar;
mod json;
mod message;
mod parse;
mod python;
mod stream;
mod table;
mod template;
mod tools;
mod version;
mod wire;

pub use delta::Delta;
pub use encode::{
    EncodeOptions, Origin, Piece, Prompt, Start, arguments_to_dsml, encode, order_results, place_tools, tools_block,
};
pub use error::{ChatError, FieldProblem};
pub(crate) use format::NameMarks;
pub use grammar::{AnswerGrammar, GrammarError, ResponseFormat};
pub use json::Json;
pub use message::{Message, Role, Tool, ToolCall};
pub use parse::{Accumulator, CallProblem, ParseMode, ParseOptions, Parsed, arguments_from_dsml, parse};
pub use stream::{Ending, StreamParser};
pub use template::{ChatTemplate, TemplateError, TemplateInput, TemplatePrompt};
pub use tools::{ToolChoice, ToolError, ToolSet};
pub use version::Version;
