//! Bodies to requests: bytes that anyone may have sent to values that are checked.

mod chat;
mod completion;
mod fields;
mod sampling;
mod tokens;
mod unserved;

pub use chat::ChatCall;
pub use completion::{CompletionCall, RawPrompt};
pub use tokens::{DetokenizeCall, TokenizeCall, TokenizeWhat};
