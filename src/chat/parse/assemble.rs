//! Deltas to a message.

use crate::chat::delta::Delta;
use crate::chat::message::{Message, ToolCall};

/// Puts the deltas of an answer together. Calls that never end are left out.
#[derive(Debug, Clone, Default)]
pub struct Accumulator {
    reasoning: String,
    content: String,
    /// Name, arguments, whether the call has ended.
    calls: Vec<(ToolCall, bool)>,
}

impl Accumulator {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next delta. One of a call that never began is ignored.
    pub fn push(&mut self, delta: Delta) {
        match delta {
            Delta::Reasoning(text) => self.reasoning.push_str(&text),
            Delta::Content(text) => self.content.push_str(&text),
            Delta::ToolCallStart { index, name } => {
                debug_assert_eq!(index, self.calls.len());
                self.calls.push((ToolCall { id: None, name, arguments: String::new() }, false));
            }
            Delta::ToolCallArguments { index, fragment } => {
                if let Some((call, _)) = self.calls.get_mut(index) {
                    call.arguments.push_str(&fragment);
                }
            }
            Delta::ToolCallEnd { index } => {
                if let Some((_, ended)) = self.calls.get_mut(index) {
                    *ended = true;
                }
            }
        }
    }

    /// The message so far, with the calls that have ended.
    pub fn finish(self) -> Message {
        let mut message = Message::assistant(self.content);
        message.reasoning_content = Some(self.reasoning).filter(|reasoning| !reasoning.is_empty());
        message.tool_calls = self.calls.into_iter().filter(|(_, ended)| *ended).map(|(call, _)| call).collect();
        message
    }
}

impl Extend<Delta> for Accumulator {
    fn extend<I: IntoIterator<Item = Delta>>(&mut self, deltas: I) {
        deltas.into_iter().for_each(|delta| self.push(delta));
    }
}
