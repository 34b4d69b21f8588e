//! Models that chat, and agents that work with them.
//!
//! - [`ChatModel`] is a model that takes messages and answers with one: [`LocalChat`] is the crate's own engine.

mod chat_model;
mod error;
mod local;

pub use chat_model::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatUsage, Finish};
pub use error::{AgentError, Result};
pub use local::{ChatPrompt, ChatSink, ChatUpdate, LocalChat, call_id, detect_version};
