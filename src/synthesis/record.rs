//! What is written to files: environments, tasks, and what was rejected.
//!
//! What only one category has stands in [`Content`] and [`TaskGoal`].

use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;

use super::category::{Category, Content, TaskGoal};
use super::split::Split;
use crate::environment::tables::{Column, Table, TableError, Value, hash};

/// The version of the format.
pub const SCHEMA_VERSION: u32 = 1;

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRecord {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The hash of all that follows.
    pub id: String,
    /// Its place among those of its category.
    pub index: u64,
    /// The category.
    pub category: Category,
    /// Its family.
    pub family: String,
    /// How things are named in it.
    pub style: String,
    /// Its split.
    pub split: Split,
    /// The hash of its form without its data: of tables, columns, kinds and references without rows.
    pub schema_hash: String,
    /// What it holds.
    pub content: Content,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRecord {
    /// Its name.
    pub name: String,
    /// Its columns; the first is the key.
    pub columns: Vec<Column>,
    /// Its rows, in JSON.
    pub rows: Vec<Vec<JsonValue>>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRecord {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The hash of environment, prompt and goal.
    pub id: String,
    /// Its environment.
    pub environment: String,
    /// The task that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The category.
    pub category: Category,
    /// The family of its environment.
    pub family: String,
    /// Its split.
    pub split: Split,
    /// How many times it was made harder, plus 1.
    pub level: u8,
    /// What it asks, for the agent.
    pub prompt: String,
    /// What it asks, in the form that is verifier and solution.
    pub goal: TaskGoal,
    /// How hard it is.
    pub difficulty: Difficulty,
    /// How its verifier was tried.
    pub quality: Quality,
    /// The hash of the goal's form, names and values masked.
    pub shape: String,
    /// Tools that the environment got for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augmented: Vec<String>,
    /// The calls of the solution.
    pub trace: Vec<CallRecord>,
    /// A right answer.
    pub gold: Attempt,
    /// Other right answers.
    pub alternatives: Vec<Attempt>,
    /// Wrong answers.
    pub wrong: Vec<Attempt>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRecord {
    /// The tool.
    pub tool: String,
    /// The arguments.
    pub arguments: JsonValue,
}

/// An answer and the calls that change the state before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The submitted text.
    pub answer: String,
    /// The calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallRecord>,
}

/// What the gates counted when they tried a task's verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Random answers of the right form.
    pub random: usize,
    /// Those of them that passed.
    pub random_passed: usize,
    /// Right answers and calls with something changed.
    pub mutants: usize,
    /// Mutants that an independent judge finds right, and that pass.
    pub equivalent: usize,
    /// Wrong mutants that fail, as they should.
    pub killed: usize,
}

impl Quality {
    /// Returns the number of mutants that are wrong.
    pub fn wrong(&self) -> usize {
        self.mutants.saturating_sub(self.equivalent)
    }

    /// Returns the share of wrong mutants that fail, 1 if there is none.
    pub fn mutation_score(&self) -> f64 {
        if self.wrong() == 0 { 1.0 } else { self.killed as f64 / self.wrong() as f64 }
    }

    /// Returns whether at least 95 of 100 wrong mutants fail.
    pub fn is_enough(&self) -> bool {
        self.killed * 100 >= self.wrong() * 95
    }
}

/// How hard a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difficulty {
    /// Calls of the solution.
    pub calls: usize,
    /// Conditions.
    pub conditions: usize,
    /// Steps from one table, or document, to another.
    pub hops: usize,
    /// Slots to fill.
    pub slots: usize,
    /// Rows, documents or files of the environment.
    pub rows: usize,
    /// The logarithm to base 2 of the number of answers of the right form, rounded down.
    pub search_bits: u32,
}

/// A task or a step of one that a gate rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    /// The category.
    pub category: Category,
    /// The environment's place among those of the category.
    pub environment: u64,
    /// The family.
    pub family: String,
    /// The level.
    pub level: u8,
    /// The gate.
    pub gate: String,
    /// Why.
    pub reason: String,
    /// The prompt.
    pub prompt: String,
}

impl TableRecord {
    /// A table as it is written.
    pub fn new(table: &Table) -> Self {
        let row = |row: &crate::environment::tables::Row| row.iter().map(Value::to_json).collect();
        Self {
            name: table.name().to_string(),
            columns: table.columns().to_vec(),
            rows: table.rows().iter().map(row).collect(),
        }
    }

    /// The table.
    ///
    /// # Errors
    /// A cell is of another kind than its column, or [`Table::new`] refuses the table.
    pub fn table(&self) -> Result<Table, TableError> {
        let cells = |row: &Vec<JsonValue>| {
            let cells = row.iter().zip(&self.columns).map(|(cell, column)| Value::from_json(column.kind, cell));
            let cells: Vec<Value> = cells.collect::<Result<_, _>>()?;
            if cells.len() == row.len() { Ok(cells) } else { Err("a row has too many cells".to_string()) }
        };
        let refused = |problem: String| TableError { table: self.name.clone(), problem };
        let rows = self.rows.iter().map(cells).collect::<Result<Vec<_>, _>>().map_err(refused)?;
        Table::new(self.name.as_str(), self.columns.clone(), rows)
    }
}

impl EnvironmentRecord {
    /// The hash that is the id.
    pub fn content_id(&self) -> String {
        content_id(&Self { id: String::new(), index: 0, ..self.clone() })
    }
}

impl TaskRecord {
    /// The hash that is the id.
    pub fn content_id(&self) -> String {
        content_id(&(&self.environment, &self.prompt, &self.goal))
    }
}

/// A short hash of a record as it is written.
pub fn content_id(record: &impl Serialize) -> String {
    let mut text = hash(serde_json::to_string(record).unwrap_or_default().as_bytes());
    text.truncate(24);
    text
}
