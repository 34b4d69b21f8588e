//! Panics turned into messages.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns what `body` returns, or the message of its panic.
///
/// The process's panic hook stays as it is, so it reports a caught panic as it reports any other. What a panic leaves
/// half done in values that `body` borrows is the caller's to judge.
pub(super) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| message(&*panic).to_string())
}

/// Returns what `body` returns, a call of the `tokenizers` library.
///
/// `tokenizers` checks little of `tokenizer.json`: most normalizers, pre-tokenizers and decoders are taken unchecked and
/// panics at the first text that it cannot process (a `FixedLength` of 0, a `Strip` longer than the token, a garbled
/// `Precompiled`). All of them are caught here. What a panic leaves half done there is a cache of words, which holds
/// whole entries only.
pub(super) fn caught_in_tokenizers<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    caught(body).map_err(|message| format!("the tokenizers library panicked: {message}"))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "no reason given",
    }
}
