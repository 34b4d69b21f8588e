//! Looks everything up and takes what resembles the question most.

use std::collections::BTreeMap;

use serde_json::{Map, Value as JsonValue};

use super::form::form;
use super::{Seen, Solver, call, prompt, submit, tools};
use crate::chat::Message;
use crate::environment::Environment;
use crate::synthesis::record::TaskRecord;
use crate::synthesis::seed::Stream;

/// Lists all rows that can be listed, looks up each of them, and answers with those of which most cells stand in the
/// prompt. It changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Greedy;

/// The most calls of an attempt.
const CALLS: usize = 160;
/// The most pages of a list.
const PAGES: i64 = 20;

/// Rows by their key, with what is known of each.
type Known = BTreeMap<String, Map<String, JsonValue>>;

impl Solver for Greedy {
    fn name(&self) -> String {
        "greedy".to_string()
    }

    fn attempt(
        &self,
        _task: &TaskRecord,
        world: &mut dyn Environment,
        messages: &[Message],
        stream: &mut Stream,
    ) -> Option<Message> {
        let (tools, end) = tools(world);
        let prompt = prompt(messages);
        let mut known = Known::new();
        let mut left = CALLS;
        for tool in tools.iter().filter(|tool| tool.required.is_empty()) {
            list(world, tool, &mut known, &mut left);
        }
        look_up(world, &tools, &prompt, &mut known, &mut left);
        let mut rows: Vec<(usize, &String, &Map<String, JsonValue>)> =
            known.iter().map(|(key, row)| (likeness(key, row, &prompt), key, row)).collect();
        stream.shuffle(&mut rows);
        rows.sort_by_key(|(likeness, ..)| std::cmp::Reverse(*likeness));
        let answer = form(&prompt).map(|form| filled(&form, &rows));
        submit(world, end.as_ref(), &answer.unwrap_or_default());
        None
    }
}

/// Takes all pages of a list.
fn list(world: &mut dyn Environment, tool: &Seen, known: &mut Known, left: &mut usize) {
    let page = tool.parameters.iter().find(|(name, schema)| {
        name.to_lowercase().contains("page") && schema.get("type").and_then(JsonValue::as_str) == Some("integer")
    });
    for number in 1..=PAGES {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let arguments = page.map(|(name, _)| (name.clone(), JsonValue::from(number))).into_iter().collect();
        let Some(result) = call(world, &tool.name, arguments) else { return };
        let items = result.get("items").unwrap_or(&result);
        for item in items.as_array().into_iter().flatten() {
            match item {
                JsonValue::String(key) => {
                    known.entry(key.clone()).or_default();
                }
                JsonValue::Object(row) => {
                    if let Some(key) = row.values().find_map(JsonValue::as_str) {
                        known.entry(key.to_string()).or_default().extend(row.clone());
                    }
                }
                _ => {}
            }
        }
        if result.get("pages").and_then(JsonValue::as_i64).is_none_or(|pages| number >= pages) {
            return;
        }
    }
}

/// Asks the tools that tell of one row about every row, the likeliest first.
fn look_up(world: &mut dyn Environment, tools: &[Seen], prompt: &str, known: &mut Known, left: &mut usize) {
    let mut keys: Vec<String> = known.keys().cloned().collect();
    keys.sort_by_key(|key| std::cmp::Reverse(usize::from(prompt.contains(key.as_str()))));
    for tool in tools {
        let is_kind = |schema: &JsonValue, kind: &str| schema.get("type").and_then(JsonValue::as_str) == Some(kind);
        let text = |(_, schema): &&(String, JsonValue)| {
            is_kind(schema, "string") && schema.get("pattern").is_none() && schema.get("enum").is_none()
        };
        let words = tool.parameters.iter().find(|(_, schema)| is_kind(schema, "array"));
        let texts: Vec<_> = tool.parameters.iter().filter(text).collect();
        let ([(key_name, _)], true) = (&texts[..], tool.parameters.len() == 1 + usize::from(words.is_some())) else {
            continue;
        };
        let mut refused = 0;
        for key in &keys {
            // A tool that refuses several keys is about other rows.
            if *left == 0 || refused > 3 {
                break;
            }
            *left -= 1;
            let mut arguments = Map::from_iter([(key_name.clone(), JsonValue::from(key.as_str()))]);
            if let Some((name, schema)) = words {
                let all = schema.get("items").and_then(|items| items.get("enum")).cloned().unwrap_or_default();
                arguments.insert(name.clone(), all);
            }
            match call(world, &tool.name, arguments) {
                Some(JsonValue::Object(row)) => {
                    known.entry(key.clone()).or_default().extend(row);
                }
                _ => refused += 1,
            }
        }
    }
}

/// How many of a row's cells stand in the prompt.
fn likeness(key: &str, row: &Map<String, JsonValue>, prompt: &str) -> usize {
    let cells = row.values().filter(|cell| match cell {
        JsonValue::String(text) => text != key && !text.is_empty() && prompt.contains(text.as_str()),
        JsonValue::Number(number) => prompt.contains(&number.to_string()),
        _ => false,
    });
    cells.count()
}

fn filled(form: &JsonValue, rows: &[(usize, &String, &Map<String, JsonValue>)]) -> JsonValue {
    let best = rows.first().map_or(0, |(likeness, ..)| *likeness);
    let alike: Vec<_> = rows.iter().take_while(|(likeness, ..)| *likeness == best).collect();
    match form {
        JsonValue::Array(items) => {
            let one = |(at, item)| filled(item, rows.get(at..).unwrap_or_default());
            items.iter().enumerate().map(one).collect()
        }
        JsonValue::Object(entries) => {
            let row = alike.first();
            let entry = |(name, example): (&String, &JsonValue)| {
                let value = match example {
                    JsonValue::Array(_) => alike.iter().map(|(_, key, _)| JsonValue::from(key.as_str())).collect(),
                    _ => match (row.and_then(|(.., row)| row.get(name)), example) {
                        (Some(cell), _) => cell.clone(),
                        (None, JsonValue::Number(_)) => JsonValue::from(alike.len()),
                        (None, _) => row.map_or(JsonValue::Null, |(_, key, _)| JsonValue::from(key.as_str())),
                    },
                };
                (name.clone(), value)
            };
            JsonValue::Object(entries.iter().map(entry).collect())
        }
        other => other.clone(),
    }
}
