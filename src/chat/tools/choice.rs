//! Whether tools may or must be called.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ToolError;
use crate::chat::json::Json;
use crate::chat::message::{Tool, ToolCall};

/// Whether tools may or must be called, as OpenAI's `tool_choice`: `"none"`, `"auto"`, `"required"`, or
/// `{"type": "function", "function": {"name": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// No tool may be called; the model is not even told of them.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// Some tool must be called.
    Required,
    /// This tool must be called.
    Named(String),
}

impl ToolChoice {
    /// The tools that the prompt tells the model about: all, or none.
    pub fn shown<'a>(&self, tools: &'a [Tool]) -> &'a [Tool] {
        match self {
            Self::None => &[],
            _ => tools,
        }
    }

    /// Checks that the choice can be met with these tools.
    ///
    /// # Errors
    /// [`ToolError::Unknown`]: a tool is named that is not there. [`ToolError::NoTools`]: a call is required, but there
    /// are none.
    pub fn check_tools(&self, tools: &[Tool]) -> Result<(), ToolError> {
        match self {
            Self::Named(name) if !tools.iter().any(|tool| tool.name() == name) => {
                let known = tools.iter().map(|tool| tool.name().to_string()).collect();
                Err(ToolError::Unknown { name: name.clone(), known })
            }
            Self::Required if tools.is_empty() => Err(ToolError::NoTools),
            _ => Ok(()),
        }
    }

    /// Checks that an answer's calls meet the choice.
    ///
    /// # Errors
    /// [`ToolError::Choice`]: calls where none may be, none where one must be, calls of other tools than the named one.
    pub fn check_calls(&self, calls: &[ToolCall]) -> Result<(), ToolError> {
        let expected = match self {
            Self::None if !calls.is_empty() => "none".to_string(),
            Self::Required if calls.is_empty() => "at least one tool".to_string(),
            Self::Named(name) if calls.is_empty() || calls.iter().any(|call| call.name != *name) => name.clone(),
            _ => return Ok(()),
        };
        Err(ToolError::Choice { expected, called: calls.iter().map(|call| call.name.clone()).collect() })
    }
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: WireName<'a>,
}

#[derive(Serialize)]
struct WireName<'a> {
    name: &'a str,
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Auto => serializer.serialize_str("auto"),
            Self::Required => serializer.serialize_str("required"),
            Self::Named(name) => Wire { kind: "function", function: WireName { name } }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Json::deserialize(deserializer)?;
        let named = || value.get("function").and_then(|function| function.get("name")).and_then(Json::as_str);
        match (value.as_str(), value.get("type").and_then(Json::as_str)) {
            (Some("none"), _) => Ok(Self::None),
            (Some("auto"), _) => Ok(Self::Auto),
            (Some("required"), _) => Ok(Self::Required),
            (None, Some("function")) if named().is_some() => Ok(Self::Named(named().unwrap_or_default().to_string())),
            _ => Err(de::Error::custom(format!(
                "tool_choice is {value}, expected \"none\", \"auto\", \"required\" or \
                 {{\"type\": \"function\", \"function\": {{\"name\": …}}}}"
            ))),
        }
    }
}
