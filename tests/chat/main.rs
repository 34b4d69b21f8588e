//! Prompts and completions.

#[path = "../support/chat_support/mod.rs"]
mod chat_support;

mod encode;
mod parse;
mod roundtrip;
mod stream;
mod tools;
