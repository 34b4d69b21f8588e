//! Models that chat, tools and the loop.

#[cfg(feature = "client")]
#[path = "../support/agent_client_support/mod.rs"]
mod agent_client_support;
#[path = "../support/agent_support/mod.rs"]
mod agent_support;
#[path = "../support/checkpoint_writer/mod.rs"]
mod checkpoint_writer;
#[path = "../support/echo_support/mod.rs"]
mod echo_support;
#[cfg(feature = "server")]
#[path = "../support/server_support/mod.rs"]
mod server_support;

mod client;
mod client_answers;
mod context;
mod local;
mod messages;
mod records;
mod remote_records;
mod retry;
mod server;
mod tiny;
mod tolerant;
mod tool_loop;
mod trace;
