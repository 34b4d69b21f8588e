//! Events of the engine to the answer of a chat.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::error::Result;
use super::super::request::{ChatEvent, ChatResponse, ChatUsage, Finish};
use crate::chat::{Accumulator, Delta, Ending, Start, StreamParser, Tool, Version};
use crate::generation::{self, Event, FinishReason, StopMatcher, Token};

/// Takes what happens to one chat, on the engine's thread: events, then once the answer or an error, which is the
/// last. Returns `false` if it is of no use any more, which ends the chat.
pub type ChatSink = Box<dyn FnMut(Result<ControlFlow<ChatResponse, ChatEvent>>) -> bool + Send>;

/// An answer in progress.
pub(super) struct Answer {
    parser: StreamParser,
    accumulator: Accumulator,
    sink: ChatSink,
    /// Whether the deltas of a call are passed on before it is complete.
    stream_calls: bool,
    /// Those of the call in progress that are not.
    call: Vec<Delta>,
    /// Complete calls.
    calls: usize,
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
            sink,
            stream_calls: false,
            call: Vec::new(),
            calls: 0,
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

    /// The same, passing on the deltas of calls while they are written, if so wanted.
    pub fn with_stream_calls(self, stream_calls: bool) -> Self {
        Self { stream_calls, ..self }
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
                self.end(&text, is_cut(&reason));
                self.usage.prompt_tokens = usage.prompt_tokens;
                self.usage.cached_tokens = usage.cached_tokens;
                let response = ChatResponse { record, ..self.response(&reason) };
                (self.sink)(Ok(ControlFlow::Break(response)))
            }
            Err(error) => (self.sink)(Err(error.into())),
        }
    }

    /// Takes the last text. Of an answer that was cut off, what may be the beginning of something else (of markup, a stop
    /// string, a character) is no part: an answer that is cut later says all that one says that is cut earlier.
    fn end(&mut self, text: &str, is_cut: bool) {
        // What is held back of a character that is not complete comes as this sign.
        let text = if is_cut { text.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { text };
        self.text.push_str(text);
        let deltas = self.parser.push(text);
        self.deltas(deltas);
        let rest = self.parser.finish_as(if is_cut { Ending::Cut } else { Ending::Stopped });
        self.deltas(rest);
        if is_cut || self.stopped {
            return;
        }
        self.free_content();
        // An answer whose calls could not be read is not empty.
        if let Some(unread) = self.parser.unread().map(str::to_string) {
            self.content(unread);
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
            self.reasoning &= matches!(delta, Delta::Reasoning(_));
            if self.stopped {
                continue;
            }
            let listens = match delta {
                Delta::Content(text) => {
                    let (text, stop) = self.stop.push(&text);
                    self.stopped = stop.is_some();
                    self.content(text)
                }
                delta @ Delta::Reasoning(_) => self.free_content() && self.delta(delta),
                delta => self.free_content() && self.call(delta),
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

    /// Passes on the deltas of a call: once it is complete, unless they are wanted before. A call that is begun anew was
    /// not completed.
    fn call(&mut self, delta: Delta) -> bool {
        if self.stream_calls {
            return self.delta(delta);
        }
        let index = self.calls;
        match delta {
            Delta::ToolCallStart { name, .. } => self.call = vec![Delta::ToolCallStart { index, name }],
            Delta::ToolCallArguments { fragment, .. } => self.call.push(Delta::ToolCallArguments { index, fragment }),
            Delta::ToolCallEnd { .. } => {
                self.calls += 1;
                self.call.push(Delta::ToolCallEnd { index });
                return std::mem::take(&mut self.call).into_iter().all(|delta| self.delta(delta));
            }
            text => return self.delta(text),
        }
        true
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
        let dropped = self.parser.take_dropped();
        let call_error = self.parser.call_problem().map(|problem| problem.to_string());
        let finish = match reason {
            _ if self.stopped && message.tool_calls.is_empty() => Finish::Stop,
            _ if self.stopped => Finish::ToolCalls,
            FinishReason::MaxTokens | FinishReason::ContextLimit => Finish::Length,
            FinishReason::Cancelled => Finish::Cancelled,
            _ if message.tool_calls.is_empty() => Finish::Stop,
            _ => Finish::ToolCalls,
        };
        let text = std::mem::take(&mut self.text);
        ChatResponse { message, text, finish, usage: self.usage, dropped, call_error, record: None }
    }
}

/// Whether the model did not end its answer.
fn is_cut(reason: &FinishReason) -> bool {
    matches!(reason, FinishReason::MaxTokens | FinishReason::ContextLimit | FinishReason::Cancelled)
}

/// A new id for a call: `call_` and 24 hexadecimal digits.
pub fn call_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Each state has random keys of the system's.
    let (high, low) = (RandomState::new().hash_one(count), RandomState::new().hash_one(count));
    format!("call_{high:016x}{:08x}", low as u32)
}
