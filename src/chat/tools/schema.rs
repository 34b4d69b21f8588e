//! JSON Schemas: of Rust types, and of arguments.

use std::sync::Arc;

use jsonschema::Validator;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use super::ToolError;
use crate::chat::json::Json;
use crate::chat::message::Tool;

/// The most problems that are told at once.
const MOST: usize = 8;

impl Tool {
    /// A tool whose arguments are read into `T`: the schema follows from the type, its descriptions from the comments.
    ///
    /// Definitions are written in place, where the type allows it.
    pub fn from_type<T: JsonSchema>(name: impl Into<String>, description: impl Into<String>) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.meta_schema = None;
            settings.inline_subschemas = true;
        });
        let mut schema = settings.into_generator().into_root_schema_for::<T>();
        schema.remove("title");
        schema.remove("description");
        Self::new(name, description, Json::from(schema.as_value()))
    }
}

/// A tool's schema, compiled.
#[derive(Debug, Clone)]
pub(super) struct Checker(Option<Arc<Validator>>);

impl Checker {
    pub(super) fn new(tool: &Tool) -> Result<Self, ToolError> {
        let Some(parameters) = tool.parameters().filter(|parameters| **parameters != Json::Null) else {
            return Ok(Self(None));
        };
        match jsonschema::validator_for(&parameters.to_value()) {
            Ok(validator) => Ok(Self(Some(Arc::new(validator)))),
            Err(error) => {
                let problem = format!("parameters{}: {error}", error.instance_path());
                Err(ToolError::Definition { name: tool.name().to_string(), problem })
            }
        }
    }

    /// What is wrong with arguments, one place each.
    pub(super) fn problems(&self, arguments: &Json) -> Vec<String> {
        let Some(validator) = &self.0 else { return Vec::new() };
        let value = arguments.to_value();
        let problem = |error: jsonschema::ValidationError<'_>| match error.instance_path().as_str() {
            "" => error.to_string(),
            path => format!("at {path}: {error}"),
        };
        let mut problems: Vec<String> = validator.iter_errors(&value).take(MOST + 1).map(problem).collect();
        if problems.len() > MOST {
            problems[MOST] = "and more".to_string();
        }
        problems
    }
}
