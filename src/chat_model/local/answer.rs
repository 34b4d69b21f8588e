//! Events of the engine to the answer of a chat.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::error::Result;
use super::super::request::{ChatEvent, ChatResponse, ChatUsage, Finish};
use crate::chat::{Accumulator, Delta, Start, StreamParser, Tool, Version};
use crate::generation::{self, Event, FinishReason, StopMatcher, Token};

/// Takes what happens to one chat, on the engine's thread: events, then once the answer or an error, which is the
/// last. Returns `false` if it is of no use any more, which ends the chat.
pub type ChatSink = Box<dyn FnMut(Result<ControlFlow<ChatResponse, ChatEvent>>) -> bool + Send>;

/// An answer in progress.
pub(super) struct Answer {
    parser: StreamParser,
    accumulator: Accumulator,
    /// Calls although no tool was offered.
    unoffered: Accumulator,
    sink: ChatSink,
    /// Whether tools were offered: calls of others are none.
    may_call: bool,
    /// Of the content: markup and reasoning are not what a caller means to stop at.
    stop: StopMatcher,
    /// The content came to a stop string.
    stopped: bool,
    /// Ids that end an answer and are no part of it.
    turn_ids: Vec<u32>,
    text: String,
    ids: Vec<u32>,
    /// Whether tokens still count as reasoning.
    reasoning: bool,
    think_end: Option<u32>,
    usage: ChatUsage,
}

impl Answer {
    pub fn new(version: Version, start: Start, tools: &[Tool], sink: ChatSink) -> Self {
        Self {
            parser: StreamParser::new(version, start).with_tools(tools),
            accumulator: Accumulator::new(),
            unoffered: Accumulator::new(),
            sink,
            may_call: !tools.is_empty(),
            stop: StopMatcher::new(&[]),
            stopped: false,
            turn_ids: Vec::new(),
            text: String::new(),
            ids: Vec::new(),
            reasoning: start == Start::Reasoning,
            think_end: None,
            usage: ChatUsage::default(),
        }
    }

    /// The same, ending where the content comes to one of these strings.
    pub fn with_stop(self, strings: &[String]) -> Self {
        Self { stop: StopMatcher::new(strings), ..self }
    }

    /// The same, knowing the ids of the reasoning's end and of what begins a turn.
    pub fn with_ids(self, think_end: Option<u32>, turn_ids: &[u32]) -> Self {
        Self { think_end, turn_ids: turn_ids.to_vec(), ..self }
    }

    /// Passes on what an event brings; `false` if the sink wants no more.
    pub fn event(&mut self, event: generation::Result<Event>) -> bool {
        match event {
            Ok(Event::Token(token)) => self.token(token),
            Ok(Event::Finished { reason, text, usage, record }) => {
                let deltas = self.parser.push(&text);
                let rest = self.parser.finish();
                self.text.push_str(&text);
                self.deltas(deltas);
                self.deltas(rest);
                self.free_content();
                self.usage.prompt_tokens = usage.prompt_tokens;
                self.usage.cached_tokens = usage.cached_tokens;
                let response = ChatResponse { record, ..self.response(&reason) };
                (self.sink)(Ok(ControlFlow::Break(response)))
            }
            Err(error) => (self.sink)(Err(error.into())),
        }
    }

    fn token(&mut self, token: Token) -> bool {
        self.ids.push(token.id);
        let reasoning = self.reasoning;
        self.usage.completion_tokens += 1;
        self.usage.reasoning_tokens += usize::from(reasoning);
        self.reasoning &= Some(token.id) != self.think_end;
        self.text.push_str(&token.text);
        let deltas = self.parser.push(&token.text);
        self.tell(ChatEvent::Token { token, reasoning }) && self.deltas(deltas)
    }

    /// Passes deltas on; `false` if the sink wants no more or nothing more is to come.
    fn deltas(&mut self, deltas: Vec<Delta>) -> bool {
        for delta in deltas {
            let is_call = !matches!(delta, Delta::Reasoning(_) | Delta::Content(_));
            self.reasoning &= matches!(delta, Delta::Reasoning(_));
            if is_call && !self.may_call {
                self.unoffered.push(delta);
                continue;
            }
            if self.stopped {
                continue;
            }
            let listens = match delta {
                Delta::Content(text) => {
                    let (text, stop) = self.stop.push(&text);
                    self.stopped = stop.is_some();
                    self.content(text)
                }
                delta => self.free_content() && self.delta(delta),
            };
            if !listens {
                return false;
            }
        }
        !self.stopped
    }

    /// Passes on content that was held back because a stop string might begin with it.
    fn free_content(&mut self) -> bool {
        let text = self.stop.finish();
        self.content(text)
    }

    fn content(&mut self, text: String) -> bool {
        text.is_empty() || self.delta(Delta::Content(text))
    }

    fn delta(&mut self, delta: Delta) -> bool {
        self.accumulator.push(delta.clone());
        self.tell(ChatEvent::Delta(delta))
    }

    fn tell(&mut self, event: ChatEvent) -> bool {
        (self.sink)(Ok(ControlFlow::Continue(event)))
    }

    fn response(&mut self, reason: &FinishReason) -> ChatResponse {
        let mut message = std::mem::take(&mut self.accumulator).finish();
        message.tool_calls.iter_mut().for_each(|call| call.id = Some(call_id()));
        let mut ids = std::mem::take(&mut self.ids);
        ids.pop_if(|id| self.turn_ids.contains(id));
        message.written_ids = Some(ids);
        let mut dropped = self.parser.take_dropped();
        let unoffered = std::mem::take(&mut self.unoffered).finish().tool_calls;
        dropped.extend(unoffered.iter().map(|call| format!("{}({})", call.name, call.arguments)));
        let finish = match reason {
            _ if self.stopped && message.tool_calls.is_empty() => Finish::Stop,
            _ if self.stopped => Finish::ToolCalls,
            FinishReason::MaxTokens | FinishReason::ContextLimit => Finish::Length,
            FinishReason::Cancelled => Finish::Cancelled,
            _ if message.tool_calls.is_empty() => Finish::Stop,
            _ => Finish::ToolCalls,
        };
        ChatResponse { message, text: std::mem::take(&mut self.text), finish, usage: self.usage, dropped, record: None }
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
