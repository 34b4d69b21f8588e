//! Choices that have to fit together: one row for each slot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};

use super::query::{Comparison, Rows, Source};
use crate::environment::tables::{Row, Value};

/// Rows by the value of a column.
type RowsByKey<'a> = BTreeMap<&'a Value, Vec<&'a Row>>;

/// The most rows that are tried before a search gives up.
const MOST_STEPS: usize = 100_000;

/// Slots in groups, and what must hold between them. The answer is a list with an object for each group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// The groups.
    pub groups: Vec<Group>,
    /// What must hold; slots are counted from 0 over all groups.
    pub constraints: Vec<Constraint>,
}

/// Slots that stand in one object of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Entries of the object that the task gives.
    pub given: Vec<(String, String)>,
    /// Its slots.
    pub slots: Vec<Slot>,
}

/// A place for the key of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its name in the answer.
    pub name: String,
    /// The rows it may be.
    pub rows: Rows,
}

/// What must hold between slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Constraint {
    /// The slot's column is the other slot's key.
    Link {
        /// The slot.
        slot: usize,
        /// Its column.
        column: String,
        /// The other slot.
        other: usize,
    },
    /// No two have the same value in a column.
    Distinct {
        /// The slots.
        slots: Vec<usize>,
        /// The column.
        column: String,
    },
    /// All compare with a value.
    Each {
        /// The slots.
        slots: Vec<usize>,
        /// The column.
        column: String,
        /// How.
        comparison: Comparison,
        /// The value.
        value: Value,
    },
    /// At least one compares with a value.
    Some {
        /// The slots.
        slots: Vec<usize>,
        /// The column.
        column: String,
        /// How.
        comparison: Comparison,
        /// The value.
        value: Value,
    },
    /// The sum compares with a number.
    Sum {
        /// The slots.
        slots: Vec<usize>,
        /// The column.
        column: String,
        /// How.
        comparison: Comparison,
        /// The number.
        value: i64,
    },
    /// Where the slot's number lies in a range, more must hold.
    When {
        /// The slot.
        slot: usize,
        /// Its column.
        column: String,
        /// The smallest number of the range.
        least: i64,
        /// The largest number of the range.
        most: i64,
        /// What must hold.
        then: Vec<Constraint>,
    },
}

impl Constraint {
    /// The last slot that it looks at: it can be decided once that one is filled.
    pub fn last(&self) -> usize {
        match self {
            Self::Link { slot, other, .. } => *slot.max(other),
            Self::Distinct { slots, .. }
            | Self::Each { slots, .. }
            | Self::Some { slots, .. }
            | Self::Sum { slots, .. } => slots.iter().copied().max().unwrap_or_default(),
            Self::When { slot, then, .. } => then.iter().map(Self::last).max().unwrap_or_default().max(*slot),
        }
    }

    /// Every slot and column that it looks at.
    fn looks(&self, found: &mut Vec<(usize, String)>) {
        match self {
            Self::Link { slot, column, .. } => found.push((*slot, column.clone())),
            Self::Distinct { slots, column }
            | Self::Each { slots, column, .. }
            | Self::Some { slots, column, .. }
            | Self::Sum { slots, column, .. } => found.extend(slots.iter().map(|slot| (*slot, column.clone()))),
            Self::When { slot, column, then, .. } => {
                found.push((*slot, column.clone()));
                then.iter().for_each(|constraint| constraint.looks(found));
            }
        }
    }

    /// How many conditions it is.
    pub fn conditions(&self) -> usize {
        match self {
            Self::When { then, .. } => 1 + then.iter().map(Self::conditions).sum::<usize>(),
            _ => 1,
        }
    }
}

/// Slots with the rows that they may be.
#[derive(Debug)]
pub struct Filling<'a> {
    slots: &'a Slots,
    candidates: Vec<BTreeMap<Value, Row>>,
    /// Places of the columns of each slot, by name.
    places: Vec<BTreeMap<String, usize>>,
}

impl Slots {
    /// All slots, one group after another.
    pub fn all(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|group| &group.slots)
    }

    /// The columns that the constraints look at in a slot.
    pub fn columns(&self, slot: usize) -> BTreeSet<String> {
        let mut looks = Vec::new();
        self.constraints.iter().for_each(|constraint| constraint.looks(&mut looks));
        looks.into_iter().filter(|(other, _)| *other == slot).map(|(_, column)| column).collect()
    }

    /// The constraints by the slot that decides them. Whether values are distinct is decided at each of its slots: a
    /// search that saw it at the last one alone would not end.
    pub fn due(&self) -> Vec<Vec<Constraint>> {
        let mut due = vec![Vec::new(); self.all().count()];
        let mut push = |constraint: Constraint| {
            if let Some(due) = due.get_mut(constraint.last()) {
                due.push(constraint);
            }
        };
        for constraint in &self.constraints {
            match constraint {
                Constraint::Distinct { slots, column } => {
                    let mut slots = slots.clone();
                    slots.sort_unstable();
                    for count in 2..=slots.len() {
                        push(Constraint::Distinct { slots: slots[..count].to_vec(), column: column.clone() });
                    }
                }
                other => push(other.clone()),
            }
        }
        due
    }

    /// Gets the rows that the slots may be.
    ///
    /// # Errors
    /// As [`Rows::find`].
    pub fn filling(&self, source: &mut dyn Source) -> Result<Filling<'_>, String> {
        let mut candidates: Vec<BTreeMap<Value, Row>> = Vec::new();
        let mut places = Vec::new();
        let slots: Vec<&Slot> = self.all().collect();
        let columns: Vec<BTreeSet<String>> = (0..slots.len()).map(|at| self.columns(at)).collect();
        for (at, slot) in slots.iter().enumerate() {
            let place = |column: &String| Ok((column.clone(), source.place(&slot.rows.table, column)?));
            places.push(columns[at].iter().map(place).collect::<Result<BTreeMap<_, _>, String>>()?);
            // Slots of the same rows are asked for once.
            let same = (0..at).find(|other| slots[*other].rows == slot.rows && columns[*other] == columns[at]);
            candidates.push(match same {
                Some(same) => candidates[same].clone(),
                None => {
                    let names: Vec<&str> = columns[at].iter().map(String::as_str).collect();
                    let rows = slot.rows.find(source, &names)?;
                    rows.into_iter().map(|row| (row[0].clone(), row)).collect()
                }
            });
        }
        Ok(Filling { slots: self, candidates, places })
    }

    /// The answer's form: one object a group.
    pub fn answer(&self, keys: &[Value]) -> JsonValue {
        let mut keys = keys.iter();
        let groups = self.groups.iter().map(|group| {
            let given = group.given.iter().map(|(name, value)| (name.clone(), JsonValue::from(value.as_str())));
            let slots =
                group.slots.iter().map(|slot| (slot.name.clone(), keys.next().map_or(JsonValue::Null, Value::to_json)));
            JsonValue::Object(given.chain(slots.collect::<Vec<_>>()).collect::<Map<_, _>>())
        });
        groups.collect()
    }
}

impl<'a> Filling<'a> {
    /// The slots that are filled.
    pub fn slots(&self) -> &'a Slots {
        self.slots
    }

    /// The rows that a slot may be.
    pub fn candidates(&self, slot: usize) -> &BTreeMap<Value, Row> {
        &self.candidates[slot]
    }

    fn holds(&self, constraint: &Constraint, rows: &[&Row]) -> bool {
        let cell = |slot: usize, column: &str| -> Option<&Value> {
            let at = self.places.get(slot)?.get(column)?;
            rows.get(slot).map(|row| &row[*at])
        };
        match constraint {
            Constraint::Link { slot, column, other } => {
                cell(*slot, column).is_some_and(|value| rows.get(*other).is_some_and(|row| row[0] == *value))
            }
            Constraint::Distinct { slots, column } => {
                let values: BTreeSet<Option<&Value>> = slots.iter().map(|slot| cell(*slot, column)).collect();
                values.len() == slots.len()
            }
            Constraint::Each { slots, column, comparison, value } => {
                slots.iter().all(|slot| cell(*slot, column).is_some_and(|cell| comparison.holds(cell, value)))
            }
            Constraint::Some { slots, column, comparison, value } => {
                slots.iter().any(|slot| cell(*slot, column).is_some_and(|cell| comparison.holds(cell, value)))
            }
            Constraint::Sum { slots, column, comparison, value } => {
                let numbers = slots.iter().filter_map(|slot| cell(*slot, column).and_then(Value::number));
                comparison.holds(&numbers.fold(0i64, i64::saturating_add), value)
            }
            Constraint::When { slot, column, least, most, then } => {
                let number = cell(*slot, column).and_then(Value::number);
                !number.is_some_and(|number| (*least..=*most).contains(&number))
                    || then.iter().all(|constraint| self.holds(constraint, rows))
            }
        }
    }

    /// The keys of the first solution in the order of the keys, or, backwards, of the last.
    ///
    /// # Errors
    /// There is none, or none was found in time.
    pub fn solve(&self, backwards: bool) -> Result<Vec<Value>, String> {
        let count = self.candidates.len();
        let due = self.slots.due();
        let ordered: Vec<Vec<&Row>> = self
            .candidates
            .iter()
            .map(|rows| if backwards { rows.values().rev().collect() } else { rows.values().collect() })
            .collect();
        // Rows by the key that they refer to, where a slot is linked to an earlier one: others can't fit.
        let linked: Vec<Option<(usize, RowsByKey<'_>)>> = (0..count)
            .map(|at| {
                let (column, other) = due[at].iter().find_map(|constraint| match constraint {
                    Constraint::Link { slot, column, other } if *slot == at && *other < at => Some((column, *other)),
                    _ => None,
                })?;
                let place = *self.places[at].get(column)?;
                let mut rows = RowsByKey::new();
                ordered[at].iter().for_each(|row| rows.entry(&row[place]).or_default().push(row));
                Some((other, rows))
            })
            .collect();
        let mut next = vec![0usize; count];
        let mut chosen: Vec<&Row> = Vec::new();
        for _ in 0..MOST_STEPS {
            let at = chosen.len();
            if at == count {
                return Ok(chosen.iter().map(|row| row[0].clone()).collect());
            }
            let rows = match &linked[at] {
                Some((other, rows)) => rows.get(&chosen[*other][0]).map_or(&[][..], Vec::as_slice),
                None => &ordered[at],
            };
            if let Some(row) = rows.get(next[at]) {
                next[at] += 1;
                chosen.push(row);
                if !due[at].iter().all(|constraint| self.holds(constraint, &chosen)) {
                    chosen.pop();
                }
            } else {
                next[at] = 0;
                if chosen.pop().is_none() {
                    return Err("no choice fits".to_string());
                }
            }
        }
        Err("no choice was found in time".to_string())
    }

    /// What is wrong with an answer; nothing if it fits.
    pub fn problem(&self, answer: &JsonValue) -> Option<String> {
        let Some(groups) = answer.as_array().filter(|groups| groups.len() == self.slots.groups.len()) else {
            return Some(format!("expected a list of {} objects", self.slots.groups.len()));
        };
        let mut rows = Vec::new();
        for (group, object) in self.slots.groups.iter().zip(groups) {
            let entries = group.given.len() + group.slots.len();
            let Some(object) = object.as_object().filter(|object| object.len() == entries) else {
                return Some(format!("expected an object of {entries} entries, not {object}"));
            };
            for (name, value) in &group.given {
                if object.get(name).and_then(JsonValue::as_str) != Some(value) {
                    return Some(format!("{name} is not {value:?}"));
                }
            }
            for slot in &group.slots {
                let given = object.get(&slot.name).unwrap_or(&JsonValue::Null);
                let row = self.candidates[rows.len()].values().find(|row| row[0].to_json() == *given);
                let Some(row) = row else { return Some(format!("{}: {given} can't be chosen", slot.name)) };
                rows.push(row);
            }
        }
        let broken = self.slots.constraints.iter().find(|constraint| !self.holds(constraint, &rows))?;
        Some(format!("a condition does not hold: {broken:?}"))
    }
}
