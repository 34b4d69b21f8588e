//! Environments of the general category: tables with tools over them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue, json};

use super::category::{Category, Opened, TaskGoal};
use super::error::{Result, SynthesisError};
use super::program::{Goal, python};
use super::record::{TableRecord, TaskRecord};
use crate::chat::Tool;
use crate::environment::Environment;
use crate::environment::tables::{Database, TableError, TableTool, TableVerifier, TableWorld};

const TOOLS: &str = include_str!("export/tools.py");

/// Tables and tools, as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// The tables.
    pub tables: Vec<TableRecord>,
    /// The tools.
    pub tools: Vec<TableTool>,
}

impl Tables {
    /// The first state.
    ///
    /// # Errors
    /// The tables are refused.
    pub fn database(&self) -> std::result::Result<Database, TableError> {
        let tables: std::result::Result<Vec<_>, _> = self.tables.iter().map(TableRecord::table).collect();
        Database::new(tables?)
    }

    /// The first state with the tools.
    pub(super) fn open(&self) -> Result<OpenTables> {
        Ok(OpenTables { database: self.database()?, tools: self.tools.clone().into() })
    }
}

/// The first state with the tools.
pub(super) struct OpenTables {
    database: Database,
    tools: Arc<[TableTool]>,
}

impl OpenTables {
    fn goal<'a>(&self, task: &'a TaskRecord) -> Result<&'a Goal> {
        task.goal.general().ok_or_else(|| task.misplaced(Category::General))
    }
}

impl TaskGoal {
    /// The program of a task of the general category.
    pub fn general(&self) -> Option<&Goal> {
        match self {
            Self::General(goal) => Some(goal),
        }
    }
}

impl Opened for OpenTables {
    fn tools(&self) -> Vec<Tool> {
        self.tools.iter().map(|tool| tool.definition(&self.database)).collect()
    }

    fn world(&self, task: &TaskRecord) -> Result<Box<dyn Environment>> {
        let goal = Arc::new(self.goal(task)?.clone());
        let world = TableWorld::new(&task.id, &task.prompt, self.database.clone(), Arc::clone(&self.tools), goal);
        Ok(Box::new(world.with_domain(Category::General.name())))
    }

    fn problems(&self, task: &TaskRecord, answer: Option<&str>) -> Result<Vec<String>> {
        Ok(self.goal(task)?.problems(&self.database, answer, &self.database))
    }

    fn python(&self, task: &TaskRecord) -> Result<Vec<(&'static str, String)>> {
        let goal = self.goal(task)?;
        let print = |problem: String| SynthesisError::Print { task: task.id.clone(), problem };
        let specs = json!(json!(*self.tools).to_string());
        let tools = format!(
            "import copy\nimport json\nfrom datetime import date, timedelta\n\nTOOLS = json.loads(\n    {specs}\n)\n\n\n\
             {TOOLS}"
        );
        Ok(vec![
            ("environment.json", format!("{:#}\n", environment_json(&self.database))),
            ("tools.py", tools),
            ("solution.py", python::solution(goal, &self.tools, &self.database).map_err(print)?),
            ("verify.py", python::verifier(goal, &self.database).map_err(print)?),
        ])
    }
}

/// The tables, their keys and what their columns refer to.
fn environment_json(database: &Database) -> JsonValue {
    let (mut tables, mut keys, mut references) = (Map::new(), Map::new(), Map::new());
    for table in database.tables() {
        let columns: Vec<usize> = (0..table.columns().len()).collect();
        tables.insert(table.name().to_string(), table.rows().iter().map(|row| table.row_json(row, &columns)).collect());
        keys.insert(table.name().to_string(), json!(table.key().name));
        for column in table.columns() {
            if let Some(target) = &column.references {
                references.insert(format!("{}.{}", table.name(), column.name), json!(target));
            }
        }
    }
    json!({"tables": tables, "keys": keys, "references": references})
}
