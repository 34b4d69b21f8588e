//! Tools: which may be called, and whether a call is one.

mod choice;
#[cfg(feature = "schema")]
mod schema;

pub use choice::ToolChoice;

use super::json::Json;
use super::message::{Tool, ToolCall};

/// Tools ready to have their calls checked.
///
/// A call must name one of them, and its arguments must be a JSON object. With the feature `schema` the object must also
/// follow the tool's JSON Schema, every keyword of it.
#[derive(Debug, Clone)]
pub struct ToolSet {
    tools: Vec<Tool>,
    #[cfg(feature = "schema")]
    schemas: Vec<schema::Checker>,
}

/// Why a call or a choice cannot be carried out, worded for whoever made it: a model reads what is wrong with its call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// There is no such tool.
    #[error("there is no tool {name:?}; the tools are {}", list(known))]
    Unknown {
        /// The name in the call.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The arguments are not the text of a JSON object.
    #[error("the arguments of {name} are {problem}, expected a JSON object")]
    NotAnObject {
        /// The tool.
        name: String,
        /// What they are.
        problem: String,
    },
    /// The arguments do not follow the tool's schema.
    #[error("the arguments of {name} do not follow its schema: {}", problems.join("; "))]
    Arguments {
        /// The tool.
        name: String,
        /// What is wrong, one place each.
        problems: Vec<String>,
    },
    /// A tool's schema is none, or two tools have one name.
    #[error("tool {name:?}: {problem}")]
    Definition {
        /// The tool.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A call is required, but there are no tools.
    #[error("a tool call is required, but there are no tools")]
    NoTools,
    /// The answer does not make the calls it was to make.
    #[error("the answer calls {}, expected {expected}", list(called))]
    Choice {
        /// What the choice demands.
        expected: String,
        /// The tools it calls.
        called: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

impl ToolSet {
    /// The tools, if their definitions hold.
    ///
    /// # Errors
    /// [`ToolError::Definition`]: a tool without a name, two of one name, parameters that are no JSON Schema (with the
    /// feature `schema`).
    pub fn new(tools: impl Into<Vec<Tool>>) -> Result<Self, ToolError> {
        let tools = tools.into();
        for (i, tool) in tools.iter().enumerate() {
            let problem = match tool.name() {
                "" => "has no name",
                name if tools[..i].iter().any(|other| other.name() == name) => "is defined twice",
                _ => continue,
            };
            return Err(ToolError::Definition { name: tool.name().to_string(), problem: problem.to_string() });
        }
        Ok(Self {
            #[cfg(feature = "schema")]
            schemas: tools.iter().map(schema::Checker::new).collect::<Result<_, _>>()?,
            tools,
        })
    }

    /// The tools.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The tool of a name.
    pub fn get(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name() == name)
    }

    /// Checks a call and returns its arguments, an object.
    ///
    /// # Errors
    /// [`ToolError`]; its text tells the model what to do differently.
    pub fn check(&self, call: &ToolCall) -> Result<Json, ToolError> {
        let name = &call.name;
        let Some(at) = self.tools.iter().position(|tool| tool.name() == name) else {
            let known = self.tools.iter().map(|tool| tool.name().to_string()).collect();
            return Err(ToolError::Unknown { name: name.clone(), known });
        };
        let problem = match Json::parse(&call.arguments) {
            Ok(arguments @ Json::Object(_)) => return self.check_schema(at, arguments),
            Ok(other) => format!("the JSON {}", kind(&other)),
            Err(error) => format!("no JSON ({error})"),
        };
        Err(ToolError::NotAnObject { name: name.clone(), problem })
    }

    #[cfg(feature = "schema")]
    fn check_schema(&self, at: usize, arguments: Json) -> Result<Json, ToolError> {
        let problems = self.schemas[at].problems(&arguments);
        if problems.is_empty() {
            return Ok(arguments);
        }
        Err(ToolError::Arguments { name: self.tools[at].name().to_string(), problems })
    }

    #[cfg(not(feature = "schema"))]
    fn check_schema(&self, _at: usize, arguments: Json) -> Result<Json, ToolError> {
        Ok(arguments)
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}
