//! The examples, run as programs.

#[path = "../support/agent_client_support/mod.rs"]
mod agent_client_support;
#[cfg(feature = "client")]
#[path = "../support/cargo_build/mod.rs"]
mod cargo_build;
#[path = "../support/checkpoint_writer/mod.rs"]
mod checkpoint_writer;
#[path = "../support/examples_support/mod.rs"]
mod examples_support;
#[path = "../support/malformed_support/mod.rs"]
mod malformed_support;

mod chat;
mod chat_template;
mod convert_v32;
mod cost_curves;
mod distill;
mod dsa_loss;
mod generate;
mod grpo;
mod malformed;
mod malformed_config;
mod parity;
mod programs;
mod rl_loss;
mod terminal;
mod tool_calling;
