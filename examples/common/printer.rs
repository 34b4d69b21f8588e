//! What an agent does, as a person reads it.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use deepseek_v32::agent::{AgentEvent, AgentEventKind, Stop};
use deepseek_v32::chat::Delta;
use deepseek_v32::error::one_line;
use deepseek_v32::generation::Cancel;

use super::terminal::{complain, escaped_lines, takes_codes};

/// Prints events as they come: reasoning dimmed, if a terminal shows it. Once the output is closed, the agent is
/// stopped.
pub struct Printer<W: Write> {
    out: W,
    cancel: Cancel,
    written: std::io::Result<()>,
    dims: bool,
    state: Printed,
}

/// What was printed last.
#[derive(Clone, Copy, PartialEq)]
enum Printed {
    /// A whole line, or nothing yet.
    Line,
    Reasoning,
    Content,
}

impl<W: Write> Printer<W> {
    /// To standard output, or what stands for it.
    pub fn new(out: W) -> Self {
        let dims = takes_codes(std::io::stdout().is_terminal());
        Self { out, cancel: Cancel::new(), written: Ok(()), dims, state: Printed::Line }
    }

    /// The switch that stops the agent.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Whether all could be written.
    pub fn finish(mut self) -> Result<()> {
        self.end_line();
        std::mem::replace(&mut self.written, Ok(())).context("standard output")
    }

    pub fn event(&mut self, event: AgentEvent) {
        // Of parallel runs, only the calls are printed.
        match event.kind {
            AgentEventKind::Delta(Delta::Reasoning(text)) if event.run == 0 => self.text(Printed::Reasoning, &text),
            AgentEventKind::Delta(Delta::Content(text)) if event.run == 0 => self.text(Printed::Content, &text),
            AgentEventKind::Answered { message, dropped, .. } => {
                self.end_line();
                for text in dropped.iter().filter(|text| !message.content.contains(text.as_str())) {
                    self.dim_line(&format!("[malformed, dropped: {}]", one_line(text)));
                }
            }
            AgentEventKind::CallRetried { error, .. } => {
                self.dim_line(&format!("[the call could not be read, the model is asked again: {error}]"));
            }
            AgentEventKind::Call(call) => self.line(&format!("→ {}({})", call.name, call.arguments)),
            AgentEventKind::Result { call, result } => self.line(&format!("← {}: {}", call.name, result.content)),
            AgentEventKind::ContextManaged(managed) => {
                let after = managed.tokens_after.map_or(String::new(), |tokens| format!(", now {tokens}"));
                let (strategy, steps, before) = (managed.strategy, managed.discarded_steps, managed.tokens_before);
                self.line(&format!("[{strategy}: {before} tokens, {steps} steps discarded{after}]"));
            }
            AgentEventKind::RecordDropped { line } => {
                complain(&format!(
                    "the trace's last record, line {line}, was not written to its end and does not count"
                ));
            }
            _ => {}
        }
    }

    /// A separate line.
    pub fn line(&mut self, line: &str) {
        self.end_line();
        self.write(&format!("{}\n", escaped_lines(line)));
    }

    /// A line that is dimmed where reasoning is.
    pub fn dim_line(&mut self, line: &str) {
        self.end_line();
        let (begin, end) = if self.dims { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        self.write(&format!("{begin}{}{end}\n", escaped_lines(line)));
    }

    fn end_line(&mut self) {
        self.text(Printed::Line, "");
    }

    /// The rest of a text, or a new one on a new line.
    fn text(&mut self, state: Printed, text: &str) {
        let mut written = String::new();
        if self.state != state {
            if self.state != Printed::Line {
                written.push_str(if self.state == Printed::Reasoning && self.dims { "\x1b[0m\n" } else { "\n" });
            }
            if state == Printed::Reasoning && self.dims {
                written.push_str("\x1b[2m");
            }
            self.state = state;
        }
        written.push_str(&escaped_lines(text));
        self.write(&written);
    }

    fn write(&mut self, text: &str) {
        if self.written.is_ok() {
            self.written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
            if self.written.is_err() {
                self.cancel.cancel();
            }
        }
    }
}

/// What follows, be it an error, begins on a new line and undimmed.
impl<W: Write> Drop for Printer<W> {
    fn drop(&mut self) {
        self.end_line();
    }
}

/// The name of a reason to stop.
pub fn stop_name(stop: Stop) -> String {
    serde_json::to_value(stop).ok().and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
}
