//! Models that chat: messages in, one message out.
//!
//! [`ChatModel`] is the trait. It has two implementations: [`LocalChat`], the crate's own engine, and `OpenAiChat`, a
//! server with the OpenAI protocol (feature `client`). A [`ChatRequest`] says what is asked; what happens while
//! the answer is written comes as [`ChatEvent`]s.
//!
//! What the local model wrote is kept as the ids it wrote and never tokenized again; text from outside never makes
//! control tokens ([`ControlTokens`]).

mod error;
mod local;
#[cfg(feature = "client")]
mod openai;
mod request;

pub use error::{ChatModelError, Result};
pub use local::{ChatPrompt, ChatSink, ControlTokens, Detected, LocalChat, call_id, detect_version};
#[cfg(feature = "client")]
pub use openai::{OpenAiChat, OpenAiOptions, ServerLogprobs, ThinkingField};
pub use request::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatUsage, Finish};
