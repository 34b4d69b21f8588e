//! Chunks of a server to an answer.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::record::Told;
use crate::chat::{Accumulator, Delta, Json};
use crate::chat_model::local::call_id;
use crate::chat_model::request::{ChatResponse, ChatUsage, Finish};
use crate::show::shown;

/// How much of a value that should be another is quoted, in characters.
const QUOTED: usize = 60;
/// The longest that a server's words about a call may be, in characters.
const LONGEST_ERROR: usize = 400;

/// An answer in progress.
#[derive(Debug)]
pub(super) struct Answer {
    message: Accumulator,
    calls: Vec<Call>,
    finish: Option<Finish>,
    /// The server says that calls are to be made.
    calls_tools: bool,
    /// Whether there was a choice at all.
    begun: bool,
    done: bool,
    usage: ChatUsage,
    /// Why the server could not read a call.
    call_error: Option<String>,
    /// The tokens, if the answer is whole and tells them.
    pub told: Told,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The server says that it failed.
    Failed(String),
    /// What it says is no answer.
    NotAnAnswer(String),
    /// The connection ended first.
    Broken,
}

impl From<String> for Unanswered {
    fn from(problem: String) -> Self {
        Self::NotAnAnswer(problem)
    }
}

type Result<T> = std::result::Result<T, Unanswered>;

/// A call in progress.
#[derive(Debug, Default)]
struct Call {
    /// The server's number of it.
    index: Option<u64>,
    id: String,
    /// Which call of the answer it is, once its name is known: with that it begins.
    place: Option<usize>,
    arguments: String,
    /// How much of the arguments has been passed on.
    told: usize,
}

impl Answer {
    pub fn new() -> Self {
        Self {
            message: Accumulator::new(),
            calls: Vec::new(),
            finish: None,
            calls_tools: false,
            begun: false,
            done: false,
            usage: ChatUsage::default(),
            call_error: None,
            told: Told::default(),
        }
    }

    /// Takes the data of an event.
    ///
    /// # Errors
    /// It does not belong to an answer, or says that the server failed.
    pub fn event(&mut self, data: &str) -> Result<Vec<Delta>> {
        if self.done || data.trim().is_empty() {
            return Ok(Vec::new());
        }
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        self.read(data, "delta")
    }

    /// Takes the data of the last event, where the end of the event is missing. Data that breaks off was never said.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub fn last_event(&mut self, data: &str) -> Result<Vec<Delta>> {
        match serde_json::from_str::<IgnoredAny>(data) {
            Err(error) if error.is_eof() => Ok(Vec::new()),
            _ => self.event(data),
        }
    }

    /// Takes a whole answer.
    ///
    /// # Errors
    /// It is none, or says that the server failed.
    pub fn whole(&mut self, data: &str) -> Result<Vec<Delta>> {
        self.done = true;
        self.read(data, "message")
    }

    /// Takes an object of the protocol, whose choices have what was said in `part`.
    fn read(&mut self, data: &str, part: &str) -> Result<Vec<Delta>> {
        let chunk: Value = serde_json::from_str(data).map_err(|error| format!("it is no JSON: {error}"))?;
        if !chunk.is_object() {
            return Err(unexpected("it", &chunk, "an object"));
        }
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(Unanswered::Failed(error_text(error)));
        }
        let usage = chunk.get("usage").filter(|usage| usage.is_object());
        if let Some(usage) = usage {
            self.usage = read_usage(usage);
        }
        let choices = match chunk.get("choices") {
            Some(Value::Array(choices)) => choices.as_slice(),
            // The last chunk of some servers.
            None | Some(Value::Null) if usage.is_some() && part == "delta" => &[],
            None => return Err(unexpected("it", &chunk, "an object with `choices`")),
            Some(other) => return Err(unexpected("choices", other, "a list")),
        };
        let mut deltas = Vec::new();
        for choice in choices.iter().filter(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0) {
            self.choice(choice, part, &mut deltas)?;
            if part == "message" {
                self.told.read(&chunk, choice)?;
            }
        }
        deltas.iter().for_each(|delta| self.message.push(delta.clone()));
        Ok(deltas)
    }

    fn choice(&mut self, choice: &Value, part: &str, deltas: &mut Vec<Delta>) -> Result<()> {
        if !choice.is_object() {
            return Err(unexpected("choices[0]", choice, "an object"));
        }
        match choice.get(part) {
            Some(said @ Value::Object(_)) => self.delta(said, part, deltas)?,
            None | Some(Value::Null) if part == "delta" => {}
            None => return Err(unexpected("choices[0]", choice, "an object with `message`")),
            Some(other) => return Err(unexpected(&format!("choices[0].{part}"), other, "an object")),
        }
        self.begun = true;
        if let Some(error) = choice.get("tool_call_error").and_then(Value::as_str) {
            self.call_error = Some(shown(error, LONGEST_ERROR));
        }
        match choice.get("finish_reason") {
            None | Some(Value::Null) => {}
            Some(Value::String(reason)) => match reason.as_str() {
                "stop" => self.finish = Some(Finish::Stop),
                "tool_calls" | "function_call" => (self.finish, self.calls_tools) = (Some(Finish::Stop), true),
                "length" => self.finish = Some(Finish::Length),
                other => return Err(Unanswered::Failed(format!("the answer ended with {other:?}"))),
            },
            Some(other) => return Err(unexpected("choices[0].finish_reason", other, "a string")),
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, part: &str, deltas: &mut Vec<Delta>) -> Result<()> {
        let told = |field: &str| match delta.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match text(value) {
                Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
                None => Err(unexpected(&format!("choices[0].{part}.{field}"), value, "a string")),
            },
        };
        let reasoning = told("reasoning_content")?.map_or_else(|| told("reasoning"), |text| Ok(Some(text)))?;
        deltas.extend(reasoning.map(Delta::Reasoning));
        deltas.extend(told("content")?.map(Delta::Content));
        let calls = match delta.get("tool_calls") {
            None | Some(Value::Null) => &[],
            Some(Value::Array(calls)) => calls.as_slice(),
            Some(other) => return Err(unexpected(&format!("choices[0].{part}.tool_calls"), other, "a list")),
        };
        for (i, call) in calls.iter().enumerate() {
            let field = || format!("choices[0].{part}.tool_calls[{i}]");
            if !call.is_object() {
                return Err(unexpected(&field(), call, "an object"));
            }
            let name = call.get("function").and_then(|function| function.get("name"));
            if let Some(name) = name.filter(|name| !name.is_null() && !name.is_string()) {
                return Err(unexpected(&format!("{}.function.name", field()), name, "a string"));
            }
            self.call(call, deltas);
        }
        Ok(())
    }

    /// A part of a call. Servers number the calls; those that don't, give them ids.
    fn call(&mut self, part: &Value, deltas: &mut Vec<Delta>) {
        let index = part.get("index").and_then(Value::as_u64);
        let id = part.get("id").and_then(Value::as_str).unwrap_or_default();
        let known = match index {
            Some(_) => self.calls.iter().position(|call| call.index == index),
            None if id.is_empty() => self.calls.len().checked_sub(1),
            None => self.calls.iter().position(|call| call.id == id),
        };
        let at = known.unwrap_or_else(|| {
            // An id that two calls have would name neither.
            let is_new = !id.is_empty() && self.calls.iter().all(|call| call.id != id);
            let id = if is_new { id.to_string() } else { String::new() };
            self.calls.push(Call { index, id, ..Call::default() });
            self.calls.len() - 1
        });
        let taken = self.calls.iter().any(|call| call.id == id);
        let begun = self.calls.iter().filter(|call| call.place.is_some()).count();
        let call = &mut self.calls[at];
        if call.id.is_empty() && !taken {
            call.id = id.to_string();
        }
        let function = part.get("function").unwrap_or(&Value::Null);
        match function.get("arguments") {
            None | Some(Value::Null) => {}
            Some(Value::String(arguments)) => call.arguments.push_str(arguments),
            Some(other) => call.arguments.push_str(&other.to_string()),
        }
        let name = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        if let (Some(name), None) = (name, call.place) {
            call.place = Some(begun);
            deltas.push(Delta::ToolCallStart { index: begun, name: name.to_string() });
        }
        if let Some(index) = call.place.filter(|_| call.told < call.arguments.len()) {
            let fragment = call.arguments[call.told..].to_string();
            call.told = call.arguments.len();
            deltas.push(Delta::ToolCallArguments { index, fragment });
        }
    }

    /// The end of the answer: the last deltas, and the whole.
    ///
    /// # Errors
    /// The server did not say that it is the end, or a call lacks its name.
    pub fn finish(mut self, cancelled: bool) -> Result<(Vec<Delta>, ChatResponse)> {
        let finish = match self.finish {
            _ if cancelled => Finish::Cancelled,
            Some(finish) => finish,
            None if self.begun && self.done => return Err("it ends without a `finish_reason`".to_string().into()),
            None if self.done => return Err("it has no choice of index 0".to_string().into()),
            None => return Err(Unanswered::Broken),
        };
        if finish == Finish::Stop {
            if let Some(at) = self.calls.iter().position(|call| call.place.is_none()) {
                return Err(format!("tool_calls[{at}] has no name").into());
            }
            if self.calls_tools && self.calls.is_empty() {
                return Err("its `finish_reason` is \"tool_calls\", but it has no calls".to_string().into());
            }
        }
        let (mut deltas, mut ids) = (Vec::new(), Vec::new());
        self.calls.sort_by_key(|call| call.place);
        for (call, index) in self.calls.iter().filter_map(|call| call.place.map(|place| (call, place))) {
            if call.arguments.trim().is_empty() && finish == Finish::Stop {
                // Of a tool without parameters.
                deltas.push(Delta::ToolCallArguments { index, fragment: "{}".to_string() });
            } else if finish != Finish::Stop && !matches!(Json::parse(&call.arguments), Ok(Json::Object(_))) {
                continue;
            }
            deltas.push(Delta::ToolCallEnd { index });
            ids.push(call.id.clone());
        }
        self.message.extend(deltas.iter().cloned());
        let mut message = self.message.finish();
        for (call, id) in message.tool_calls.iter_mut().zip(ids) {
            call.id = Some(if id.is_empty() { call_id() } else { id });
        }
        let calls = finish == Finish::Stop && !message.tool_calls.is_empty();
        let finish = if calls { Finish::ToolCalls } else { finish };
        let (text, dropped, call_error) = (String::new(), Vec::new(), self.call_error);
        Ok((deltas, ChatResponse { message, text, finish, usage: self.usage, dropped, call_error, record: None }))
    }
}

/// A value that should be another.
fn unexpected(field: &str, value: &Value, expected: &str) -> Unanswered {
    format!("{field} is {}, expected {expected}", shown(&value.to_string(), QUOTED)).into()
}

/// Text, or the text of a list of parts; `None` if it is something else.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) if parts.iter().all(Value::is_object) => {
            Some(parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect())
        }
        _ => None,
    }
}

fn read_usage(usage: &Value) -> ChatUsage {
    let count = |path: &[&str]| {
        let value = path.iter().try_fold(usage, |value, key| value.get(key));
        let count = value.and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        count.filter(|count| *count <= ChatUsage::MOST)
    };
    ChatUsage {
        prompt_tokens: count(&["prompt_tokens"]).unwrap_or(0),
        cached_tokens: count(&["prompt_tokens_details", "cached_tokens"])
            .or(count(&["prompt_cache_hit_tokens"]))
            .unwrap_or(0),
        completion_tokens: count(&["completion_tokens"]).unwrap_or(0),
        reasoning_tokens: count(&["completion_tokens_details", "reasoning_tokens"]).unwrap_or(0),
    }
}

/// The text of a server's error, with its code: some servers name the reason only there.
pub(super) fn error_text(error: &Value) -> String {
    let message = error.get("message").or(error.get("detail")).or(error.get("error")).unwrap_or(error);
    let text = message_text(error, message);
    match error.get("code").and_then(Value::as_str).filter(|code| !code.is_empty() && !text.contains(code)) {
        Some(code) => format!("{text} ({code})"),
        None => text,
    }
}

fn message_text(error: &Value, message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        Value::Object(_) if !std::ptr::eq(message, error) => error_text(message),
        other => other.to_string(),
    }
}
