//! A JSON object, field by field, with errors that name the field.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::error::ApiError;
use crate::chat::Json;
use crate::show;

/// Most JSON values of a body. A value that is read takes up to a few hundred bytes, however short its text is.
const MAX_VALUES: usize = 1 << 17;
/// Most characters that an error shows of a value.
const MAX_FOUND: usize = 40;

/// The fields of a body. A field that is `null` counts as absent; unknown ones are not looked at.
pub struct Fields<'a> {
    fields: HashMap<String, &'a RawValue>,
}

/// Fields whose lists of token ids are read without a tree of values.
const IDS: [&str; 2] = ["prompt", "tokens"];

impl<'a> Fields<'a> {
    /// Reads a body. A byte order mark before it is skipped.
    ///
    /// # Errors
    /// Status 400 if the body is not a JSON object in UTF-8, status 413 if it has more than [`MAX_VALUES`] values.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| ApiError::bad(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
        // Some clients put a byte order mark before their JSON.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Numbers count where a tree of them is built, which is not so for the ids of a prompt.
        check_count(Count::of(text).without_numbers)?;
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")).with_code("invalid_json"))?;
        let fields = entries(raw).ok_or_else(|| ApiError::bad("the body must be a JSON object"))?;
        let trees = fields.iter().filter(|(name, _)| !IDS.contains(&name.as_str()));
        let numbers = trees.map(|(_, value)| Count::of(value.get()).all).sum();
        check_count(numbers)?;
        Ok(Self { fields: fields.into_iter().filter(|(_, value)| value.get() != "null").collect() })
    }

    /// A field as it was written.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.get(name).copied()
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// A field as JSON.
    pub fn json(&self, name: &str) -> Result<Option<Json>, ApiError> {
        let Some(raw) = self.fields.get(name) else { return Ok(None) };
        Json::parse(raw.get()).map(Some).map_err(|error| ApiError::field(name, said(&error)))
    }

    /// A field of a shape that `read` knows; `expected` says which.
    pub fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Json) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(json) = self.json(name)? else { return Ok(None) };
        match read(&json) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong(name, expected, &json)),
        }
    }

    /// `true` or `false`.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", as_bool)
    }

    /// A whole number in a range.
    pub fn whole(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        let expected = match most {
            usize::MAX => format!("a whole number, at least {least}"),
            most => format!("a whole number from {least} to {most}"),
        };
        self.read(name, &expected, |json| as_whole(json).filter(|number| (least..=most).contains(number)))
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.read(name, "a string", |json| json.as_str().map(str::to_string))
    }

    /// The items of a list, which must be objects; errors name the item.
    pub fn items(&self, name: &str) -> Result<Vec<&'a RawValue>, ApiError> {
        let Some(raw) = self.raw(name) else { return Ok(Vec::new()) };
        let items = list(raw).ok_or_else(|| wrong_text(name, "a list", raw))?;
        match items.iter().position(|item| !item.get().starts_with('{')) {
            Some(at) => Err(wrong_text(&format!("{name}[{at}]"), "an object", items[at])),
            None => Ok(items),
        }
    }

    /// A list of objects that read themselves; errors name the item.
    pub fn objects<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<Vec<T>>, ApiError> {
        if !self.has(name) {
            return Ok(None);
        }
        let read = |(at, item): (usize, &'a RawValue)| {
            serde_json::from_str(item.get()).map_err(|error| ApiError::field(format!("{name}[{at}]"), said(&error)))
        };
        self.items(name)?.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Refuses fields that ask for what there is not.
    pub fn refuse(&self, names: &[(&str, &str)]) -> Result<(), ApiError> {
        match names.iter().find(|(name, _)| self.has(name)) {
            Some((name, why)) => Err(ApiError::field(*name, why)),
            None => Ok(()),
        }
    }
}

/// What serde says of a value, without its place in a text that nobody sees.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]).to_string()
}

/// A value of the wrong shape.
pub fn wrong(name: &str, expected: &str, found: &Json) -> ApiError {
    let found = found.to_string();
    ApiError::field(name, format!("expected {expected}, found {}", show::shown(&found, MAX_FOUND)))
}

/// The same for a value that was not read.
pub fn wrong_text(name: &str, expected: &str, found: &RawValue) -> ApiError {
    ApiError::field(name, format!("expected {expected}, found {}", show::shown(found.get(), MAX_FOUND)))
}

/// The entries of an object; of a key that stands twice, the last one. `None` if the value is no object.
pub fn entries(raw: &RawValue) -> Option<HashMap<String, &RawValue>> {
    raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok())?
}

/// The items of a list; `None` if the value is none.
pub fn list(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok())?
}

/// A text; `None` if the value is none.
pub fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).ok())?.map(Cow::Owned::<str>)
}

/// Token ids; `None` if the value is not a list of them.
pub fn ids_of(raw: &RawValue) -> Option<Vec<u32>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok())?
}

pub fn as_bool(json: &Json) -> Option<bool> {
    match json {
        Json::Bool(value) => Some(*value),
        _ => None,
    }
}

pub fn as_number(json: &Json) -> Option<f64> {
    match json {
        Json::Number(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

pub fn as_whole(json: &Json) -> Option<usize> {
    match json {
        Json::Number(text) => text.parse().ok(),
        _ => None,
    }
}

pub fn as_list(json: &Json) -> Option<&[Json]> {
    match json {
        Json::Array(items) => Some(items),
        _ => None,
    }
}

/// Token ids.
pub fn as_ids(json: &Json) -> Option<Vec<u32>> {
    as_list(json)?.iter().map(|id| u32::try_from(as_whole(id)?).ok()).collect()
}

/// How many values a JSON text has: keys, texts, numbers, lists and objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    all: usize,
    /// All but numbers, `true`, `false` and `null`.
    without_numbers: usize,
}

impl Count {
    /// Counts in one pass, without building anything; of text that is not JSON, some number.
    fn of(text: &str) -> Self {
        let (mut scalars, mut others) = (0, 0);
        let (mut quoted, mut escaped, mut scalar) = (false, false, false);
        for byte in text.bytes() {
            if quoted {
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                continue;
            }
            let begins = byte.is_ascii_alphanumeric() || byte == b'-';
            scalars += usize::from(begins && !scalar);
            scalar = begins || (scalar && matches!(byte, b'.' | b'+'));
            others += usize::from(matches!(byte, b'"' | b'{' | b'['));
            quoted = byte == b'"';
        }
        Self { all: scalars + others, without_numbers: others }
    }
}

fn check_count(values: usize) -> Result<(), ApiError> {
    if values <= MAX_VALUES {
        return Ok(());
    }
    Err(ApiError::large("body", format!("has {values} JSON values, expected at most {MAX_VALUES}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_as_a_tree_has_them() {
        fn count(value: &serde_json::Value) -> (usize, usize) {
            use serde_json::Value::{Array, Object, String};
            match value {
                Array(items) => items.iter().map(count).fold((1, 1), |a, b| (a.0 + b.0, a.1 + b.1)),
                Object(entries) => entries
                    .values()
                    .map(count)
                    .fold((1 + entries.len(), 1 + entries.len()), |a, b| (a.0 + b.0, a.1 + b.1)),
                String(_) => (1, 1),
                _ => (1, 0),
            }
        }
        for text in [
            "1",
            "-1.5e+3",
            "true",
            "[]",
            "{}",
            "\"a\\\"b,[\"",
            "[1,2.0,-3e-4,null]",
            "{\"a\\\\\":[true,{\"b\":\"[{,\"}]}",
            " [ 1 , [ ] , { \"x\" : \"\" } ] ",
        ] {
            let (all, without_numbers) = count(&serde_json::from_str(text).unwrap());
            assert_eq!(Count::of(text), Count { all, without_numbers }, "{text}");
        }
    }
}
