//! Panics of the `tokenizers` crate, turned into messages.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`caught`].
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What `body` returns, or the message that it panics with.
///
/// `tokenizers` checks little of what `tokenizer.json` says: many a normalizer, pre-tokenizer or decoder is taken as it
/// stands and panics at the text that it cannot take (a `FixedLength` of 0, a `Strip` longer than the token, a garbled
/// `Precompiled`). A list of these would lag behind the next version, so all of them are caught, here alone.
///
/// A caught panic is not reported by the panic hook: it is no defect of the process but an answer to its input. The
/// hook in place is kept for every other panic.
pub(super) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static SILENCE: Once = Once::new();
    // A thread that is panicking already may not touch the hook.
    if !std::thread::panicking() {
        SILENCE.call_once(|| {
            let hook = take_hook();
            set_hook(Box::new(move |info| {
                if !INSIDE.try_with(Cell::get).unwrap_or(false) {
                    hook(info);
                }
            }));
        });
    }
    let outside = INSIDE.replace(true);
    // What a panic leaves half done is the tokenizer's cache of words, which holds whole entries only.
    let result = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outside);
    result.map_err(|panic| format!("the tokenizers library gave up: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "no reason given",
    }
}
