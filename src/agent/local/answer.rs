//! Updates of the engine to the answer of a chat.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::chat_model::{ChatEvent, ChatResponse, ChatUsage, Finish};
use super::super::error::AgentError;
use crate::chat::{Accumulator, Delta, Start, StreamParser, Tool, Version};
use crate::generation::{FinishReason, Token, Update};

/// What a chat in the engine is told.
#[derive(Debug)]
pub enum ChatUpdate {
    /// Something happened.
    Event(ChatEvent),
    /// The answer is whole; nothing more will come.
    Finished(ChatResponse),
    /// It was refused or failed; nothing more will come.
    Failed(AgentError),
}

/// Takes the updates of one chat, on the engine's thread; `false` says that nobody listens any more, which ends it.
pub type ChatSink = Box<dyn FnMut(ChatUpdate) -> bool + Send>;

/// An answer in progress.
pub(super) struct Answer {
    parser: StreamParser,
    accumulator: Accumulator,
    sink: ChatSink,
    text: String,
    ids: Vec<u32>,
    /// Whether tokens still count as reasoning.
    reasoning: bool,
    think_end: Option<u32>,
    usage: ChatUsage,
}

impl Answer {
    pub fn new(version: Version, start: Start, tools: &[Tool], think_end: Option<u32>, sink: ChatSink) -> Self {
        Self {
            parser: StreamParser::new(version, start).with_tools(tools),
            accumulator: Accumulator::new(),
            sink,
            text: String::new(),
            ids: Vec::new(),
            reasoning: start == Start::Reasoning,
            think_end,
            usage: ChatUsage::default(),
        }
    }

    /// Passes an update on; `false` if nobody listens.
    pub fn update(&mut self, update: Update) -> bool {
        match update {
            Update::Token(token) => self.token(token),
            Update::Finished { reason, text, usage } => {
                let deltas = self.parser.push(&text);
                let rest = self.parser.finish();
                self.text.push_str(&text);
                self.deltas(deltas);
                self.deltas(rest);
                self.usage.prompt_tokens = usage.prompt_tokens;
                self.usage.cached_tokens = usage.cached_tokens;
                let response = self.response(&reason);
                (self.sink)(ChatUpdate::Finished(response))
            }
            Update::Failed(error) => (self.sink)(ChatUpdate::Failed(error.into())),
        }
    }

    fn token(&mut self, token: Token) -> bool {
        self.ids.push(token.id);
        self.usage.completion_tokens += 1;
        self.usage.reasoning_tokens += usize::from(self.reasoning);
        self.reasoning &= Some(token.id) != self.think_end;
        self.text.push_str(&token.text);
        let deltas = self.parser.push(&token.text);
        (self.sink)(ChatUpdate::Event(ChatEvent::Token(token))) && self.deltas(deltas)
    }

    fn deltas(&mut self, deltas: Vec<Delta>) -> bool {
        deltas.into_iter().all(|delta| {
            self.reasoning &= matches!(delta, Delta::Reasoning(_));
            self.accumulator.push(delta.clone());
            (self.sink)(ChatUpdate::Event(ChatEvent::Delta(delta)))
        })
    }

    fn response(&mut self, reason: &FinishReason) -> ChatResponse {
        let mut message = std::mem::take(&mut self.accumulator).finish();
        message.tool_calls.iter_mut().for_each(|call| call.id = Some(call_id()));
        message.written_ids = Some(std::mem::take(&mut self.ids));
        let finish = match reason {
            FinishReason::MaxTokens | FinishReason::ContextLimit => Finish::Length,
            FinishReason::Cancelled => Finish::Cancelled,
            _ if message.tool_calls.is_empty() => Finish::Stop,
            _ => Finish::ToolCalls,
        };
        ChatResponse { message, text: std::mem::take(&mut self.text), finish, usage: self.usage }
    }
}

/// A new id for a call: `call_` and 24 hexadecimal digits.
pub fn call_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Each state has random keys of the system's.
    let (high, low) = (RandomState::new().hash_one(count), RandomState::new().hash_one(count));
    format!("call_{high:016x}{:08x}", low as u32)
}
