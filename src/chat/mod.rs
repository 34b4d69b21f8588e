//! Chats: messages to text and back.

mod delta;
mod json;
mod message;

pub use delta::Delta;
pub use json::Json;
pub use message::{Message, Role, Tool, ToolCall};
