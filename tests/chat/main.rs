//! Prompts and completions.

#[path = "../support/chat_support/mod.rs"]
mod chat_support;

mod encode;
mod parse;
mod python;
mod roundtrip;
mod stream;
#[cfg(feature = "template")]
mod template;
mod tools;
mod wire;
