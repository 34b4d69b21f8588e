//! The engine, the sampler, stop rules and text.

#[cfg(all(feature = "constrain", feature = "schema"))]
#[path = "../support/constrain_support/mod.rs"]
mod constrain_support;
#[path = "../support/generation_support/mod.rs"]
mod generation_support;

mod checkpoint;
mod constrain;
mod constrain_hostile;
mod engine;
mod guarded;
mod neighbours;
mod records;
mod sampler;
mod service;
mod speculative;
mod text;
mod tiktoken;
