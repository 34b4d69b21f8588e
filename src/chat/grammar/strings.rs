//! The strings that follow a schema, as plain text.

use super::error::GrammarError;
use super::pattern;
use super::schema::{MAX_CHAIN, Root};
use crate::chat::format::BAR;
use crate::chat::json::Json;

/// Longest bound that is held to; longer ones would make the grammar large.
const MAX_LENGTH: u64 = 100_000;

/// Bytes that a set may take.
const MAX_SIZE: usize = 1 << 18;

/// A set of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Strings {
    /// All.
    Any,
    /// These.
    These(Vec<String>),
    /// What a Lark expression matches.
    Match(String),
}

impl Strings {
    pub fn is_none(&self) -> bool {
        matches!(self, Self::These(strings) if strings.is_empty())
    }

    /// As a Lark expression of a value of a parameter; `None` for no strings.
    pub fn terminal(&self, forbidden: &[&str]) -> Option<String> {
        match self {
            Self::Any => Some("VALUE".to_string()),
            Self::These(strings) => {
                let strings = strings.iter().filter(|text| !forbidden.iter().any(|part| text.contains(part)));
                let strings: Vec<_> = strings.map(|text| literal(text)).collect();
                (!strings.is_empty()).then(|| format!("({})", strings.join(" | ")))
            }
            // Without the tags' bar there is no tag, which is found out at once; that a bounded string can't go on within one
            // takes long.
            Self::Match(expression) if !expression.contains(BAR) => Some(format!("({expression} & /[^{BAR}]*/)")),
            Self::Match(expression) => Some(format!("({expression} & VALUE)")),
        }
    }

    /// The set, unless writing it down takes too much.
    fn sized(self, root: &Root, path: &str) -> Result<Self, GrammarError> {
        let size = match &self {
            Self::Any => 0,
            Self::These(strings) => strings.iter().map(|text| text.len() + 8).sum(),
            Self::Match(expression) => expression.len(),
        };
        if size > MAX_SIZE { Err(root.problem(path, "the schema is too large")) } else { Ok(self) }
    }

    fn expression(&self) -> String {
        match self {
            Self::Any => "/(?s:.*)/".to_string(),
            Self::These(strings) => {
                let strings: Vec<_> = strings.iter().map(|text| literal(text)).collect();
                format!("({})", strings.join(" | "))
            }
            Self::Match(expression) => expression.clone(),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, strings) | (strings, Self::Any) => strings,
            (Self::These(mut strings), Self::These(others)) => {
                let others: std::collections::HashSet<_> = others.into_iter().collect();
                strings.retain(|text| others.contains(text));
                Self::These(strings)
            }
            (none, _) | (_, none) if none.is_none() => none,
            (left, right) => Self::Match(format!("({} & {})", left.expression(), right.expression())),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::These(mut strings), Self::These(others)) => {
                strings.extend(others);
                Self::These(strings)
            }
            (none, strings) | (strings, none) if none.is_none() => strings,
            (left, right) => Self::Match(format!("({} | {})", left.expression(), right.expression())),
        }
    }
}

/// A text in quotes, as Lark reads it.
pub(super) fn literal(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The strings that follow a schema.
pub(super) fn of(root: &Root, schema: &Json, path: &str) -> Result<Strings, GrammarError> {
    strings(root, schema, path, 0)
}

fn strings(root: &Root, schema: &Json, path: &str, depth: usize) -> Result<Strings, GrammarError> {
    root.step(path)?;
    if depth > MAX_CHAIN {
        return Err(root.problem(path, "its references go in a circle, or too deep"));
    }
    let none = Strings::These(Vec::new());
    let entries = match schema {
        Json::Bool(true) => return Ok(Strings::Any),
        Json::Bool(false) => return Ok(none),
        Json::Object(entries) => entries,
        _ => return Err(root.problem(path, "a schema must be an object, true or false")),
    };
    // The rest of a schema that lets no strings through may say what it likes.
    match schema.get("type") {
        Some(Json::String(kind)) if kind != "string" => return Ok(none),
        Some(Json::Array(kinds)) if !kinds.iter().any(|kind| kind.as_str() == Some("string")) => return Ok(none),
        _ => {}
    }
    let mut set = Strings::Any;
    let mut bounds: Option<(u64, Option<u64>)> = None;
    for (key, value) in entries {
        let inner = format!("{path}/{key}");
        let only = match (key.as_str(), value) {
            ("const", Json::String(text)) => Strings::These(vec![text.clone()]),
            ("const", _) => none.clone(),
            ("enum", Json::Array(values)) => {
                Strings::These(values.iter().filter_map(|value| value.as_str().map(String::from)).collect())
            }
            ("minLength", value) => {
                bounds.get_or_insert((0, None)).0 = length(root, value, &inner)?;
                continue;
            }
            ("maxLength", value) => {
                bounds.get_or_insert((0, None)).1 = Some(length(root, value, &inner)?);
                continue;
            }
            ("pattern", Json::String(text)) => {
                let whole = pattern::whole(text)
                    .map_err(|why| root.problem(&inner, format!("the pattern is not supported: {why}")))?;
                Strings::Match(format!("/{whole}/"))
            }
            ("pattern", _) => return Err(root.problem(&inner, "must be a string")),
            ("format", Json::String(name)) => match pattern::format(name) {
                Some(expression) => Strings::Match(format!("/{expression}/")),
                None => continue,
            },
            ("$ref", Json::String(reference)) => strings(root, root.resolve(reference, &inner)?, reference, depth + 1)?,
            ("allOf", Json::Array(parts)) => {
                let mut all = Strings::Any;
                for (index, part) in parts.iter().enumerate() {
                    let part = strings(root, part, &format!("{inner}/{index}"), depth + 1)?;
                    all = all.and(part).sized(root, path)?;
                }
                all
            }
            ("anyOf" | "oneOf", Json::Array(parts)) => {
                let mut any = none.clone();
                for (index, part) in parts.iter().enumerate() {
                    let next = strings(root, part, &format!("{inner}/{index}"), depth + 1)?;
                    if key == "oneOf" && !apart(&any, &next) {
                        return Err(root.problem(&inner, "more than one of the choices may allow the same string"));
                    }
                    any = any.or(next).sized(root, path)?;
                }
                any
            }
            _ => {
                root.check_keyword(key, value, path)?;
                continue;
            }
        };
        set = set.and(only).sized(root, path)?;
    }
    if let Some((min, max)) = bounds {
        set = bounded(set, min, max);
    }
    Ok(set)
}

/// Whether two sets are seen to share nothing.
fn apart(left: &Strings, right: &Strings) -> bool {
    match (left, right) {
        (Strings::These(left), Strings::These(right)) => !left.iter().any(|text| right.contains(text)),
        (left, right) => left.is_none() || right.is_none(),
    }
}

fn length(root: &Root, value: &Json, path: &str) -> Result<u64, GrammarError> {
    let length = match value {
        Json::Number(digits) => digits.parse::<f64>().ok().filter(|length| *length >= 0.0 && length.fract() == 0.0),
        _ => None,
    };
    match length {
        Some(length) if length <= MAX_LENGTH as f64 => Ok(length as u64),
        Some(_) => Err(root.problem(path, format!("is more than {MAX_LENGTH}"))),
        None => Err(root.problem(path, "must be a whole number")),
    }
}

fn bounded(set: Strings, min: u64, max: Option<u64>) -> Strings {
    if max.is_some_and(|max| max < min) {
        return Strings::These(Vec::new());
    }
    if let Strings::These(mut strings) = set {
        strings.retain(|text| {
            let length = text.chars().count() as u64;
            length >= min && max.is_none_or(|max| length <= max)
        });
        return Strings::These(strings);
    }
    let max = max.map_or(String::new(), |max| max.to_string());
    set.and(Strings::Match(format!("/(?s:.{{{min},{max}}})/")))
}
