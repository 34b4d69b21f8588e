//! The HTTP server.

#[path = "../support/echo_support/mod.rs"]
mod echo_support;
#[path = "../support/generation_support/mod.rs"]
mod generation_support;
#[cfg(feature = "server")]
#[path = "../support/server_support/mod.rs"]
mod server_support;

mod calls;
mod chat;
mod connections;
mod constrain;
mod limits;
mod metrics;
mod page;
mod refusals;
mod template;
mod text;
