//! Models that chat, and agents that work with them.
//!
//! - [`ChatModel`] is a model that takes messages and answers with one: [`LocalChat`] is the crate's own engine.

mod chat_model;
mod context;
mod error;
mod local;
#[cfg(feature = "client")]
mod openai;
mod options;
mod outcome;
mod run;
mod state;
mod tool_agent;
mod toolbox;
mod trace;

pub use chat_model::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatUsage, Finish};
pub use context::{ContextManagement, Managed};
pub use error::{AgentError, Result};
pub use local::{ChatPrompt, ChatSink, ChatUpdate, ControlTokens, LocalChat, call_id, detect_version};
#[cfg(feature = "client")]
pub use openai::{OpenAiChat, OpenAiOptions, ThinkingField};
pub use options::AgentOptions;
pub use outcome::{AgentEvent, AgentEventKind, Outcome, RunReport, Stop};
pub use tool_agent::Agent;
pub use toolbox::{CallResult, ToolFailure, ToolHandler, Toolbox};
