//! Random calls and a random answer of the right form.

use serde_json::{Map, Value as JsonValue};

use super::form::{Values, form};
use super::{Seen, Solver, call, prompt, submit, tools};
use crate::chat::Message;
use crate::environment::Environment;
use crate::synthesis::record::TaskRecord;
use crate::synthesis::seed::Stream;

/// Makes random calls with arguments that follow the schemas, then fills the form of the answer with values that it saw.
#[derive(Debug, Clone, Copy)]
pub struct Random;

/// Calls before the submission.
const CALLS: usize = 8;

impl Solver for Random {
    fn name(&self) -> String {
        "random".to_string()
    }

    fn attempt(
        &self,
        _task: &TaskRecord,
        world: &mut dyn Environment,
        messages: &[Message],
        stream: &mut Stream,
    ) -> Option<Message> {
        let (tools, end) = tools(world);
        let mut values = Values::default();
        for _ in 0..CALLS {
            let tool = stream.pick(&tools)?;
            let arguments = arguments(tool, &values, stream);
            if let Some(result) = call(world, &tool.name, arguments) {
                values.see(&result);
            }
        }
        let answer = form(&prompt(messages)).map(|form| filled(&form, &values, stream));
        submit(world, end.as_ref(), &answer.unwrap_or_default());
        None
    }
}

fn arguments(tool: &Seen, values: &Values, stream: &mut Stream) -> Map<String, JsonValue> {
    let mut arguments = Map::new();
    for (name, schema) in &tool.parameters {
        if tool.required.contains(name) {
            arguments.insert(name.clone(), argument(schema, values, stream));
        }
    }
    arguments
}

fn argument(schema: &JsonValue, values: &Values, stream: &mut Stream) -> JsonValue {
    if let Some(choices) = schema.get("enum").and_then(JsonValue::as_array) {
        return stream.pick(choices).cloned().unwrap_or_default();
    }
    match schema.get("type").and_then(JsonValue::as_str) {
        Some("integer" | "number") => JsonValue::from(stream.between(1, 30)),
        Some("boolean") => JsonValue::from(stream.chance(50)),
        Some("array") => {
            let items = schema.get("items").cloned().unwrap_or_default();
            JsonValue::Array(vec![argument(&items, values, stream)])
        }
        _ if schema.get("pattern").is_some() => values.like(&JsonValue::from("2025-01-01"), stream),
        _ => values.like(&JsonValue::from(""), stream),
    }
}

fn filled(form: &JsonValue, values: &Values, stream: &mut Stream) -> JsonValue {
    match form {
        JsonValue::Object(entries) => {
            let entry = |(name, value): (&String, &JsonValue)| (name.clone(), filled(value, values, stream));
            JsonValue::Object(entries.iter().map(entry).collect())
        }
        // Texts stand for any number of them, objects for as many as there are.
        JsonValue::Array(items) if items.iter().all(JsonValue::is_string) => {
            let count = 1 + stream.below(5);
            (0..count).map(|_| values.like(&JsonValue::from(""), stream)).collect()
        }
        JsonValue::Array(items) => items.iter().map(|item| filled(item, values, stream)).collect(),
        other => values.like(other, stream),
    }
}
