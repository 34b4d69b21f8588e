#![doc = include_str!("../README.md")]
//!
//! ## Map
//!
//! Each room uses only rooms that stand before it:
//!
//! - [`config`]: `config.json`. [`grammar`]: what an answer must look like, as data.
//! - [`ops`]: the tensor functions of the hot path, each with a reference and a fast form.
//! - [`weights`]: checkpoints to tensors and back.
//! - [`model`]: the candle modules and their cache.
//! - [`generation`]: token ids in, token ids out. [`chat`]: messages to text, text to messages.
//! - [`agent`]: models that chat, tools that run, the loop between them.
//! - `server` (feature): OpenAI's protocol over HTTP.
//! - [`error`]: what any of them can report.
#![deny(missing_docs)]

pub mod agent;
pub mod chat;
pub mod config;
pub mod error;
pub mod generation;
pub mod grammar;
pub mod model;
pub mod ops;
#[cfg(feature = "server")]
pub mod server;
pub mod weights;

pub use config::{Config, ConfigError};
pub use error::{Error, Result};
