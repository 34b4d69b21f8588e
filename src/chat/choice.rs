//! Whether the model may or must call tools.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use super::json::Json;

/// Whether the model may or must call tools. In JSON: `"none"`, `"auto"`, `"required"`, or
/// `{"type": "function", "function": {"name": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// It must not: the tools are not even shown to it.
    None,
    /// It may.
    #[default]
    Auto,
    /// It must call one or more.
    Required,
    /// It must call this one.
    Named(String),
}

impl fmt::Display for ToolChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::Required => f.write_str("required"),
            Self::Named(name) => write!(f, "function {name:?}"),
        }
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None | Self::Auto | Self::Required => serializer.collect_str(self),
            Self::Named(name) => {
                serde_json::json!({"type": "function", "function": {"name": name}}).serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let function = json.get("function").and_then(|function| function.get("name")).and_then(Json::as_str);
        match (json.as_str(), function) {
            (Some("none"), _) => Ok(Self::None),
            (Some("auto"), _) => Ok(Self::Auto),
            (Some("required"), _) => Ok(Self::Required),
            (None, Some(name)) => Ok(Self::Named(name.to_string())),
            _ => Err(D::Error::custom(
                "tool_choice is not \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\"}}",
            )),
        }
    }
}
