//! The form of an answer, as a prompt shows it, and values that were seen.

use serde_json::Value as JsonValue;

use crate::environment::tables::Date;
use crate::synthesis::seed::Stream;

/// The example of an answer in a prompt: the last JSON object or list in it.
pub(super) fn form(prompt: &str) -> Option<JsonValue> {
    // "..." stands for more of the same.
    let prompt = prompt.replace(", ...]", "]");
    let mut found = None;
    let mut from = 0;
    while let Some(at) = prompt.get(from..).and_then(|rest| rest.find(['{', '['])) {
        let begin = from + at;
        let rest = prompt.get(begin..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<JsonValue>();
        match values.next() {
            Some(Ok(value)) => {
                from = begin + values.byte_offset().max(1);
                found = Some(value);
            }
            _ => from = begin + 1,
        }
    }
    found
}

/// Values that results held, by kind and each once.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub texts: Vec<String>,
    pub dates: Vec<String>,
    pub numbers: Vec<i64>,
}

impl Values {
    /// The most values that are kept of each kind.
    const MOST: usize = 400;

    /// Takes every value of a result.
    pub fn see(&mut self, value: &JsonValue) {
        match value {
            JsonValue::Array(items) => items.iter().for_each(|item| self.see(item)),
            JsonValue::Object(entries) => entries.values().for_each(|value| self.see(value)),
            JsonValue::Number(number) => {
                let number = number.as_i64().unwrap_or_default();
                if self.numbers.len() < Self::MOST && !self.numbers.contains(&number) {
                    self.numbers.push(number);
                }
            }
            JsonValue::String(text) => {
                let kind = if Date::parse(text).is_some() { &mut self.dates } else { &mut self.texts };
                if kind.len() < Self::MOST && !kind.contains(text) {
                    kind.push(text.clone());
                }
            }
            _ => {}
        }
    }

    /// A value of the kind of another one.
    pub fn like(&self, value: &JsonValue, stream: &mut Stream) -> JsonValue {
        match value {
            JsonValue::Bool(_) => JsonValue::from(stream.chance(50)),
            JsonValue::Number(_) if stream.chance(50) && !self.numbers.is_empty() => {
                JsonValue::from(stream.pick(&self.numbers).copied().unwrap_or_default())
            }
            JsonValue::Number(_) => JsonValue::from(stream.between(0, 20)),
            JsonValue::String(text) => {
                let kind = if Date::parse(text).is_some() { &self.dates } else { &self.texts };
                JsonValue::from(stream.pick(kind).cloned().unwrap_or_default())
            }
            other => other.clone(),
        }
    }
}
