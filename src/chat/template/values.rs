//! A conversation as a template sees it: objects in the terms of the OpenAI protocol.

use minijinja::Value;

use super::super::json::Json;
use super::super::message::{Message, Role, ToolCall};
use super::super::python;
use super::TemplateInput;
use super::error::TemplateError;
use super::guard::{self, Find, Guard};

/// The messages and tools of an input.
pub(super) struct Values<'a> {
    pub messages: Value,
    pub tools: Value,
    pub guard: Guard<'a>,
}

impl<'a> Values<'a> {
    pub fn new(input: &TemplateInput<'_>, find: Find<'a>) -> Result<Self, TemplateError> {
        let messages = messages(input)?;
        let tools: Vec<Json> = input
            .tools
            .iter()
            .map(|tool| object([("type", text("function")), ("function", tool.function().clone())]))
            .collect();
        let mut texts = Vec::new();
        messages.iter().chain(&tools).for_each(|value| guard::texts(value, &mut texts));
        let guard = Guard::new(find, texts.into_iter())?;
        let messages = messages.iter().map(|message| message_value(message, &guard)).collect();
        let tools = match tools.is_empty() {
            true => Value::from(()),
            false => tools.iter().map(|tool| value(tool, &guard)).collect(),
        };
        Ok(Self { messages, tools, guard })
    }
}

fn text(text: &str) -> Json {
    Json::String(text.to_string())
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Json {
    Json::Object(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

fn messages(input: &TemplateInput<'_>) -> Result<Vec<Json>, TemplateError> {
    let mut written = Vec::with_capacity(input.messages.len());
    // The calls of the last message that had some: their ids and names; and how many results have come.
    let (mut calls, mut results): (Vec<(String, &str)>, usize) = (Vec::new(), 0);
    let mut all_calls = 0;
    for (at, message) in input.messages.iter().enumerate() {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::Developer => "developer",
        };
        let mut entries = vec![("role".to_string(), text(role)), ("content".to_string(), text(&message.content))];
        let mut entry = |key: &str, value: Json| entries.push((key.to_string(), value));
        if let Some(reasoning) = message.reasoning_content.as_deref().filter(|_| message.role == Role::Assistant) {
            entry("reasoning_content", text(reasoning));
        }
        match message.role {
            Role::Tool => {
                let call = calls.get(results);
                results += 1;
                if let Some((_, name)) = call {
                    entry("name", text(name));
                }
                if let Some(id) = call.map(|(id, _)| id).or(message.tool_call_id.as_ref()) {
                    entry("tool_call_id", text(id));
                }
            }
            Role::Assistant => {
                (calls, results) = (Vec::new(), 0);
                for call in &message.tool_calls {
                    let kimi = || format!("functions.{}:{}", call.name, all_calls);
                    let id = call.id.clone().filter(|_| !input.kimi_ids).unwrap_or_else(kimi);
                    all_calls += 1;
                    calls.push((id, &call.name));
                }
                if !message.tool_calls.is_empty() {
                    entry("tool_calls", written_calls(message, &calls, at)?);
                }
            }
            _ => {}
        }
        written.push(Json::Object(entries));
    }
    Ok(written)
}

fn written_calls(message: &Message, calls: &[(String, &str)], at: usize) -> Result<Json, TemplateError> {
    let written = message.tool_calls.iter().zip(calls).enumerate().map(|(index, (call, (id, name)))| {
        let arguments = arguments(call).ok_or(TemplateError::Arguments { message: at, call: index })?;
        let function = object([("name", text(name)), ("arguments", arguments)]);
        Ok(object([("id", text(id)), ("type", text("function")), ("function", function)]))
    });
    Ok(Json::Array(written.collect::<Result<_, _>>()?))
}

fn arguments(call: &ToolCall) -> Option<Json> {
    if call.arguments.trim().is_empty() {
        return Some(Json::Object(Vec::new()));
    }
    python::loads(&call.arguments).ok().filter(|arguments| matches!(arguments, Json::Object(_)))
}

/// A message; templates may look for think marks in an assistant's content.
fn message_value(message: &Json, guard: &Guard<'_>) -> Value {
    let Json::Object(entries) = message else { return Value::UNDEFINED };
    let is_assistant = message.get("role").and_then(Json::as_str) == Some("assistant");
    Value::from_pairs(entries.iter().map(|(key, entry)| match entry {
        Json::String(text) if is_assistant && key == "content" => (key.as_str(), Value::from(guard.put(text, false))),
        entry => (key.as_str(), value(entry, guard)),
    }))
}

/// A value whose texts are marked.
fn value(json: &Json, guard: &Guard<'_>) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(text) => number(text),
        Json::String(text) => Value::from(guard.put(text, true)),
        Json::Array(values) => values.iter().map(|json| value(json, guard)).collect(),
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, json)| (guard.put(key, true), value(json, guard))))
        }
    }
}

/// A number; integers beyond 128 bits become the nearest float.
fn number(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<i128>()) {
        (Ok(integer), _) => Value::from(integer),
        (_, Ok(integer)) => Value::from(integer),
        _ => Value::from(text.parse::<f64>().unwrap_or(f64::NAN)),
    }
}
