#![doc = include_str!("../README.md")]
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
