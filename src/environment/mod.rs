//! What an agent acts on.
//!
//! [`Toolbox`] is tools with what they do: calls are checked before they are made, and what goes wrong becomes a text
//! that the model can read.

mod toolbox;

pub use toolbox::{CallResult, ToolFailure, ToolHandler, Toolbox};
