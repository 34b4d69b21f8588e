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
    /// The slots that it looks at: it can be decided once all of them are filled.
    pub fn slots(&self) -> BTreeSet<usize> {
        let mut looks = Vec::new();
        self.looks(&mut looks);
        let other = if let Self::Link { other, .. } = self { Some(*other) } else { None };
        looks.into_iter().map(|(slot, _)| slot).chain(other).collect()
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

    /// The constraints in parts that can be decided as early as possible: what holds for each slot alone, and what is
    /// distinct in pairs. A search that saw whether values are distinct at the last slot alone would not end.
    pub fn checks(&self) -> Vec<Constraint> {
        let mut checks = Vec::new();
        for constraint in &self.constraints {
            match constraint {
                Constraint::Distinct { slots, column } => {
                    for (at, first) in slots.iter().enumerate() {
                        let pairs = slots[at + 1..].iter().map(|second| vec![*first, *second]);
                        checks.extend(pairs.map(|slots| Constraint::Distinct { slots, column: column.clone() }));
                    }
                }
                Constraint::Each { slots, column, comparison, value } => {
                    checks.extend(slots.iter().map(|slot| Constraint::Each {
                        slots: vec![*slot],
                        column: column.clone(),
                        comparison: *comparison,
                        value: value.clone(),
                    }));
                }
                other => checks.push(other.clone()),
            }
        }
        checks
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

    /// Whether a constraint holds for rows by slot. Null compares with nothing, is no part of a sum and lies in no
    /// range.
    fn holds(&self, constraint: &Constraint, rows: &[Option<&Row>]) -> bool {
        let row = |slot: usize| rows.get(slot).copied().flatten();
        let cell = |slot: usize, column: &str| -> Option<&Value> {
            let at = self.places.get(slot)?.get(column)?;
            row(slot).map(|row| &row[*at])
        };
        let known = |slot: usize, column: &str| cell(slot, column).filter(|cell| **cell != Value::Null);
        match constraint {
            Constraint::Link { slot, column, other } => {
                cell(*slot, column).is_some_and(|value| row(*other).is_some_and(|row| row[0] == *value))
            }
            Constraint::Distinct { slots, column } => {
                let values: BTreeSet<Option<&Value>> = slots.iter().map(|slot| cell(*slot, column)).collect();
                values.len() == slots.len()
            }
            Constraint::Each { slots, column, comparison, value } => {
                slots.iter().all(|slot| known(*slot, column).is_some_and(|cell| comparison.holds(cell, value)))
            }
            Constraint::Some { slots, column, comparison, value } => {
                slots.iter().any(|slot| known(*slot, column).is_some_and(|cell| comparison.holds(cell, value)))
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

    /// The slots in the order of a search: always the one with the fewest rows left to try. A slot that is linked to an
    /// earlier one has as many as there are for one key, on average.
    fn order(&self, pools: &[Vec<&Row>], checks: &[Constraint]) -> Vec<usize> {
        // For each slot and the one that it is linked to, how many rows there are for one key.
        let linked: Vec<(usize, usize, usize)> = checks
            .iter()
            .filter_map(|constraint| {
                let Constraint::Link { slot, column, other } = constraint else { return None };
                let place = *self.places.get(*slot)?.get(column)?;
                let keys: BTreeSet<&Value> = pools.get(*slot)?.iter().map(|row| &row[place]).collect();
                Some((*slot, *other, pools[*slot].len() / keys.len().max(1)))
            })
            .collect();
        let mut left: BTreeSet<usize> = (0..pools.len()).collect();
        let mut order = Vec::new();
        let cost = |slot: usize, left: &BTreeSet<usize>| {
            let links = linked.iter().filter(|(from, to, _)| *from == slot && !left.contains(to));
            links.map(|(.., rows)| *rows).chain([pools[slot].len()]).min()
        };
        while let Some(slot) = left.iter().copied().min_by_key(|slot| (cost(*slot, &left), *slot)) {
            left.remove(&slot);
            order.push(slot);
        }
        order
    }

    /// The keys of a solution, the same for the same rows: the first one of a search by the order of the keys, or by
    /// its reverse.
    ///
    /// # Errors
    /// There is none, or none was found in time.
    pub fn solve(&self, backwards: bool) -> Result<Vec<Value>, String> {
        let count = self.candidates.len();
        let checks = self.slots.checks();
        let mut filled: Vec<Option<&Row>> = vec![None; count];
        let mut pools: Vec<Vec<&Row>> = Vec::new();
        for (slot, rows) in self.candidates.iter().enumerate() {
            let own: Vec<&Constraint> = checks.iter().filter(|check| check.slots() == BTreeSet::from([slot])).collect();
            let mut pool: Vec<&Row> = Vec::new();
            for row in rows.values() {
                filled[slot] = Some(row);
                if own.iter().all(|check| self.holds(check, &filled)) {
                    pool.push(row);
                }
            }
            filled[slot] = None;
            if backwards {
                pool.reverse();
            }
            pools.push(pool);
        }
        let order = self.order(&pools, &checks);
        let mut due: Vec<Vec<&Constraint>> = vec![Vec::new(); count];
        for check in &checks {
            let slots = check.slots();
            if let Some(at) = order.iter().rposition(|slot| slots.contains(slot)) {
                due[at].push(check);
            }
        }
        // Rows by the key that they refer to, where a slot is linked to an earlier one: others can't fit.
        let linked: Vec<Option<(usize, RowsByKey<'_>)>> = (0..count)
            .map(|at| {
                let (column, other) = due[at].iter().find_map(|check| match check {
                    Constraint::Link { slot, column, other } if *slot == order[at] && slot != other => {
                        Some((column, *other))
                    }
                    _ => None,
                })?;
                let place = *self.places[order[at]].get(column)?;
                let mut rows = RowsByKey::new();
                pools[order[at]].iter().for_each(|row| rows.entry(&row[place]).or_default().push(row));
                Some((other, rows))
            })
            .collect();
        let mut next = vec![0usize; count];
        let mut at = 0;
        for _ in 0..MOST_STEPS {
            let Some(slot) = order.get(at).copied() else {
                return Ok(filled.iter().flatten().map(|row| row[0].clone()).collect());
            };
            let rows = match &linked[at] {
                Some((other, rows)) => filled[*other].and_then(|row| rows.get(&row[0])).map_or(&[][..], Vec::as_slice),
                None => &pools[slot],
            };
            if let Some(row) = rows.get(next[at]) {
                next[at] += 1;
                filled[slot] = Some(row);
                if due[at].iter().all(|check| self.holds(check, &filled)) {
                    at += 1;
                } else {
                    filled[slot] = None;
                }
            } else {
                next[at] = 0;
                let Some(before) = at.checked_sub(1) else { return Err("no choice fits".to_string()) };
                at = before;
                filled[order[at]] = None;
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
                rows.push(Some(row));
            }
        }
        let broken = self.slots.constraints.iter().find(|constraint| !self.holds(constraint, &rows))?;
        Some(format!("a condition does not hold: {broken:?}"))
    }
}
