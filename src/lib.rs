#![doc = include_str!("../README.md")]
//!
//! ## Rust version and features
//!
//! The crate needs Rust 1.95 or later and no feature; a C compiler only with `hub`, `client` or `full`, whose TLS needs
//! one.
//!
//! | feature | adds | turns on |
//! |---|---|---|
//! | none | CPU inference, generation, chat formats, [`LocalChat`](chat_model::LocalChat), agents | |
//! | `cuda` | the ops on NVIDIA GPUs, with kernels of this crate; needs a CUDA toolkit to build | |
//! | `hub` | `weights::hub`: downloads checkpoints by `owner/name` from the Hugging Face hub | |
//! | `server` | `server`: an OpenAI-compatible HTTP server | `constrain`, `template` |
//! | `client` | `chat_model::OpenAiChat`: a client of such servers | |
//! | `constrain` | `generation::GrammarCompiler`: answers held to a grammar, such as calls to their tools' schemas | |
//! | `schema` | tools from Rust types; arguments checked against their JSON Schema before a tool runs | |
//! | `template` | [`ChatTemplate`](chat::ChatTemplate): chats by a checkpoint's own template, where the crate has no format for it | |
//! | `full` | | `client`, `schema`, `server`, `template` |
//!
//! ## Modules
//!
//! Each module uses modules of lower layers only; within layer 4, `environment` uses `chat`.
//!
//! | layer | module | holds |
//! |---|---|---|
//! | 0 | [`config`] | `config.json` |
//! | 0 | [`grammar`] | what an answer must look like, as data |
//! | 1 | [`ops`] | the tensor functions of the hot path, each with a reference and a fast form |
//! | 2 | [`weights`] | checkpoints to tensors and back |
//! | 2 | [`distributed`] | what the ranks of a data-parallel run tell each other |
//! | 3 | [`model`] | the candle modules and their cache |
//! | 4 | [`generation`] | token ids in, token ids out |
//! | 4 | [`chat`] | messages to text, text to messages |
//! | 4 | [`environment`] | tools that run, and worlds with a task and a verifier |
//! | 5 | [`chat_model`] | models that chat, local or behind a server |
//! | 5 | [`training`] | losses, optimizers and data |
//! | 6 | [`agent`] | the loop between model and tools |
//! | 6 | [`synthesis`] | environments and tasks made from a seed |
//! | 7 | [`evaluation`] | what a model costs |
//! | 7 | [`rl`] | reinforcement learning: the loss of GRPO |
//! | 7 | `server` (feature) | OpenAI's protocol over HTTP |
//! | top | [`error`], [`prelude`] | the root error, which gathers those of the modules; the types that most programs use |
#![deny(missing_docs)]

pub mod agent;
mod chart;
pub mod chat;
pub mod chat_model;
pub mod config;
pub mod distributed;
pub mod environment;
pub mod error;
pub mod evaluation;
mod foreign;
pub mod generation;
pub mod grammar;
pub mod model;
pub mod ops;
pub mod prelude;
pub mod rl;
#[cfg(feature = "server")]
pub mod server;
mod show;
mod statistics;
pub mod synthesis;
pub mod training;
pub mod weights;

/// The tensors of the public interface are those of this version of candle.
pub use candle_core as candle;
/// `VarBuilder` and `VarMap` of the public interface are those of this version of candle-nn.
pub use candle_nn;
pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use model::Model as DeepSeekV32;
