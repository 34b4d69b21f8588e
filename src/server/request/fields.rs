//! A JSON object, field by field, with errors that name the field.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::error::ApiError;
use crate::chat::Json;

/// The fields of a body. A field that is `null` counts as absent; unknown ones are not looked at.
pub struct Fields<'a> {
    fields: HashMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Reads a body.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| ApiError::bad(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")).with_code("invalid_json"))?;
        if !raw.get().starts_with('{') {
            return Err(ApiError::bad("the body must be a JSON object"));
        }
        let fields: HashMap<String, &RawValue> =
            serde_json::from_str(raw.get()).map_err(|error| ApiError::bad(format!("the body: {error}")))?;
        Ok(Self { fields: fields.into_iter().filter(|(_, value)| value.get() != "null").collect() })
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

    /// A list of objects that read themselves; errors name the item.
    pub fn objects<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<Vec<T>>, ApiError> {
        let Some(raw) = self.fields.get(name) else { return Ok(None) };
        if !raw.get().starts_with('[') {
            return Err(wrong(name, "a list", &Json::parse(raw.get()).unwrap_or(Json::Null)));
        }
        let items: Vec<&'a RawValue> =
            serde_json::from_str(raw.get()).map_err(|error| ApiError::field(name, said(&error)))?;
        let read = |(at, item): (usize, &&'a RawValue)| {
            let place = format!("{name}[{at}]");
            if !item.get().starts_with('{') {
                return Err(wrong(&place, "an object", &Json::parse(item.get()).unwrap_or(Json::Null)));
            }
            serde_json::from_str(item.get()).map_err(|error| ApiError::field(place, said(&error)))
        };
        items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
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
    let text = found.to_string();
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    ApiError::field(name, format!("expected {expected}, found {short}"))
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
