//! What a conversation is made of, in the terms of the OpenAI protocol.

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::wire::{WireCall, WireMessage, WireTool};

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
/// Read from the protocol's JSON, it is taken as the published encoder takes it, where that makes sense:
///
/// - `content` may be a string, `null` (the same as empty) or a list of text parts (joined without a separator); of an
///   assistant, parts of type `thinking` or `reasoning` are reasoning;
/// - what Python takes for false (`null`, `false`, `0`, `""`, `{}`, `[]`) is no `tools`, no `tool_calls`, no
///   `response_format`, no `reasoning_content`, and on system and assistant messages no `content`;
/// - the `type` of tools and calls is ignored;
/// - `reasoning_content` is read as `content` is; on a message that is not an assistant's, which no format renders,
///   what is no string is ignored. Where it is absent or empty, `reasoning` counts, then the reasoning among the parts
///   of `content`;
/// - fields that no format renders are ignored, and so are `written_ids` that are no list of token ids, as other
///   software may use the name for something else.
///
/// A number for a text, which the published encoder would print as Python does, is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireMessage")]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What the model thought before it spoke; assistants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The calls the model made; assistants only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this is the result of; tools only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tools the model may call; rendered on system and developer messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// The form the answer must have; rendered on system and developer messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Json>,
    /// Whether this answer was begun rather than finished. V3.1 then opens the reasoning in front of it, if the model
    /// is to think; no other format reads it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prefix: bool,
    /// The token ids that the model wrote this message with, from the prompt's think mark on: if they are known,
    /// the message is never tokenized again.
    #[serde(skip_serializing_if = "Option::is_none")]
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
            prefix: false,
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
///
/// Read from JSON, `arguments` may also be an object, which is written out; absent, `null`, empty and blank ones are
/// `{}`. A `type` is not kept: every call is a function's, also where the template of V3 and R1 would write another
/// type.
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

impl ToolCall {
    /// The arguments, `{}` if they are blank.
    pub(super) fn arguments_or_empty(&self) -> &str {
        if self.arguments.trim().is_empty() { "{}" } else { &self.arguments }
    }
}

/// A tool as the model sees it. In JSON: `{"type": "function", "function": {"name", "description", "parameters", …}}`;
/// whatever the `type`, what counts is the `function`.
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
