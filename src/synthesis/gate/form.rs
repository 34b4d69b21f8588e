//! Answers of the right form, drawn at random, and right answers with something changed.

use serde_json::{Map, Value as JsonValue, json};

use crate::environment::tables::{Action, Database, Role, TableTool, Value};
use crate::synthesis::program::{Goal, Scalar};
use crate::synthesis::record::CallRecord;
use crate::synthesis::seed::Stream;

/// A cell of a column, of any row.
fn cell(database: &Database, table: &str, column: &str, stream: &mut Stream) -> Value {
    let found = database.table(table).and_then(|table| {
        let at = table.place(column)?;
        stream.pick(table.rows()).map(|row| row[at].clone())
    });
    found.unwrap_or(Value::Null)
}

fn key(database: &Database, table: &str, stream: &mut Stream) -> JsonValue {
    let name = database.table(table).map(|table| table.key().name.clone()).unwrap_or_default();
    cell(database, table, &name, stream).to_json()
}

fn rows(database: &Database, table: &str) -> usize {
    database.table(table).map_or(0, |table| table.rows().len())
}

/// The largest value of a figure that one might guess.
fn largest(database: &Database, scalar: &Scalar) -> i64 {
    let count = i64::try_from(rows(database, &scalar.rows().table)).unwrap_or(i64::MAX);
    let column = match scalar {
        Scalar::Count { .. } => return count,
        Scalar::Sum { column, .. } | Scalar::Span { column, .. } | Scalar::Shift { column, .. } => column,
    };
    let table = database.table(&scalar.rows().table);
    let numbers: Vec<i64> = table
        .and_then(|table| table.place(column).map(|at| (table, at)))
        .map(|(table, at)| table.rows().iter().filter_map(|row| row[at].number()).collect())
        .unwrap_or_default();
    let (least, most) = (numbers.iter().min().copied().unwrap_or(0), numbers.iter().max().copied().unwrap_or(0));
    match scalar {
        Scalar::Sum { .. } => numbers.iter().sum(),
        Scalar::Shift { .. } => most,
        _ => most - least,
    }
}

/// A random answer of the form that a decided goal asks for.
pub(super) fn random(goal: &Goal, database: &Database, stream: &mut Stream) -> JsonValue {
    match goal {
        Goal::Row { rows, fields } => {
            let entry = |(name, column): &(String, String)| {
                (name.clone(), cell(database, &rows.table, column, stream).to_json())
            };
            fields.iter().map(entry).collect::<Map<_, _>>().into()
        }
        Goal::Keys { rows: of, name } => {
            let count = 1 + stream.below(rows(database, &of.table).min(12));
            let mut keys: Vec<JsonValue> = Vec::new();
            for _ in 0..count {
                let key = key(database, &of.table, stream);
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            json!({name: keys})
        }
        Goal::Figures { figures } => {
            let entry = |(name, scalar): &(String, Scalar)| {
                let most = largest(database, scalar);
                let value = match scalar {
                    Scalar::Shift { days, .. } => {
                        let day = stream.between(most - 120, most) + days;
                        Value::Date(crate::environment::tables::Date::from_days(day)).to_json()
                    }
                    _ => JsonValue::from(stream.between(0, most.max(1))),
                };
                (name.clone(), value)
            };
            figures.iter().map(entry).collect::<Map<_, _>>().into()
        }
        Goal::Fit { slots } => {
            let groups = slots.groups.iter().map(|group| {
                let given = group.given.iter().map(|(name, value)| (name.clone(), json!(value)));
                let mut object: Map<String, JsonValue> = given.collect();
                for slot in &group.slots {
                    object.insert(slot.name.clone(), key(database, &slot.rows.table, stream));
                }
                JsonValue::Object(object)
            });
            groups.collect()
        }
        Goal::Change { rows: of, name, .. } => json!({name: stream.below(rows(database, &of.table) + 1)}),
        Goal::Either { then, .. } => random(then, database, stream),
    }
}

/// The logarithm to base 2 of the number of answers of that form.
pub(super) fn bits(goal: &Goal, database: &Database) -> u32 {
    let log = |count: usize| count.max(1).ilog2();
    match goal {
        Goal::Row { rows: of, fields } => {
            let bits = fields.iter().map(|_| log(rows(database, &of.table)));
            bits.sum()
        }
        Goal::Keys { rows: of, .. } => u32::try_from(rows(database, &of.table)).unwrap_or(u32::MAX),
        Goal::Figures { figures } => {
            figures.iter().map(|(_, scalar)| log(usize::try_from(largest(database, scalar)).unwrap_or(1))).sum()
        }
        Goal::Fit { slots } => slots.all().map(|slot| log(rows(database, &slot.rows.table))).sum(),
        Goal::Change { rows: of, .. } => u32::try_from(rows(database, &of.table)).unwrap_or(u32::MAX),
        Goal::Either { then, .. } => bits(then, database),
    }
}

/// Changed answers: a value swapped for another valid one, a number off by one, a part dropped, doubled or moved.
pub(super) fn mutants(gold: &JsonValue, goal: &Goal, database: &Database, stream: &mut Stream) -> Vec<JsonValue> {
    let mut found: Vec<JsonValue> = Vec::new();
    for _ in 0..12 {
        let other = random(goal, database, stream);
        found.push(swapped(gold, &other, stream));
    }
    match gold {
        JsonValue::Object(entries) => {
            for (name, value) in entries {
                let mut without = entries.clone();
                without.remove(name);
                found.push(JsonValue::Object(without));
                for change in [-1, 1] {
                    if let Some(number) = value.as_i64() {
                        let mut off = entries.clone();
                        off.insert(name.clone(), json!(number + change));
                        found.push(JsonValue::Object(off));
                    }
                }
                if let JsonValue::Array(items) = value {
                    for changed in lists(items) {
                        found.push(json!({name: changed}));
                    }
                }
            }
            let mut more = entries.clone();
            more.insert("note".to_string(), json!("done"));
            found.push(JsonValue::Object(more));
        }
        JsonValue::Array(items) => found.extend(lists(items).into_iter().map(JsonValue::Array)),
        _ => {}
    }
    found.retain(|mutant| mutant != gold);
    found.dedup();
    found
}

/// A list without its last item, and with its first one twice.
fn lists(items: &[JsonValue]) -> Vec<Vec<JsonValue>> {
    let mut twice = items.to_vec();
    twice.extend(items.first().cloned());
    vec![items[..items.len().saturating_sub(1)].to_vec(), twice]
}

/// The first answer with one place taken from the second.
fn swapped(gold: &JsonValue, other: &JsonValue, stream: &mut Stream) -> JsonValue {
    match (gold, other) {
        (JsonValue::Object(entries), JsonValue::Object(others)) => {
            let names: Vec<&String> = entries.keys().filter(|name| entries.get(*name) != others.get(*name)).collect();
            let mut entries = entries.clone();
            if let Some(name) = stream.pick(&names).map(|name| (*name).clone()) {
                let value = others.get(&name).cloned().unwrap_or_default();
                let value = match &entries[&name] {
                    JsonValue::Array(_) => swapped(&entries[&name], &value, stream),
                    _ => value,
                };
                entries.insert(name, value);
            }
            JsonValue::Object(entries)
        }
        (JsonValue::Array(items), JsonValue::Array(others)) if !items.is_empty() && !others.is_empty() => {
            let mut items = items.clone();
            let at = stream.below(items.len());
            let from = &others[at.min(others.len() - 1)];
            // An item that is there already would only be moved.
            if items[at].is_object() {
                items[at] = swapped(&items[at], from, stream);
            } else if !items.contains(from) {
                items[at] = from.clone();
            }
            JsonValue::Array(items)
        }
        _ => other.clone(),
    }
}

/// Changed calls: one left out, one made for another row, one with another value, and all the other way round.
pub(super) fn call_mutants(calls: &[CallRecord], tools: &[TableTool], database: &Database) -> Vec<Vec<CallRecord>> {
    let mut found = Vec::new();
    for (at, call) in calls.iter().enumerate().take(3) {
        let mut without = calls.to_vec();
        without.remove(at);
        found.push(without);
        let Some(tool) = tools.iter().find(|tool| tool.name == call.tool) else { continue };
        let mut swap = |role: &Role, values: &[JsonValue]| {
            let Some(name) = tool.parameter(role).map(|parameter| &parameter.name) else { return };
            let now = call.arguments.get(name);
            let others = values.iter().filter(|value| Some(*value) != now);
            for value in others.take(2) {
                let mut calls = calls.to_vec();
                if let Some(JsonValue::Object(arguments)) = calls.get_mut(at).map(|call| &mut call.arguments) {
                    arguments.insert(name.clone(), value.clone());
                }
                found.push(calls);
            }
        };
        let table = tool.action.table().and_then(|table| database.table(table));
        let keys: Vec<JsonValue> =
            table.map_or(Vec::new(), |table| table.rows().iter().take(4).map(|row| row[0].to_json()).collect());
        swap(&Role::Key, &keys);
        if let Action::Set { after, .. } = &tool.action {
            swap(&Role::Value, after);
        }
    }
    if calls.len() > 1 {
        found.push(calls.iter().rev().cloned().collect());
    }
    found
}
