//! What a conversation is made of, in the terms of the OpenAI protocol.

use serde::{Deserialize, Deserializer, Serialize};

use super::json::Json;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; may carry `tools` and `response_format`.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// DeepSeek's search agents: instructions, tools and the question in one message.
    Developer,
}

/// One message.
///
/// Read from the protocol's JSON, `content` may be a string, `null` (the same as empty) or a list of text parts
/// (joined without a separator). Fields that no format renders are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(default, deserialize_with = "content")]
    pub content: String,
    /// What the model thought before it spoke; assistants only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The calls the model made; assistants only.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this is the result of; tools only.
    #[serde(default, deserialize_with = "id", skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tools the model may call; rendered on system and developer messages.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// The form the answer must have; rendered on system and developer messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Json>,
    /// The token ids that the model wrote this message with, from the prompt's think mark on: if they are known,
    /// the message is never tokenized again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_ids: Option<Vec<u32>>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            tools: Vec::new(),
            response_format: None,
            written_ids: None,
        }
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// The result of the call `tool_call_id`.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::new(Role::Tool, content) }
    }

    /// The same message with tools.
    pub fn with_tools(mut self, tools: impl Into<Vec<Tool>>) -> Self {
        self.tools = tools.into();
        self
    }
}

/// A call of a tool. In JSON: `{"id"?, "type": "function", "function": {"name", "arguments"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireCall", into = "WireCall")]
pub struct ToolCall {
    /// Names the call within the conversation. The text formats do not carry it.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments: the text of a JSON object.
    pub arguments: String,
}

/// A tool as the model sees it. In JSON: `{"type": "function", "function": {"name", "description", "parameters", …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireTool", into = "WireTool")]
pub struct Tool {
    function: Json,
}

impl Tool {
    /// A tool with a JSON Schema of its parameters.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Json) -> Self {
        let text = |key: &str, value: String| (key.to_string(), Json::String(value));
        Self {
            function: Json::Object(vec![
                text("name", name.into()),
                text("description", description.into()),
                ("parameters".to_string(), parameters),
            ]),
        }
    }

    /// A tool of a `function` object: `{"name", "description", "parameters", …}`.
    ///
    /// # Errors
    /// The value is no object.
    pub fn from_function(function: Json) -> Result<Self, String> {
        match function {
            Json::Object(_) => Ok(Self { function }),
            other => Err(format!("a tool's `function` is {other}, expected an object")),
        }
    }

    /// The `function` object as it was given: rendered with all its keys, in their order.
    pub fn function(&self) -> &Json {
        &self.function
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.function.get("name").and_then(Json::as_str).unwrap_or_default()
    }

    /// The description, empty if there is none.
    pub fn description(&self) -> &str {
        self.function.get("description").and_then(Json::as_str).unwrap_or_default()
    }

    /// The JSON Schema of the parameters, if there is one.
    pub fn parameters(&self) -> Option<&Json> {
        self.function.get("parameters")
    }
}

#[derive(Serialize, Deserialize)]
struct WireCall {
    #[serde(default, deserialize_with = "id", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: WireFunction,
}

#[derive(Serialize, Deserialize)]
struct WireFunction {
    name: String,
    #[serde(deserialize_with = "arguments")]
    arguments: String,
}

#[derive(Serialize, Deserialize)]
struct WireTool {
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: Json,
}

fn function() -> String {
    "function".to_string()
}

impl From<WireCall> for ToolCall {
    fn from(wire: WireCall) -> Self {
        Self { id: wire.id, name: wire.function.name, arguments: wire.function.arguments }
    }
}

impl From<ToolCall> for WireCall {
    fn from(call: ToolCall) -> Self {
        Self { id: call.id, kind: function(), function: WireFunction { name: call.name, arguments: call.arguments } }
    }
}

impl TryFrom<WireTool> for Tool {
    type Error = String;

    fn try_from(wire: WireTool) -> Result<Self, String> {
        if wire.kind != "function" {
            return Err(format!("a tool of type {:?}, expected \"function\"", wire.kind));
        }
        Self::from_function(wire.function)
    }
}

impl From<Tool> for WireTool {
    fn from(tool: Tool) -> Self {
        Self { kind: function(), function: tool.function }
    }
}

/// A field that may be `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An id: a string, or a number that some clients write. No format renders it.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Json::deserialize(deserializer)? {
        Json::String(text) | Json::Number(text) => Some(text),
        _ => None,
    })
}

/// Arguments: a string, or an object that is written out.
fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Json::deserialize(deserializer)? {
        Json::String(text) => text,
        other => other.to_string(),
    })
}

/// Content: a string, `null`, or text parts.
fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    use serde::de::Error;
    let part = |part: &Json| match part {
        Json::String(text) => Ok(text.clone()),
        part => match part.get("text").and_then(Json::as_str) {
            Some(text) => Ok(text.to_string()),
            None => Err(D::Error::custom(format!("content part {part} is not text"))),
        },
    };
    match Json::deserialize(deserializer)? {
        Json::String(text) => Ok(text),
        Json::Null => Ok(String::new()),
        Json::Array(parts) => parts.iter().map(part).collect(),
        other => Err(D::Error::custom(format!("content is {other}, expected a string or a list of text parts"))),
    }
}
