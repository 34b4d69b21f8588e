//! Messages, calls and tools as clients write them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::Serialize;

use super::json::Json;
use super::message::{Message, Role, Tool, ToolCall};

#[derive(serde::Deserialize)]
pub(super) struct WireMessage {
    role: Json,
    content: Option<Json>,
    reasoning_content: Option<Json>,
    reasoning: Option<Json>,
    #[serde(default)]
    tool_calls: List<ToolCall>,
    tool_call_id: Option<Json>,
    #[serde(default)]
    tools: List<Tool>,
    response_format: Option<Json>,
    prefix: Option<Json>,
    written_ids: Option<Json>,
}

impl TryFrom<WireMessage> for Message {
    type Error = String;

    fn try_from(wire: WireMessage) -> Result<Self, String> {
        let role = role(&wire.role)?;
        let (content, part_reasoning) = match (role, wire.content) {
            (_, None) => (String::new(), String::new()),
            (Role::System | Role::Assistant, Some(value)) if !value.is_truthy() => (String::new(), String::new()),
            (_, Some(value)) => texts("content", value)?,
        };
        // The same reasoning under several names counts once, under the first that has one.
        let mut reasoning_content = reasoning("reasoning_content", role, wire.reasoning_content)?;
        if reasoning_content.as_deref().unwrap_or_default().is_empty() {
            let other = reasoning("reasoning", role, wire.reasoning)?.filter(|text| !text.is_empty());
            let other = other.or(Some(part_reasoning).filter(|text| role == Role::Assistant && !text.is_empty()));
            reasoning_content = other.or(reasoning_content);
        }
        Ok(Self {
            role,
            content,
            reasoning_content,
            tool_calls: wire.tool_calls.0,
            tool_call_id: wire.tool_call_id.and_then(id),
            tools: wire.tools.0,
            response_format: wire.response_format,
            prefix: wire.prefix.is_some_and(|value| value.is_truthy()),
            written_ids: wire.written_ids.and_then(token_ids),
        })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct WireCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Json>,
    #[serde(rename = "type", default)]
    kind: Function,
    function: WireFunction,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct WireFunction {
    name: String,
    #[serde(default = "no_arguments")]
    arguments: Json,
}

fn no_arguments() -> Json {
    Json::Null
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct WireTool {
    #[serde(rename = "type", default)]
    kind: Function,
    function: Json,
}

/// The type of a tool or call: written as `function`, read from anything.
#[derive(Default)]
struct Function;

impl Serialize for Function {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("function")
    }
}

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl From<WireCall> for ToolCall {
    fn from(wire: WireCall) -> Self {
        // Arguments are a text, or an object that is written out. Clients write a call without any in several ways.
        let arguments = match wire.function.arguments {
            Json::Null => "{}".to_string(),
            Json::String(text) => match text.strip_prefix('\u{feff}').unwrap_or(&text) {
                blank if blank.trim().is_empty() => "{}".to_string(),
                text => text.to_string(),
            },
            other => other.to_string(),
        };
        Self { id: wire.id.and_then(id), name: wire.function.name, arguments }
    }
}

impl From<ToolCall> for WireCall {
    fn from(call: ToolCall) -> Self {
        let function = WireFunction { name: call.name, arguments: Json::String(call.arguments) };
        Self { id: call.id.map(Json::String), kind: Function, function }
    }
}

impl TryFrom<WireTool> for Tool {
    type Error = String;

    fn try_from(wire: WireTool) -> Result<Self, String> {
        Self::from_function(wire.function)
    }
}

impl From<Tool> for WireTool {
    fn from(tool: Tool) -> Self {
        Self { kind: Function, function: tool.function().clone() }
    }
}

/// Who speaks.
fn role(value: &Json) -> Result<Role, String> {
    let name = value.as_str().unwrap_or_default();
    let named = Role::deserialize(de::value::StrDeserializer::<de::value::Error>::new(name));
    named.map_err(|_| format!("role is {value}, expected system, user, assistant, tool or developer"))
}

/// An id: a string, or a number that some clients write. No format renders it.
fn id(value: Json) -> Option<String> {
    match value {
        Json::String(text) | Json::Number(text) => Some(text),
        _ => None,
    }
}

fn token_ids(value: Json) -> Option<Vec<u32>> {
    let Json::Array(values) = value else { return None };
    let token_id = |value: &Json| match value {
        Json::Number(text) => text.parse().ok(),
        _ => None,
    };
    values.iter().map(token_id).collect()
}

/// The reasoning in a field of this name: a text, as content is. What a message of another role has there is not
/// rendered; if it is no string, it is ignored.
fn reasoning(field: &str, role: Role, value: Option<Json>) -> Result<Option<String>, String> {
    match (role, value) {
        (_, Some(Json::String(text))) => Ok(Some(text)),
        (Role::Assistant, Some(value)) if value.is_truthy() => {
            let (mut text, inner) = texts(field, value)?;
            text.push_str(&inner);
            Ok(Some(text))
        }
        _ => Ok(None),
    }
}

/// The text and the reasoning of a string, `null`, or a list of parts.
fn texts(field: &str, value: Json) -> Result<(String, String), String> {
    let (mut text, mut reasoning) = (String::new(), String::new());
    match value {
        Json::String(all) => text = all,
        Json::Null => {}
        Json::Array(parts) => {
            for part in &parts {
                match part {
                    Json::String(more) => text.push_str(more),
                    part if is_reasoning(part) => part_reasoning(part, &mut reasoning),
                    part => match part.get("text").and_then(Json::as_str) {
                        Some(more) => text.push_str(more),
                        None => return Err(format!("{field} part {part} is not text")),
                    },
                }
            }
        }
        other => return Err(format!("{field} is {other}, expected a string or a list of text parts")),
    }
    Ok((text, reasoning))
}

/// Whether a content part is of a type for reasoning, in the words of one protocol or another.
fn is_reasoning(part: &Json) -> bool {
    const TYPES: [&str; 4] = ["thinking", "reasoning", "reasoning_content", "redacted_thinking"];
    part.get("type").and_then(Json::as_str).is_some_and(|kind| TYPES.contains(&kind))
}

/// The text of a reasoning part: under whichever key the protocol has for it, a string or a list of parts. One without
/// a text (it may be encrypted) adds nothing.
fn part_reasoning(part: &Json, out: &mut String) {
    const KEYS: [&str; 6] = ["thinking", "reasoning", "reasoning_content", "text", "content", "summary"];
    match part {
        Json::String(text) => out.push_str(text),
        Json::Array(parts) => parts.iter().for_each(|part| part_reasoning(part, out)),
        part => {
            let found = KEYS.into_iter().filter_map(|key| part.get(key)).find(|value| value.is_truthy());
            if let Some(value) = found {
                part_reasoning(value, out);
            }
        }
    }
}

/// A list; what Python takes for false is an empty one.
struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<T> ListVisitor<T> {
    fn unless<E: de::Error>(self, truthy: bool, found: Unexpected<'_>) -> Result<List<T>, E>
    where
        Self: de::Expected,
    {
        if truthy { Err(E::invalid_type(found, &self)) } else { Ok(List::default()) }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(List::default())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.unless(value, Unexpected::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.unless(value != 0, Unexpected::Signed(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.unless(value != 0, Unexpected::Unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.unless(value != 0.0, Unexpected::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.unless(!value.is_empty(), Unexpected::Str(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let entry: Option<(IgnoredAny, IgnoredAny)> = map.next_entry()?;
        self.unless(entry.is_some(), Unexpected::Map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(List(values))
    }
}
