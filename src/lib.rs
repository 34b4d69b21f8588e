#![doc = include_str!("../README.md")]
//!
//! ## Map
//!
//! Each module uses only modules that stand before it:
//!
//! - [`config`]: `config.json`. [`grammar`]: what an answer must look like, as data.
//! - [`ops`]: the tensor functions of the hot path, each with a reference and a fast form.
//! - [`weights`]: checkpoints to tensors and back.
//! - [`model`]: the candle modules and their cache.
//! - [`generation`]: token ids in, token ids out. [`chat`]: messages to text, text to messages.
//! - [`environment`]: tools that run. [`chat_model`]: models that chat, local or behind a server.
//! - [`agent`]: the loop between them.
//! - `server` (feature): OpenAI's protocol over HTTP.
//! - [`error`]: the root error, which gathers those of the modules.
#![deny(missing_docs)]

pub mod agent;
pub mod chat;
pub mod chat_model;
pub mod config;
pub mod environment;
pub mod error;
pub mod generation;
pub mod grammar;
pub mod model;
pub mod ops;
#[cfg(feature = "server")]
pub mod server;
mod show;
pub mod weights;

/// The tensors of the public interface are those of this version of candle.
pub use candle_core as candle;
pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use model::Model as DeepSeekV32;
