//! A tool's parameters out of the schema of its arguments.

use super::error::GrammarError;
use super::is_writable;
use super::schema::{MAX_CHAIN, MAX_PROPERTIES, Root};
use super::strings;
use crate::chat::json::Json;

/// What may stand in a call.
#[derive(Debug)]
pub(super) struct Arguments {
    /// Parameters in their order.
    pub named: Vec<Parameter>,
    /// The schema of all others, if there may be any.
    pub more: Option<Json>,
    /// Names that the others can't have.
    pub known: Vec<String>,
}

/// One parameter.
#[derive(Debug)]
pub(super) struct Parameter {
    pub name: String,
    pub schema: Json,
    pub required: bool,
    /// Where the schema stands.
    pub path: String,
}

/// What the parts of a schema say together.
#[derive(Default)]
struct Parts {
    /// Name, schemas and place of each property.
    properties: Vec<(String, Vec<Json>, String)>,
    required: Vec<String>,
    /// What each part says of properties it does not name, and which it names.
    others: Vec<(Json, Vec<String>)>,
}

impl Arguments {
    /// Reads the schema of a call's arguments: an object, maybe by reference or as `allOf`.
    pub fn read(root: &Root) -> Result<Self, GrammarError> {
        let mut parts = Parts::default();
        collect(root, root.schema, "", &mut parts, 0)?;
        let Parts { mut properties, required, others } = parts;
        for name in &required {
            if !properties.iter().any(|(known, ..)| known == name) {
                properties.push((name.clone(), vec![Json::Bool(true)], "/required".to_string()));
            }
        }
        if properties.len() > MAX_PROPERTIES {
            return Err(root.problem("", "has too many properties"));
        }
        let known = properties.iter().map(|(name, ..)| name.clone()).collect();
        let mut named = Vec::new();
        for (name, schemas, path) in properties {
            let required = required.contains(&name);
            let closed = others.iter().any(|(rest, own)| *rest == Json::Bool(false) && !own.contains(&name));
            let schema = match <[Json; 1]>::try_from(schemas) {
                Ok([schema]) => schema,
                Err(schemas) => Json::Object(vec![("allOf".to_string(), Json::Array(schemas))]),
            };
            let none = closed || !root.allows_others(&schema, &path)? && strings::of(root, &schema, &path)?.is_none();
            match (none, required) {
                (true, true) => return Err(root.problem(&path, "is required, but no value follows its schema")),
                (true, false) => {}
                (false, required) => {
                    if !is_writable(&name) {
                        let problem = format!("the name {name:?} cannot be written in the tool-call format");
                        return Err(root.problem(&path, problem));
                    }
                    named.push(Parameter { name, schema, required, path });
                }
            }
        }
        let more = match others.len() {
            _ if others.iter().any(|(rest, _)| *rest == Json::Bool(false)) => None,
            0 => None,
            1 => others.into_iter().next().map(|(rest, _)| rest),
            _ => {
                let all = others.into_iter().map(|(rest, _)| rest).collect();
                Some(Json::Object(vec![("allOf".to_string(), Json::Array(all))]))
            }
        };
        Ok(Self { named, more, known })
    }
}

fn collect(root: &Root, schema: &Json, path: &str, parts: &mut Parts, depth: usize) -> Result<(), GrammarError> {
    root.step(path)?;
    if depth > MAX_CHAIN {
        return Err(root.problem(path, "its references go in a circle, or too deep"));
    }
    let entries = match schema {
        Json::Bool(true) => return Ok(()),
        Json::Object(entries) => entries,
        _ => return Err(root.problem(path, "no arguments follow this schema")),
    };
    for (key, value) in entries {
        let inner = format!("{path}/{key}");
        let wrong = |expected: &str| root.problem(&inner, format!("must be {expected}"));
        match (key.as_str(), value) {
            ("type", Json::String(kind)) if kind == "object" => {}
            ("type", Json::Array(kinds)) if kinds.iter().any(|kind| kind.as_str() == Some("object")) => {}
            ("type", _) => return Err(wrong("\"object\"")),
            ("$ref", Json::String(reference)) => {
                collect(root, root.resolve(reference, &inner)?, reference, parts, depth + 1)?;
            }
            ("allOf", Json::Array(all)) => {
                for (index, part) in all.iter().enumerate() {
                    collect(root, part, &format!("{inner}/{index}"), parts, depth + 1)?;
                }
            }
            ("properties", Json::Object(properties)) => {
                if properties.len() + parts.properties.len() > 2 * MAX_PROPERTIES {
                    return Err(root.problem(&inner, "has too many properties"));
                }
                for (name, schema) in properties {
                    match parts.properties.iter_mut().find(|(known, ..)| known == name) {
                        Some((_, schemas, _)) => schemas.push(schema.clone()),
                        None => {
                            parts.properties.push((name.clone(), vec![schema.clone()], format!("{inner}/{name}")));
                        }
                    }
                }
            }
            ("required", Json::Array(names)) => {
                for name in names {
                    let name = name.as_str().ok_or_else(|| wrong("a list of strings"))?;
                    if !parts.required.iter().any(|known| known == name) {
                        parts.required.push(name.to_string());
                    }
                    if parts.required.len() > MAX_PROPERTIES {
                        return Err(root.problem(&inner, "has too many properties"));
                    }
                }
            }
            ("properties", _) => return Err(wrong("an object")),
            ("required" | "allOf", _) => return Err(wrong("a list")),
            ("$ref", _) => return Err(wrong("a string")),
            ("additionalProperties", rest) => {
                let own = match schema.get("properties") {
                    Some(Json::Object(own)) => own.iter().map(|(name, _)| name.clone()).collect(),
                    _ => Vec::new(),
                };
                parts.others.push((rest.clone(), own));
            }
            ("patternProperties", Json::Object(patterns)) if patterns.is_empty() => {}
            ("minProperties", Json::Number(least)) if least == "0" => {}
            ("anyOf" | "oneOf" | "enum" | "const" | "patternProperties" | "minProperties" | "maxProperties", _) => {
                return Err(root.problem(path, format!("{key} is not supported at the top of a tool's parameters")));
            }
            (key, value) => root.check_keyword(key, value, path)?,
        }
    }
    Ok(())
}
