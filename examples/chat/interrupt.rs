//! Ctrl-C: it stops the answer that is being written, and ends the chat where none is.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use deepseek_v32::generation::Cancel;

use crate::common::terminal;

/// Exit status of what SIGINT ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// The answer that is being written and has not been stopped.
static ANSWER: Mutex<Option<Cancel>> = Mutex::new(None);

/// Listens from now on.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(interrupt).context("Ctrl-C")
}

fn interrupt() {
    match set(None) {
        Some(answer) => answer.cancel(),
        None => {
            // Standard output is the other thread's. What follows begins on a new line, and undimmed.
            let mut err = std::io::stderr();
            let reset = if terminal::takes_codes(err.is_terminal()) { "\x1b[0m" } else { "" };
            let _ = writeln!(err, "{reset}");
            std::process::exit(INTERRUPTED);
        }
    }
}

fn set(answer: Option<Cancel>) -> Option<Cancel> {
    std::mem::replace(&mut ANSWER.lock().unwrap_or_else(PoisonError::into_inner), answer)
}

/// While it lives, Ctrl-C stops the answer.
pub struct Answering(());

impl Answering {
    pub fn new(answer: Cancel) -> Self {
        set(Some(answer));
        Self(())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        set(None);
    }
}
