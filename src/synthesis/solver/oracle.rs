//! The solution with mistakes.

use serde_json::{Map, Value as JsonValue};

use super::form::Values;
use super::{Solver, call, submit, tools};
use crate::chat::Message;
use crate::environment::Environment;
use crate::synthesis::record::TaskRecord;
use crate::synthesis::seed::Stream;

/// Knows the solution, and gets each part of the answer and each change right in `per_cent` of 100 cases: the more there
/// is to get right, the less often it succeeds.
#[derive(Debug, Clone, Copy)]
pub struct Oracle {
    /// How often a part is right.
    pub per_cent: u8,
}

/// The calls that are made to see values for wrong answers.
const LOOKS: usize = 12;

impl Solver for Oracle {
    fn name(&self) -> String {
        format!("oracle-{}", self.per_cent)
    }

    fn attempt(
        &self,
        task: &TaskRecord,
        world: &mut dyn Environment,
        _messages: &[Message],
        stream: &mut Stream,
    ) -> Option<Message> {
        let (_, end) = tools(world);
        let mut values = Values::default();
        let arguments = |arguments: &JsonValue| arguments.as_object().cloned().unwrap_or_default();
        let reads = task.trace.iter().filter(|made| !task.gold.calls.contains(made));
        let reads = reads.filter(|made| end.as_ref().is_none_or(|end| end.name != made.tool));
        for made in reads.take(LOOKS) {
            if let Some(result) = call(world, &made.tool, arguments(&made.arguments)) {
                values.see(&result);
            }
        }
        for made in &task.gold.calls {
            if self.is_right(stream) {
                call(world, &made.tool, arguments(&made.arguments));
            }
        }
        let answer = serde_json::from_str(&task.gold.answer).unwrap_or_default();
        submit(world, end.as_ref(), &self.spoilt(&answer, &values, stream));
        None
    }
}

impl Oracle {
    fn is_right(self, stream: &mut Stream) -> bool {
        stream.chance(usize::from(self.per_cent))
    }

    fn spoilt(self, answer: &JsonValue, values: &Values, stream: &mut Stream) -> JsonValue {
        match answer {
            JsonValue::Array(items) => items.iter().map(|item| self.spoilt(item, values, stream)).collect(),
            JsonValue::Object(entries) => {
                let entries = entries.iter().map(|(name, value)| (name.clone(), self.spoilt(value, values, stream)));
                JsonValue::Object(entries.collect::<Map<_, _>>())
            }
            right if self.is_right(stream) => right.clone(),
            JsonValue::Number(number) => {
                let off = if stream.chance(50) { 1 } else { -1 };
                JsonValue::from(number.as_i64().unwrap_or_default().saturating_add(off))
            }
            right => values.like(right, stream),
        }
    }
}
