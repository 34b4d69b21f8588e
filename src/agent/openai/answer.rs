//! Chunks of a server to an answer.

use serde_json::Value;

use crate::agent::chat_model::{ChatResponse, ChatUsage, Finish};
use crate::agent::local::call_id;
use crate::chat::{Accumulator, Delta, Json};

/// An answer in progress.
#[derive(Debug)]
pub(super) struct Answer {
    message: Accumulator,
    calls: Vec<Call>,
    finish: Option<Finish>,
    done: bool,
    usage: ChatUsage,
}

/// A call in progress.
#[derive(Debug, Default)]
struct Call {
    /// The server's number of it.
    index: Option<u64>,
    id: String,
    /// Which call of the answer it is, once its name is known: with that it begins.
    place: Option<usize>,
    arguments: String,
    /// How much of the arguments has been told.
    told: usize,
}

impl Answer {
    pub fn new() -> Self {
        Self { message: Accumulator::new(), calls: Vec::new(), finish: None, done: false, usage: ChatUsage::default() }
    }

    /// Takes the data of an event, or a whole answer.
    ///
    /// # Errors
    /// It is none, or says that the server failed.
    pub fn chunk(&mut self, data: &str) -> Result<Vec<Delta>, String> {
        if self.done || data.trim().is_empty() {
            return Ok(Vec::new());
        }
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| format!("the answer is no JSON: {error}"))?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(error_text(error));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = read_usage(usage);
        }
        let mut deltas = Vec::new();
        let choices = chunk.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for choice in choices.iter().filter(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0) {
            if let Some(delta) = choice.get("delta").or(choice.get("message")) {
                self.delta(delta, &mut deltas);
            }
            match choice.get("finish_reason").and_then(Value::as_str) {
                None => {}
                Some("stop" | "tool_calls" | "function_call") => self.finish = Some(Finish::Stop),
                Some("length") => self.finish = Some(Finish::Length),
                Some(other) => return Err(format!("the answer ended with {other:?}")),
            }
        }
        deltas.iter().for_each(|delta| self.message.push(delta.clone()));
        Ok(deltas)
    }

    fn delta(&mut self, delta: &Value, deltas: &mut Vec<Delta>) {
        let reasoning = delta.get("reasoning_content").filter(|value| !value.is_null()).or(delta.get("reasoning"));
        let told = |value: Option<&Value>| value.map(text).filter(|text| !text.is_empty());
        deltas.extend(told(reasoning).map(Delta::Reasoning));
        deltas.extend(told(delta.get("content")).map(Delta::Content));
        for part in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.call(part, deltas);
        }
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
    /// The server did not say that it is the end.
    pub fn finish(mut self, cancelled: bool) -> Result<(Vec<Delta>, ChatResponse), String> {
        let finish = match self.finish {
            _ if cancelled => Finish::Cancelled,
            Some(finish) => finish,
            None if self.done => Finish::Stop,
            None => return Err("the connection ended before the answer did".to_string()),
        };
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
        Ok((deltas, ChatResponse { message, text: String::new(), finish, usage: self.usage }))
    }
}

/// Text, or the text of a list of parts.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect(),
        _ => String::new(),
    }
}

fn read_usage(usage: &Value) -> ChatUsage {
    let count = |path: &[&str]| {
        let value = path.iter().try_fold(usage, |value, key| value.get(key));
        value.and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok())
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

/// What a server says of an error, with its code: some say there alone what it is about.
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
