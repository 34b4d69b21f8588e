//! JSON that keeps what was written: the order of keys and the digits of numbers.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// The deepest nesting that is read.
pub(crate) const MAX_DEPTH: usize = 128;

/// A JSON value. Objects keep the order of their keys, numbers their text, so that integers of any size survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written, valid JSON.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; keys are unique.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads JSON text, with or without a byte order mark before it. Of a key that stands twice, the last value counts,
    /// at the first one's place.
    ///
    /// # Errors
    /// The text is not JSON (`NaN` and `Infinity` are not), or nests deeper than 128 levels. Either way the error says
    /// where.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        read(serde_json::from_str(text)?, MAX_DEPTH, Some(text))
    }

    /// Whether a text is that of a JSON object as it stands.
    pub(crate) fn is_object_text(text: &str) -> bool {
        !text.starts_with('\u{feff}') && matches!(Self::parse(text), Ok(Self::Object(_)))
    }

    /// The same for text that is to stand in an object.
    pub(crate) fn parse_nested(text: &str) -> Result<Self, serde_json::Error> {
        read(serde_json::from_str(text)?, MAX_DEPTH - 1, Some(text))
    }

    /// The value of a key; `None` also if this is no object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same value for serde_json; numbers beyond 64 bits become the nearest `f64`.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.to_string()).unwrap_or(serde_json::Value::Null)
    }
}

/// The value of a text that serde_json has scanned, and that is a part of `whole`.
fn read(raw: &RawValue, depth: usize, whole: Option<&str>) -> Result<Json, serde_json::Error> {
    let text = raw.get();
    if depth == 0 {
        let place = whole.map(|whole| place(whole, text)).unwrap_or_default();
        return Err(serde_json::Error::custom(format!("nests deeper than {MAX_DEPTH} levels{place}")));
    }
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let mut entries: Vec<(String, Json)> = Vec::new();
            let mut places: HashMap<String, usize> = HashMap::new();
            for (key, value) in serde_json::from_str::<Entries>(text)?.0 {
                let value = read(value, depth - 1, whole)?;
                match places.get(&key) {
                    Some(&at) => entries[at].1 = value,
                    None => {
                        places.insert(key.clone(), entries.len());
                        entries.push((key, value));
                    }
                }
            }
            Json::Object(entries)
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(text)?;
            Json::Array(values.into_iter().map(|value| read(value, depth - 1, whole)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Json::String(serde_json::from_str(text)?),
        Some(b't') => Json::Bool(true),
        Some(b'f') => Json::Bool(false),
        Some(b'n') => Json::Null,
        _ => Json::Number(text.to_string()),
    })
}

/// Where a part of a text begins, in serde_json's words.
fn place(whole: &str, part: &str) -> String {
    let at = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr()).min(whole.len());
    let before = &whole.as_bytes()[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    format!(" at line {line} column {}", at - line_start + 1)
}

/// The entries of an object as they stand.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        read(&raw, MAX_DEPTH, None).map_err(D::Error::custom)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(text) => match serde_json::from_str::<&RawValue>(text) {
                Ok(raw) => raw.serialize(serializer),
                Err(error) => Err(serde::ser::Error::custom(error)),
            },
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// Compact JSON text.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::String(text.clone()),
            Value::Array(values) => Self::Array(values.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                Self::Object(entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect())
            }
        }
    }
}
