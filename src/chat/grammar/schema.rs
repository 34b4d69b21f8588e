//! JSON schemas: their references, and parts of them as schemas that stand alone.

use std::cell::Cell;
use std::collections::HashMap;

use super::error::GrammarError;
use super::{numbers, pattern};
use crate::chat::json::Json;
use crate::grammar::SchemaOf;

/// The deepest nesting of a schema.
const MAX_DEPTH: usize = 120;
/// Schemas within one parameter's or content's schema, with all it refers to.
const MAX_NODES: usize = 20_000;
/// Levels of nesting, summed over all that a schema refers to.
const MAX_LEVELS: usize = 2_000;
/// Properties of one object.
pub(super) const MAX_PROPERTIES: usize = 500;
/// Bytes of all the schemas that are made from one schema.
const MAX_BYTES: usize = 1 << 20;
/// Steps of looking into one schema: references can make a small schema stand for a huge one.
const MAX_STEPS: usize = 100_000;
/// References that follow one another.
pub(super) const MAX_CHAIN: usize = 64;

/// A schema to which references are relative.
#[derive(Debug)]
pub(super) struct Root<'a> {
    pub schema: &'a Json,
    of: SchemaOf,
    /// What no string in a value may hold.
    forbidden: &'static [&'static str],
    written: Cell<usize>,
    steps: Cell<usize>,
    /// The sum of all multiples, those of earlier schemas included.
    multiples: Cell<u64>,
}

/// Schemas under names that stand for their pointers.
struct Definitions {
    names: HashMap<String, usize>,
    waiting: Vec<String>,
    nodes: usize,
    deepest: usize,
}

impl<'a> Root<'a> {
    /// A tool's parameters, or a response's schema.
    pub fn new(schema: &'a Json, of: SchemaOf, forbidden: &'static [&'static str]) -> Result<Self, GrammarError> {
        let (written, steps, multiples) = Default::default();
        let root = Self { schema, of, forbidden, written, steps, multiples };
        match schema {
            Json::Object(_) | Json::Bool(_) => Ok(root),
            _ => Err(root.problem("", "a schema must be an object, true or false")),
        }
    }

    /// The same, with what the schemas before it cost.
    pub fn after(self, multiples: u64) -> Self {
        Self { multiples: Cell::new(multiples), ..self }
    }

    /// What this schema and those before it cost.
    pub fn multiples(&self) -> u64 {
        self.multiples.get()
    }

    /// An error at a place.
    pub fn problem(&self, path: &str, problem: impl Into<String>) -> GrammarError {
        GrammarError::Schema { of: self.of.clone(), pointer: path.to_string(), problem: problem.into() }
    }

    /// Counts a step.
    pub fn step(&self, path: &str) -> Result<(), GrammarError> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS { Err(self.problem(path, "the schema is too large")) } else { Ok(()) }
    }

    /// What a reference stands for.
    pub fn resolve(&self, reference: &str, path: &str) -> Result<&'a Json, GrammarError> {
        let unknown = || self.problem(path, format!("$ref {reference:?} leads nowhere"));
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(self.problem(path, format!("$ref {reference:?} leads out of the schema")));
        };
        let pointer = percent_decoded(pointer).ok_or_else(unknown)?;
        let mut at = self.schema;
        if pointer.is_empty() || pointer == "/" {
            return Ok(at);
        }
        for step in pointer.strip_prefix('/').ok_or_else(unknown)?.split('/') {
            let step = step.replace("~1", "/").replace("~0", "~");
            at = match at {
                Json::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                other => other.get(&step),
            }
            .ok_or_else(unknown)?;
        }
        Ok(at)
    }

    /// Refuses a reference that leads to nothing but itself.
    fn check_leads_on(&self, reference: &str, path: &str) -> Result<(), GrammarError> {
        let mut at = self.resolve(reference, path)?;
        for _ in 0..MAX_CHAIN {
            let Some(next) = at.get("$ref").and_then(Json::as_str) else { return Ok(()) };
            at = self.resolve(next, path)?;
        }
        Err(self.problem(path, format!("$ref {reference:?} leads from reference to reference without end")))
    }

    /// Whether values other than strings may follow a schema; what is not looked into counts as may.
    pub fn allows_others(&self, schema: &Json, path: &str) -> Result<bool, GrammarError> {
        self.others(schema, path, 0)
    }

    fn others(&self, schema: &Json, path: &str, depth: usize) -> Result<bool, GrammarError> {
        self.step(path)?;
        if depth > MAX_CHAIN {
            return Ok(true);
        }
        let entries = match schema {
            Json::Bool(any) => return Ok(*any),
            Json::Object(entries) => entries,
            _ => return Ok(true),
        };
        let mut may = true;
        for (key, value) in entries {
            may &= match (key.as_str(), value) {
                ("type", Json::String(kind)) => kind != "string",
                ("type", Json::Array(kinds)) => kinds.iter().any(|kind| kind.as_str() != Some("string")),
                ("const", value) => value.as_str().is_none(),
                ("enum", Json::Array(values)) => values.iter().any(|value| value.as_str().is_none()),
                ("$ref", Json::String(reference)) => {
                    self.others(self.resolve(reference, &format!("{path}/$ref"))?, reference, depth + 1)?
                }
                ("anyOf" | "oneOf", Json::Array(parts)) => {
                    let mut any = false;
                    for part in parts {
                        any |= self.others(part, path, depth + 1)?;
                    }
                    any
                }
                ("allOf", Json::Array(parts)) => {
                    let mut all = true;
                    for part in parts {
                        all &= self.others(part, path, depth + 1)?;
                    }
                    all
                }
                _ => true,
            };
        }
        Ok(may)
    }

    /// A part of the schema as text that stands alone: with the schemas it refers to, restricted to `kinds` unless
    /// these are empty, and with the grammar's options.
    pub fn embed(&self, schema: &Json, path: &str, kinds: &[&str], options: &str) -> Result<String, GrammarError> {
        let mut definitions = Definitions { names: HashMap::new(), waiting: Vec::new(), nodes: 0, deepest: 0 };
        let mut levels = 0;
        let mut entries = match self.plain(schema, path, 0, &mut definitions)? {
            Json::Object(entries) => entries,
            Json::Bool(true) => Vec::new(),
            _ => return Err(self.problem(path, "no value follows this schema")),
        };
        levels += definitions.deepest;
        let mut known = Vec::new();
        while known.len() < definitions.waiting.len() {
            let reference = definitions.waiting[known.len()].clone();
            definitions.deepest = 0;
            let schema = self.plain(self.resolve(&reference, path)?, &reference, 0, &mut definitions)?;
            levels += definitions.deepest + 1;
            if levels > MAX_LEVELS {
                return Err(self.problem(path, "refers to too many schemas"));
            }
            known.push((format!("d{}", known.len()), schema));
        }
        if !kinds.is_empty() {
            let kinds = kinds.iter().map(|kind| Json::String(kind.to_string())).collect();
            let kinds = Json::Object(vec![("type".to_string(), Json::Array(kinds))]);
            let both = if entries.is_empty() { vec![kinds] } else { vec![Json::Object(entries), kinds] };
            entries = vec![("allOf".to_string(), Json::Array(both))];
        }
        if !known.is_empty() {
            entries.push(("$defs".to_string(), Json::Object(known)));
        }
        let options = Json::parse(options).map_err(|error| self.problem(path, error.to_string()))?;
        entries.push(("x-guidance".to_string(), options));
        let text = Json::Object(entries).to_string();
        self.written.set(self.written.get() + text.len());
        if self.written.get() > MAX_BYTES {
            return Err(self.problem(path, "the schema is too large"));
        }
        Ok(text)
    }

    /// A schema without what restricts nothing, its references under their new names.
    fn plain(&self, schema: &Json, path: &str, depth: usize, into: &mut Definitions) -> Result<Json, GrammarError> {
        into.nodes += 1;
        into.deepest = into.deepest.max(depth);
        if into.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(self.problem(path, "the schema is too large"));
        }
        let entries = match schema {
            Json::Bool(_) => return Ok(schema.clone()),
            Json::Object(entries) => entries,
            _ => return Err(self.problem(path, "a schema must be an object, true or false")),
        };
        let mut kept = Vec::new();
        for (key, value) in entries {
            let inner = format!("{path}/{key}");
            let value = match key.as_str() {
                "$ref" => {
                    let Some(reference) = value.as_str() else {
                        return Err(self.problem(&inner, "must be a string"));
                    };
                    self.check_leads_on(reference, &inner)?;
                    let next = into.waiting.len();
                    let name = *into.names.entry(reference.to_string()).or_insert(next);
                    if name == next {
                        into.waiting.push(reference.to_string());
                    }
                    Json::String(format!("#/$defs/d{name}"))
                }
                "items" | "additionalItems" | "additionalProperties" => match value {
                    Json::Array(parts) => self.plain_all(parts, &inner, depth, into)?,
                    part => self.plain(part, &inner, depth + 1, into)?,
                },
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => match value {
                    Json::Array(parts) => self.plain_all(parts, &inner, depth, into)?,
                    _ => return Err(self.problem(&inner, "must be a list")),
                },
                "properties" | "patternProperties" => {
                    let Json::Object(parts) = value else { return Err(self.problem(&inner, "must be an object")) };
                    if parts.len() > MAX_PROPERTIES {
                        return Err(self.problem(&inner, "has too many properties"));
                    }
                    let mut plain = Vec::new();
                    for (name, part) in parts {
                        self.check_text(name, &inner)?;
                        plain.push((name.clone(), self.plain(part, &format!("{inner}/{name}"), depth + 1, into)?));
                    }
                    Json::Object(plain)
                }
                "const" | "enum" | "required" => {
                    self.check_texts(value, &inner, 0)?;
                    value.clone()
                }
                "type" => {
                    self.check_type(value, &inner)?;
                    value.clone()
                }
                "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minLength" | "maxLength" | "pattern" => {
                    value.clone()
                }
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                    numbers::check_bound(self, value, &inner)?;
                    value.clone()
                }
                "multipleOf" => {
                    self.multiples.set(self.multiples.get() + numbers::multiple(self, value, &inner)?);
                    if self.multiples.get() > numbers::MAX_MULTIPLES {
                        return Err(numbers::too_fine(self, &inner));
                    }
                    value.clone()
                }
                "format" if value.as_str().is_some_and(|name| pattern::format(name).is_some()) => value.clone(),
                key => {
                    self.check_keyword(key, value, path)?;
                    continue;
                }
            };
            kept.push((key.clone(), value));
        }
        Ok(Json::Object(kept))
    }

    fn plain_all(
        &self,
        parts: &[Json],
        path: &str,
        depth: usize,
        into: &mut Definitions,
    ) -> Result<Json, GrammarError> {
        let plain = |(index, part)| self.plain(part, &format!("{path}/{index}"), depth + 1, into);
        Ok(Json::Array(parts.iter().enumerate().map(plain).collect::<Result<_, _>>()?))
    }

    /// Checks what `type` says.
    fn check_type(&self, value: &Json, path: &str) -> Result<(), GrammarError> {
        const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];
        let known = |kind: &Json| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
        let valid = match value {
            Json::Array(kinds) => !kinds.is_empty() && kinds.iter().all(known),
            kind => known(kind),
        };
        if valid { Ok(()) } else { Err(self.problem(path, format!("is {value}, expected a type or a list of types"))) }
    }

    /// Refuses a keyword that restricts values in a way that no grammar here does.
    pub fn check_keyword(&self, key: &str, value: &Json, path: &str) -> Result<(), GrammarError> {
        let restricts = match key {
            "not" | "if" | "then" | "else" | "dependencies" | "dependentRequired" | "dependentSchemas"
            | "propertyNames" | "contains" | "minContains" | "maxContains" | "$dynamicRef" | "$recursiveRef" => true,
            "uniqueItems" => *value != Json::Bool(false),
            "unevaluatedItems" | "unevaluatedProperties" => *value != Json::Bool(true),
            _ => false,
        };
        if restricts { Err(self.problem(path, format!("{key} is not supported"))) } else { Ok(()) }
    }

    /// Checks a text that is to stand in JSON, where neither the format's own texts nor `\u` escapes may.
    fn check_text(&self, text: &str, path: &str) -> Result<(), GrammarError> {
        if let Some(control) = text.chars().find(|&c| c.is_ascii_control() && !"\u{8}\t\n\u{c}\r".contains(c)) {
            return Err(self.problem(path, format!("{control:?} cannot be written in an answer")));
        }
        match self.forbidden.iter().find(|&&forbidden| text.contains(forbidden)) {
            Some(forbidden) => Err(self.problem(path, format!("{forbidden:?} cannot be written in an answer"))),
            None => Ok(()),
        }
    }

    /// Checks every string of a value.
    fn check_texts(&self, value: &Json, path: &str, depth: usize) -> Result<(), GrammarError> {
        if depth > MAX_DEPTH {
            return Err(self.problem(path, "the schema is too large"));
        }
        match value {
            Json::String(text) => self.check_text(text, path),
            Json::Array(items) => items.iter().try_for_each(|item| self.check_texts(item, path, depth + 1)),
            Json::Object(entries) => entries.iter().try_for_each(|(key, value)| {
                self.check_text(key, path)?;
                self.check_texts(value, path, depth + 1)
            }),
            _ => Ok(()),
        }
    }
}

/// Undoes a URI's `%41`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
