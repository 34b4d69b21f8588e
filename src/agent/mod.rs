//! Models that chat, and agents that work with them.
//!
//! - [`ChatModel`] is a model that takes messages and answers with one. There are two: [`LocalChat`], the crate's own
//!   engine, and `OpenAiChat`, a server that speaks the OpenAI protocol (feature `client`). A [`ChatRequest`] says what
//!   is asked; what happens on the way comes as [`ChatEvent`]s.
//! - [`Toolbox`] is tools with what they do: calls are checked before they are made, and what goes wrong becomes a text
//!   that the model can read.
//! - [`Agent`] is the loop: it asks the model, carries out the calls of the answer, at the same time where it can, and
//!   asks again, until an answer has no calls or a limit of [`AgentOptions`] is reached ([`Stop`]). Every step is told
//!   as an [`AgentEvent`]; [`Agent::run_traced`] writes it down, [`Agent::resume`] goes on from there.
//! - [`ContextManagement`] is what the loop does when the context fills: `None` ends the run, `Summary` lets the model
//!   write down what it found, `Discard75` and `DiscardAll` drop steps, `ParallelFewestStep` makes several runs and
//!   takes the shortest that answers. [`Outcome`] reports the steps and tokens of each.
//!
//! What the local model wrote is kept as the ids it wrote and never tokenized again; text from outside never makes
//! control tokens ([`ControlTokens`]).

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
