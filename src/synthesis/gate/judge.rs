//! A second judge of answers for the gates: plain loops over all rows, and nothing of the code that verifiers run.

use std::cmp::Ordering;

use serde_json::{Map, Value as JsonValue};

use crate::environment::tables::{Database, Date, Row, Table, Value};
use crate::synthesis::program::{Comparison, Constraint, Extreme, Filter, Goal, Rows, Scalar, Slots};

/// What is right for a goal in a state, found out row by row.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    initial: &'a Database,
    right: Right<'a>,
}

#[derive(Debug)]
enum Right<'a> {
    /// One of these objects.
    One(Vec<JsonValue>),
    /// An object with a list of these texts, sorted.
    List(String, Vec<String>),
    /// For every slot the rows that it may be.
    Fit(&'a Slots, Vec<Selected<'a>>),
    /// A table and the place of its column, the keys of rows, the value, and the answer.
    Change { table: String, place: usize, keys: Vec<Value>, value: Value, answer: JsonValue },
}

/// How two cells compare; nothing compares with null or across kinds.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
        _ => Some(a.number()?.cmp(&b.number()?)),
    }
}

fn compares(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Unequal => order.is_ne(),
        Comparison::Below => order.is_lt(),
        Comparison::AtMost => order.is_le(),
        Comparison::Above => order.is_gt(),
        Comparison::AtLeast => order.is_ge(),
    }
}

fn table<'a>(database: &'a Database, name: &str) -> Result<&'a Table, String> {
    let found = database.tables().iter().find(|table| table.name() == name);
    found.ok_or_else(|| format!("there is no table {name:?}"))
}

fn cell<'a>(table: &Table, row: &'a Row, column: &str) -> Result<&'a Value, String> {
    let at = table.columns().iter().position(|other| other.name == column);
    at.and_then(|at| row.get(at)).ok_or_else(|| format!("there is no column {}.{column}", table.name()))
}

/// Whether a row meets a condition; `inner` are the rows that the condition's own query selects.
fn holds(of: &Table, row: &Row, filter: &Filter, inner: &Selected<'_>) -> Result<bool, String> {
    let (other, found) = inner;
    let refers = |column: &str| {
        for candidate in found {
            if row.first() == Some(cell(other, candidate, column)?) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match filter {
        Filter::Compare { column, comparison, value } => {
            Ok(order(cell(of, row, column)?, value).is_some_and(|order| compares(*comparison, order)))
        }
        Filter::Missing { column } => Ok(*cell(of, row, column)? == Value::Null),
        Filter::Linked { column, .. } => {
            let link = cell(of, row, column)?;
            Ok(found.iter().any(|other| other.first() == Some(link)))
        }
        Filter::Has { column, .. } => refers(column),
        Filter::Lacks { column, .. } => refers(column).map(|refers: bool| !refers),
    }
}

/// A table and some of its rows.
type Selected<'a> = (&'a Table, Vec<&'a Row>);

/// The rows of a query, each tried by itself.
fn selected<'a>(database: &'a Database, rows: &Rows) -> Result<Selected<'a>, String> {
    let of = table(database, &rows.table)?;
    let mut found = Vec::new();
    let inner = rows.filters.iter().map(|filter| match filter {
        Filter::Compare { .. } | Filter::Missing { .. } => Ok((of, Vec::new())),
        Filter::Linked { rows, .. } | Filter::Has { rows, .. } | Filter::Lacks { rows, .. } => selected(database, rows),
    });
    let inner = inner.collect::<Result<Vec<_>, String>>()?;
    'rows: for row in of.rows() {
        for (filter, inner) in rows.filters.iter().zip(&inner) {
            if !holds(of, row, filter, inner)? {
                continue 'rows;
            }
        }
        found.push(row);
    }
    let Some(Extreme { column, most }) = &rows.extreme else { return Ok((of, found)) };
    let mut best = Vec::new();
    for row in &found {
        let own = cell(of, row, column)?;
        let mut beaten = *own == Value::Null;
        for other in &found {
            let wanted = if *most { Ordering::Greater } else { Ordering::Less };
            beaten |= order(cell(of, other, column)?, own) == Some(wanted);
        }
        if !beaten {
            best.push(*row);
        }
    }
    Ok((of, best))
}

fn figure(database: &Database, scalar: &Scalar) -> Result<JsonValue, String> {
    let (of, rows) = selected(database, scalar.rows())?;
    let (Scalar::Sum { column, .. } | Scalar::Span { column, .. } | Scalar::Shift { column, .. }) = scalar else {
        return Ok(JsonValue::from(rows.len()));
    };
    let (mut sum, mut least, mut most) = (0i128, i64::MAX, i64::MIN);
    for row in rows {
        let Some(number) = cell(of, row, column)?.number() else { continue };
        sum += i128::from(number);
        least = least.min(number);
        most = most.max(number);
    }
    Ok(match scalar {
        Scalar::Shift { days, .. } if most > i64::MIN => {
            JsonValue::from(Date::from_days(most.saturating_add(*days)).to_string())
        }
        Scalar::Shift { .. } => JsonValue::Null,
        Scalar::Span { .. } => JsonValue::from(if most < least { 0 } else { most - least }),
        _ => i64::try_from(sum).map_or(JsonValue::Null, JsonValue::from),
    })
}

/// The number that a condition of a goal looks at: days since 1970 of a date.
fn decisive(database: &Database, scalar: &Scalar) -> Result<i64, String> {
    let value = figure(database, scalar)?;
    let date = value.as_str().and_then(Date::parse).map(Date::days);
    Ok(date.or_else(|| value.as_i64()).unwrap_or_default())
}

impl<'a> Judge<'a> {
    /// Finds out what is right.
    ///
    /// # Errors
    /// The goal speaks of a table or column that there isn't.
    pub fn new(goal: &'a Goal, initial: &'a Database) -> Result<Self, String> {
        let right = match goal {
            Goal::Either { scalar, comparison, number, then, otherwise } => {
                let holds = compares(*comparison, decisive(initial, scalar)?.cmp(number));
                return Self::new(if holds { then } else { otherwise }, initial);
            }
            Goal::Row { rows, fields } => {
                let (of, found) = selected(initial, rows)?;
                let mut objects = Vec::new();
                for row in found {
                    let mut object = Map::new();
                    for (name, column) in fields {
                        object.insert(name.clone(), cell(of, row, column)?.to_json());
                    }
                    objects.push(JsonValue::Object(object));
                }
                Right::One(objects)
            }
            Goal::Keys { rows, name } => {
                let (_, found) = selected(initial, rows)?;
                let keys = found.iter().filter_map(|row| row.first());
                let mut keys: Vec<String> = keys.map(|key| key.to_json().to_string()).collect();
                keys.sort();
                Right::List(name.clone(), keys)
            }
            Goal::Figures { figures } => {
                let mut object = Map::new();
                for (name, scalar) in figures {
                    object.insert(name.clone(), figure(initial, scalar)?);
                }
                Right::One(vec![JsonValue::Object(object)])
            }
            Goal::Fit { slots } => {
                let candidates = slots.groups.iter().flat_map(|group| &group.slots);
                let candidates = candidates.map(|slot| selected(initial, &slot.rows));
                Right::Fit(slots, candidates.collect::<Result<_, _>>()?)
            }
            Goal::Change { rows, column, value, name } => {
                let (of, found) = selected(initial, rows)?;
                let keys: Vec<Value> = found.iter().filter_map(|row| row.first().cloned()).collect();
                let place = of.columns().iter().position(|other| other.name == *column);
                Right::Change {
                    table: of.name().to_string(),
                    place: place.ok_or_else(|| format!("there is no column {}.{column}", of.name()))?,
                    answer: JsonValue::Object(Map::from_iter([(name.clone(), JsonValue::from(keys.len()))])),
                    keys,
                    value: value.clone(),
                }
            }
        };
        Ok(Self { initial, right })
    }

    /// Whether an answer with a last state is right.
    pub fn accepts(&self, answer: &JsonValue, state: &Database) -> bool {
        self.is_untouched(state)
            && match &self.right {
                Right::One(objects) => objects.iter().any(|object| same(object, answer)),
                Right::List(name, keys) => {
                    let JsonValue::Object(object) = answer else { return false };
                    let (1, Some(JsonValue::Array(given))) = (object.len(), object.get(name)) else { return false };
                    let mut given: Vec<String> = given.iter().map(JsonValue::to_string).collect();
                    given.sort();
                    given == *keys
                }
                Right::Fit(slots, candidates) => fits(slots, candidates, answer),
                Right::Change { answer: wanted, .. } => same(wanted, answer),
            }
    }

    /// Whether every cell is as it was, but for those that have to change, which are as they should be.
    fn is_untouched(&self, state: &Database) -> bool {
        self.initial.tables().len() == state.tables().len()
            && self.initial.tables().iter().all(|before| {
                let Ok(after) = table(state, before.name()) else { return false };
                before.rows().len() == after.rows().len()
                    && before.rows().iter().all(|row| {
                        let other = after.rows().iter().find(|other| other.first() == row.first());
                        other.is_some_and(|other| self.cells(before.name(), row).eq(other.iter()))
                    })
            })
    }

    /// The cells that a row of the first state must have in the end.
    fn cells<'b>(&'b self, name: &str, row: &'b Row) -> impl Iterator<Item = &'b Value> {
        let change = match &self.right {
            Right::Change { table, place, keys, value, .. }
                if table == name && row.first().is_some_and(|key| keys.contains(key)) =>
            {
                Some((*place, value))
            }
            _ => None,
        };
        row.iter().enumerate().map(move |(at, cell)| match change {
            Some((place, value)) if place == at => value,
            _ => cell,
        })
    }
}

/// Whether two objects have the same entries, in any order.
fn same(a: &JsonValue, b: &JsonValue) -> bool {
    match (a, b) {
        (JsonValue::Object(a), JsonValue::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| other == value))
        }
        _ => a == b,
    }
}

fn fits(slots: &Slots, candidates: &[Selected<'_>], answer: &JsonValue) -> bool {
    let JsonValue::Array(objects) = answer else { return false };
    if objects.len() != slots.groups.len() {
        return false;
    }
    let mut chosen: Vec<(&Table, &Row)> = Vec::new();
    let mut left = candidates.iter();
    for (group, object) in slots.groups.iter().zip(objects) {
        let JsonValue::Object(object) = object else { return false };
        if object.len() != group.given.len() + group.slots.len() {
            return false;
        }
        if group.given.iter().any(|(name, text)| object.get(name).and_then(JsonValue::as_str) != Some(text)) {
            return false;
        }
        for slot in &group.slots {
            let (Some((of, rows)), Some(given)) = (left.next(), object.get(&slot.name)) else { return false };
            let row = rows.iter().find(|row| row.first().is_some_and(|key| key.to_json() == *given));
            let Some(row) = row else { return false };
            chosen.push((of, row));
        }
    }
    slots.constraints.iter().all(|constraint| is_met(constraint, &chosen))
}

fn is_met(constraint: &Constraint, chosen: &[(&Table, &Row)]) -> bool {
    let value = |slot: &usize, column: &str| -> Option<Value> {
        let (of, row) = chosen.get(*slot)?;
        cell(of, row, column).ok().cloned()
    };
    let values = |slots: &[usize], column: &str| -> Vec<Value> {
        slots.iter().map(|slot| value(slot, column).unwrap_or(Value::Null)).collect()
    };
    let meets = |cell: &Value, comparison: &Comparison, bound: &Value| {
        order(cell, bound).is_some_and(|order| compares(*comparison, order))
    };
    match constraint {
        Constraint::Link { slot, column, other } => {
            let key = chosen.get(*other).and_then(|(_, row)| row.first().cloned());
            key.is_some() && value(slot, column) == key
        }
        Constraint::Distinct { slots, column } => {
            let values = values(slots, column);
            (0..values.len()).all(|a| (0..a).all(|b| values.get(a) != values.get(b)))
        }
        Constraint::Each { slots, column, comparison, value } => {
            values(slots, column).iter().all(|cell| meets(cell, comparison, value))
        }
        Constraint::Some { slots, column, comparison, value } => {
            values(slots, column).iter().any(|cell| meets(cell, comparison, value))
        }
        Constraint::Sum { slots, column, comparison, value } => {
            let sum: i128 = values(slots, column).iter().filter_map(Value::number).map(i128::from).sum();
            compares(*comparison, sum.cmp(&i128::from(*value)))
        }
        Constraint::When { slot, column, least, most, then } => {
            let number = value(slot, column).and_then(|value| value.number());
            let applies = number.is_some_and(|number| *least <= number && number <= *most);
            !applies || then.iter().all(|constraint| is_met(constraint, chosen))
        }
    }
}
