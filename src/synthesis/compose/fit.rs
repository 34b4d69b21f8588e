//! Choices of several rows that have to fit together.

use super::phrase::{Subject, article, shown, singular};
use crate::environment::tables::Value;
use crate::synthesis::family::{Field, Measure, Sort};
use crate::synthesis::instance::Instance;
use crate::synthesis::program::{Comparison, Constraint, Group, Slot, Slots};
use crate::synthesis::seed::Stream;

/// So many rows of one table.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    subject: Subject,
    count: usize,
    /// Conditions beside being different, with their words.
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
enum Condition {
    /// No two share a column.
    Distinct(String, &'static str),
    /// The sum of a column is at most what the smallest rows allow and so many hundredths more.
    Budget(String, &'static Field, i64),
    /// One has at least a value.
    One(String, &'static Field, Value),
    /// If the first has at least a value, the last has at most another value of another column.
    When(String, &'static Field, Value, String, &'static Field, Value),
}

impl Fit {
    pub fn first(instance: &Instance, table: usize, stream: &mut Stream) -> Option<Self> {
        let mut fit = Self { subject: Subject::new(table), count: 2, conditions: Vec::new() };
        fit.conditions.push(fit.budget(instance, stream)?);
        Some(fit)
    }

    pub fn harder(&self, instance: &Instance, stream: &mut Stream) -> Option<Self> {
        let mut fit = self.clone();
        let has = |wanted: fn(&Condition) -> bool| fit.conditions.iter().any(wanted);
        let condition = match stream.below(5) {
            0 if fit.count < 5 => {
                fit.count += 1;
                return Some(fit);
            }
            1 if !has(|condition| matches!(condition, Condition::Distinct(..))) => fit.distinct(instance, stream)?,
            2 if !has(|condition| matches!(condition, Condition::One(..))) => fit.one(instance, stream)?,
            3 if fit.conditions.len() > 1 => fit.when(instance, stream)?,
            _ if fit.subject.pieces.len() < 2 => {
                let piece = if stream.chance(40) {
                    fit.subject.hop(instance, stream)
                } else {
                    fit.subject.simple(instance, stream)
                };
                fit.subject.pieces.push(piece?);
                return Some(fit);
            }
            _ => return None,
        };
        fit.conditions.push(condition);
        Some(fit)
    }

    fn numbers(&self, instance: &Instance) -> Vec<(String, &'static Field)> {
        let columns = self.subject.made(instance).columns.iter();
        columns
            .filter(|(_, field)| matches!(field.sort, Sort::Number { .. }))
            .map(|(column, field)| (column.clone(), *field))
            .collect()
    }

    fn value(&self, instance: &Instance, column: &str, stream: &mut Stream) -> Option<Value> {
        let table = instance.database.table(&self.subject.made(instance).name)?;
        let at = table.place(column)?;
        stream.pick(table.rows()).map(|row| row[at].clone()).filter(|value| *value != Value::Null)
    }

    fn budget(&self, instance: &Instance, stream: &mut Stream) -> Option<Condition> {
        let mut columns = self.numbers(instance);
        // What is not recorded has no sum.
        let made = self.subject.made(instance);
        columns.retain(|(column, field)| {
            !made.is_nullable(column)
                && matches!(field.sort, Sort::Number { measure: Measure::Sum(_) | Measure::Money(_), .. })
        });
        let (column, field) = stream.pick(&columns)?.clone();
        Some(Condition::Budget(column, field, stream.between(5, 45)))
    }

    fn distinct(&self, instance: &Instance, stream: &mut Stream) -> Option<Condition> {
        let made = self.subject.made(instance);
        let columns: Vec<_> = made
            .columns
            .iter()
            .filter(|(column, field)| {
                !made.is_nullable(column) && matches!(field.sort, Sort::Link { .. } | Sort::Choice { .. })
            })
            .collect();
        let (column, field) = *stream.pick(&columns)?;
        Some(Condition::Distinct(column.clone(), field.label))
    }

    fn one(&self, instance: &Instance, stream: &mut Stream) -> Option<Condition> {
        let (column, field) = stream.pick(&self.numbers(instance))?.clone();
        let value = self.value(instance, &column, stream)?;
        Some(Condition::One(column, field, value))
    }

    fn when(&self, instance: &Instance, stream: &mut Stream) -> Option<Condition> {
        let numbers = self.numbers(instance);
        let (column, field) = stream.pick(&numbers)?.clone();
        let (other, of) = stream.pick(&numbers)?.clone();
        if column == other {
            return None;
        }
        let (value, bound) = (self.value(instance, &column, stream)?, self.value(instance, &other, stream)?);
        Some(Condition::When(column, field, value, other, of, bound))
    }

    /// The largest sum that a budget allows, rounded so that one can say it.
    fn limit(&self, instance: &Instance, column: &str, of_100: i64) -> i64 {
        let rows = self.subject.rows(instance).find(&mut &instance.database, &[column]).unwrap_or_default();
        let at = instance.database.table(&self.subject.made(instance).name).and_then(|table| table.place(column));
        let mut numbers: Vec<i64> = rows.iter().filter_map(|row| row[at?].number()).collect();
        numbers.sort_unstable();
        let least: i64 = numbers.iter().take(self.count).sum();
        let limit = least.saturating_mul(100 + of_100) / 100;
        let step = match limit {
            0..100 => 1,
            100..1_000 => 10,
            _ => 100,
        };
        (limit + step - 1) / step * step
    }

    /// Whether every budget leaves something to be spent.
    pub fn is_sound(&self, instance: &Instance) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Budget(column, _, of_100) => self.limit(instance, column, *of_100) > 0,
            _ => true,
        })
    }

    pub fn slots(&self, instance: &Instance) -> Slots {
        let made = self.subject.made(instance);
        let slots: Vec<usize> = (0..self.count).collect();
        let mut constraints = vec![Constraint::Distinct { slots: slots.clone(), column: made.key.clone() }];
        for condition in &self.conditions {
            constraints.push(match condition.clone() {
                Condition::Distinct(column, _) => Constraint::Distinct { slots: slots.clone(), column },
                Condition::Budget(column, _, of_100) => Constraint::Sum {
                    value: self.limit(instance, &column, of_100),
                    slots: slots.clone(),
                    column,
                    comparison: Comparison::AtMost,
                },
                Condition::One(column, _, value) => {
                    Constraint::Some { slots: slots.clone(), column, comparison: Comparison::AtLeast, value }
                }
                Condition::When(column, _, value, other, _, bound) => Constraint::When {
                    slot: 0,
                    column,
                    least: value.number().unwrap_or_default(),
                    most: i64::from(i32::MAX),
                    then: vec![Constraint::Each {
                        slots: vec![self.count - 1],
                        column: other,
                        comparison: Comparison::AtMost,
                        value: bound,
                    }],
                },
            });
        }
        let slot = || Slot { name: made.key.clone(), rows: self.subject.rows(instance) };
        let groups = (0..self.count).map(|_| Group { given: Vec::new(), slots: vec![slot()] }).collect();
        Slots { groups, constraints }
    }

    pub fn question(&self, instance: &Instance, wording: usize) -> String {
        let entity = self.subject.made(instance).entity;
        let count = ["no", "one", "two", "three", "four", "five"].get(self.count).copied().unwrap_or("some");
        let rows = self.subject.words(instance, true);
        let mut text = match wording {
            0 => format!("Please choose {count} different {rows}."),
            1 => format!("I need a set of {count} different {rows}."),
            _ => format!("Could you pick {count} different {rows}?"),
        };
        text.push_str(&self.subject.rest(wording));
        for condition in &self.conditions {
            text.push(' ');
            text.push_str(&match condition {
                Condition::Distinct(_, label) => format!("No two of them may have the same {label}."),
                Condition::Budget(column, field, of_100) => {
                    let limit = self.limit(instance, column, *of_100);
                    let value = match field.sort {
                        Sort::Number { measure: Measure::Money(_), .. } => Value::Money(limit),
                        _ => Value::Integer(limit),
                    };
                    let label = field.label.trim_start_matches("number of ");
                    if label == field.label {
                        let unit = match field.sort {
                            Sort::Number { measure: Measure::Sum(unit), .. } => format!(" {unit}"),
                            _ => String::new(),
                        };
                        format!("Added up, their {label} must not exceed {}{unit}.", shown(field, &value))
                    } else {
                        format!("Together they may have at most {} {label}.", shown(field, &value))
                    }
                }
                Condition::One(_, field, value) => {
                    format!(
                        "At least one of them has to be {} {} {}.",
                        article(entity.noun),
                        entity.noun,
                        bound(field, 0, value)
                    )
                }
                Condition::When(_, field, value, _, of, most) => format!(
                    "If the first one on your list is {} {} {}, the last one has to be {} {} {}.",
                    article(entity.noun),
                    entity.noun,
                    bound(field, 0, value),
                    article(entity.noun),
                    entity.noun,
                    bound(of, 1, most)
                ),
            });
        }
        text
    }

    pub fn form(&self, instance: &Instance) -> String {
        let key = &self.subject.made(instance).key;
        let entries = vec![format!("{{\"{key}\": \"...\"}}"); self.count];
        format!("Submit a JSON list of {} objects: [{}].", self.count, entries.join(", "))
    }
}

/// The words for a smallest (0) or largest (1) value.
fn bound(field: &Field, which: usize, value: &Value) -> String {
    match &field.sort {
        Sort::Number { bounds, .. } | Sort::Date { bounds, .. } => {
            singular(&bounds[which].replace("{}", &shown(field, value)))
        }
        _ => String::new(),
    }
}
