//! What a task asks for: an answer, a change, or both.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};

use super::query::{Comparison, Rows, Scalar, Source};
use super::slots::{Filling, Slots};
use crate::environment::tables::{Change, Database, TableVerifier, Value};

/// What a task asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Goal {
    /// One of the rows, as an object of columns by the names they have in the answer.
    Row {
        /// The rows.
        rows: Rows,
        /// Names and columns.
        fields: Vec<(String, String)>,
    },
    /// The keys of all rows, in any order, under one name.
    Keys {
        /// The rows.
        rows: Rows,
        /// The name.
        name: String,
    },
    /// Values over rows, by name.
    Figures {
        /// Names and values.
        figures: Vec<(String, Scalar)>,
    },
    /// Rows that fit together.
    Fit {
        /// The slots.
        slots: Slots,
    },
    /// A column of all rows set to a value; the answer is how many there are.
    Change {
        /// The rows.
        rows: Rows,
        /// The column.
        column: String,
        /// The value.
        value: Value,
        /// The count's name in the answer.
        name: String,
    },
    /// One of two goals, as a value compares with a number.
    Either {
        /// The value.
        scalar: Scalar,
        /// How it compares.
        comparison: Comparison,
        /// The number.
        number: i64,
        /// The goal where it does.
        then: Box<Goal>,
        /// The goal where it does not.
        otherwise: Box<Goal>,
    },
}

/// A cell that a task wants changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Value,
    /// The column.
    pub column: String,
    /// Its new value.
    pub value: Value,
}

/// The answers that are right in a state.
#[derive(Debug)]
pub enum Expected<'a> {
    /// Any of these objects.
    Any(Vec<Map<String, JsonValue>>),
    /// An object with one list of these, in any order.
    Keys(String, Vec<JsonValue>),
    /// Whatever fits.
    Fit(Filling<'a>),
    /// These changes and no others, and this object.
    Change(Vec<Wanted>, Map<String, JsonValue>),
}

impl Goal {
    /// The answers that are right.
    ///
    /// # Errors
    /// As [`Rows::find`].
    pub fn expected(&self, source: &mut dyn Source) -> Result<Expected<'_>, String> {
        Ok(match self {
            Self::Row { rows, fields } => {
                let columns: Vec<&str> = fields.iter().map(|(_, column)| column.as_str()).collect();
                let places = columns.iter().map(|column| source.place(&rows.table, column));
                let places = places.collect::<Result<Vec<_>, _>>()?;
                let found = rows.find(source, &columns)?;
                let object = |row: &crate::environment::tables::Row| {
                    fields.iter().zip(&places).map(|((name, _), at)| (name.clone(), row[*at].to_json())).collect()
                };
                Expected::Any(found.iter().map(object).collect())
            }
            Self::Keys { rows, name } => {
                let keys: BTreeSet<Value> = rows.find(source, &[])?.iter().map(|row| row[0].clone()).collect();
                Expected::Keys(name.clone(), keys.iter().map(Value::to_json).collect())
            }
            Self::Figures { figures } => {
                let mut object = Map::new();
                for (name, scalar) in figures {
                    object.insert(name.clone(), scalar.value(source)?.to_json());
                }
                Expected::Any(vec![object])
            }
            Self::Fit { slots } => Expected::Fit(slots.filling(source)?),
            Self::Change { rows, column, value, name } => {
                let keys: BTreeSet<Value> = rows.find(source, &[])?.iter().map(|row| row[0].clone()).collect();
                let answer = Map::from_iter([(name.clone(), JsonValue::from(keys.len()))]);
                let wanted = |key: Value| Wanted {
                    table: rows.table.clone(),
                    key,
                    column: column.clone(),
                    value: value.clone(),
                };
                Expected::Change(keys.into_iter().map(wanted).collect(), answer)
            }
            Self::Either { scalar, comparison, number, then, otherwise } => {
                let value = scalar.value(source)?.number().unwrap_or_default();
                let goal = if comparison.holds(&value, number) { then } else { otherwise };
                goal.expected(source)?
            }
        })
    }

    /// The goal that is left when the conditions are decided.
    ///
    /// # Errors
    /// As [`Rows::find`].
    pub fn decided(&self, source: &mut dyn Source) -> Result<&Self, String> {
        let Self::Either { scalar, comparison, number, then, otherwise } = self else { return Ok(self) };
        let value = scalar.value(source)?.number().unwrap_or_default();
        if comparison.holds(&value, number) { then.decided(source) } else { otherwise.decided(source) }
    }

    /// Calls `see` with every query of the goal, inner ones not among them.
    pub fn each_rows(&self, see: &mut dyn FnMut(&Rows)) {
        match self {
            Self::Row { rows, .. } | Self::Keys { rows, .. } | Self::Change { rows, .. } => see(rows),
            Self::Figures { figures } => figures.iter().for_each(|(_, scalar)| see(scalar.rows())),
            Self::Fit { slots } => slots.all().for_each(|slot| see(&slot.rows)),
            Self::Either { scalar, then, otherwise, .. } => {
                see(scalar.rows());
                then.each_rows(see);
                otherwise.each_rows(see);
            }
        }
    }

    /// Whether it changes the state.
    pub fn changes(&self) -> bool {
        match self {
            Self::Change { .. } => true,
            Self::Either { then, otherwise, .. } => then.changes() || otherwise.changes(),
            _ => false,
        }
    }

    /// Conditions, hops and slots.
    pub fn size(&self) -> (usize, usize, usize) {
        let (mut conditions, mut hops) = (0, 0);
        self.each_rows(&mut |rows| {
            conditions += rows.conditions();
            hops += rows.hops();
        });
        let slots = match self {
            Self::Fit { slots } => {
                conditions += slots.constraints.iter().map(super::slots::Constraint::conditions).sum::<usize>();
                slots.all().count()
            }
            Self::Either { then, otherwise, .. } => {
                conditions += 1;
                then.size().2.max(otherwise.size().2)
            }
            _ => 0,
        };
        (conditions, hops, slots)
    }
}

impl Expected<'_> {
    /// A right answer, by an order of the rows or its reverse.
    ///
    /// # Errors
    /// There is none.
    pub fn answer(&self, backwards: bool) -> Result<JsonValue, String> {
        match self {
            Self::Any(objects) => {
                let object = if backwards { objects.last() } else { objects.first() };
                object.cloned().map(JsonValue::Object).ok_or_else(|| "no row fits".to_string())
            }
            Self::Keys(name, keys) => {
                let mut keys = keys.clone();
                if backwards {
                    keys.reverse();
                }
                Ok(JsonValue::Object(Map::from_iter([(name.clone(), JsonValue::Array(keys))])))
            }
            Self::Fit(filling) => Ok(filling.slots().answer(&filling.solve(backwards)?)),
            Self::Change(_, answer) => Ok(JsonValue::Object(answer.clone())),
        }
    }

    /// The changes that are wanted.
    pub fn wanted(&self) -> &[Wanted] {
        match self {
            Self::Change(wanted, _) => wanted,
            _ => &[],
        }
    }

    /// What is wrong with an answer and the changes that came with it; nothing if all is right.
    pub fn problem(&self, answer: &JsonValue, changes: &[Change]) -> Option<String> {
        let wanted: BTreeMap<(&str, &Value, &str), &Value> = self
            .wanted()
            .iter()
            .map(|wanted| ((wanted.table.as_str(), &wanted.key, wanted.column.as_str()), &wanted.value))
            .collect();
        let other = changes.iter().find(|change| {
            wanted.get(&(change.table.as_str(), &change.key, change.column.as_str())) != Some(&&change.after)
        });
        if let Some(other) = other {
            return Some(format!("{} of {} was changed", other.column, other.key.to_json()));
        }
        if changes.len() < wanted.len() {
            return Some(format!("{} of {} changes were made", changes.len(), wanted.len()));
        }
        let right = match self {
            Self::Any(objects) => answer.as_object().is_some_and(|answer| objects.contains(answer)),
            Self::Keys(name, keys) => {
                let list = answer.as_object().filter(|object| object.len() == 1).and_then(|object| object.get(name));
                let list = list.and_then(JsonValue::as_array);
                list.is_some_and(|list| list.len() == keys.len() && keys.iter().all(|key| list.contains(key)))
            }
            Self::Fit(filling) => return filling.problem(answer),
            Self::Change(_, object) => answer.as_object() == Some(object),
        };
        (!right).then(|| format!("the answer {answer} is wrong"))
    }
}

impl TableVerifier for Goal {
    fn problems(&self, initial: &Database, answer: Option<&str>, state: &Database) -> Vec<String> {
        let Some(answer) = answer else { return vec!["no answer was submitted".to_string()] };
        let Ok(answer) = serde_json::from_str::<JsonValue>(answer) else {
            return vec!["the answer is no JSON".to_string()];
        };
        match self.expected(&mut &*initial) {
            Ok(expected) => expected.problem(&answer, &initial.changes(state)).into_iter().collect(),
            Err(problem) => vec![problem],
        }
    }
}
