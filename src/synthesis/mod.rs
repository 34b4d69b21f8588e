//! Makes environments and tasks for agents, without a model and the same from the same seed.

pub mod program;
pub mod record;
mod seed;
pub mod split;

pub use seed::Stream;
