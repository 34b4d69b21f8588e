//! How a solution gets rows: through tools alone.

use std::collections::BTreeSet;

use serde_json::{Map, Value as JsonValue};

use super::goal::{Expected, Goal};
use super::query::Source;
use crate::environment::tables::{Action, Database, Role, Row, TableTool, Value};

/// The calls that get rows of a table.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The tool that lists rows.
    pub list: &'a TableTool,
    /// What its calls are made for.
    pub by: By<'a>,
    /// The tool that tells more of a row, where the list tells too little.
    pub detail: Option<&'a TableTool>,
}

/// What a list is made for.
#[derive(Debug)]
pub enum By<'a> {
    /// One list has all rows.
    All,
    /// The values that the query gives for a column, by their place among them.
    Given(String, usize),
    /// Every key of the table that a column refers to.
    Parent(String, String, Box<Plan<'a>>),
}

/// The columns of a list and whether it has pages.
pub fn listed(tool: &TableTool) -> Option<(&str, &[String], bool)> {
    match &tool.action {
        Action::List { table, columns, page_size } => Some((table, columns, page_size.is_some())),
        _ => None,
    }
}

/// The columns that a list is asked for.
fn conditions(tool: &TableTool) -> Vec<&str> {
    let column = |role: &'_ Role| matches!(role, Role::Where(_));
    let roles = tool.parameters.iter().map(|parameter| &parameter.role).filter(|role| column(role));
    roles.filter_map(|role| if let Role::Where(column) = role { Some(column.as_str()) } else { None }).collect()
}

/// Plans the calls for rows of a table with these columns. `given` are the columns whose values are known.
///
/// # Errors
/// The tools do not suffice.
pub fn plan<'a>(
    tools: &'a [TableTool],
    schema: &Database,
    table: &str,
    columns: &BTreeSet<String>,
    given: &[&str],
) -> Result<Plan<'a>, String> {
    plan_within(tools, schema, table, columns, given, 4)
}

fn plan_within<'a>(
    tools: &'a [TableTool],
    schema: &Database,
    table: &str,
    columns: &BTreeSet<String>,
    given: &[&str],
    depth: usize,
) -> Result<Plan<'a>, String> {
    let key = schema.table(table).ok_or_else(|| format!("there is no table {table}"))?.key().name.clone();
    let detail = tools.iter().find(|tool| match &tool.action {
        Action::Get { table: other } | Action::Infos { table: other } => other == table,
        _ => false,
    });
    let lists = || tools.iter().filter(|tool| listed(tool).is_some_and(|(other, ..)| other == table));
    // A list of the wanted columns saves a call for each row.
    let finish = |list: &'a TableTool, by: By<'a>| {
        let known = listed(list).map_or(&[][..], |(_, columns, _)| columns);
        let by_column = match &by {
            By::All => None,
            By::Given(column, _) | By::Parent(column, ..) => Some(column),
        };
        let covered = |column: &String| *column == key || known.contains(column) || Some(column) == by_column;
        let enough = known.contains(&key) && columns.iter().all(covered);
        match (enough, detail) {
            (true, _) => Some(Plan { list, by, detail: None }),
            (false, Some(detail)) if known.contains(&key) => Some(Plan { list, by, detail: Some(detail) }),
            _ => None,
        }
    };
    for (at, column) in given.iter().enumerate() {
        for list in lists().filter(|list| conditions(list) == [*column]) {
            if let Some(plan) = finish(list, By::Given((*column).to_string(), at)) {
                return Ok(plan);
            }
        }
    }
    if let Some(plan) = lists().filter(|list| conditions(list).is_empty()).find_map(|list| finish(list, By::All)) {
        return Ok(plan);
    }
    for list in lists() {
        let [column] = conditions(list)[..] else { continue };
        let place = schema.table(table).and_then(|table| table.columns().iter().find(|other| other.name == column));
        let Some(target) = place.and_then(|column| column.references.clone()) else { continue };
        // Rows that refer to nothing would be missed.
        if depth == 0 || target == table || place.is_some_and(|column| column.nullable) {
            continue;
        }
        let Ok(parent) = plan_within(tools, schema, &target, &BTreeSet::new(), &[], depth - 1) else { continue };
        if let Some(plan) = finish(list, By::Parent(column.to_string(), target, Box::new(parent))) {
            return Ok(plan);
        }
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    Err(format!("no tools give {} of {table}", columns.join(", ")))
}

/// Makes a call of a tool with its arguments.
pub type MakeCall<'a> = dyn FnMut(&TableTool, Map<String, JsonValue>) -> Result<JsonValue, String> + 'a;

/// Rows through tools. Of the tables only the columns are looked at.
pub struct ToolSource<'a> {
    /// The tools.
    pub tools: &'a [TableTool],
    /// The tables, for their columns.
    pub schema: &'a Database,
    /// Makes a call.
    pub call: &'a mut MakeCall<'a>,
}

impl ToolSource<'_> {
    fn run(
        &mut self,
        plan: &Plan<'_>,
        table: &str,
        columns: &BTreeSet<String>,
        only: &[(String, Vec<Value>)],
    ) -> Result<Vec<Row>, String> {
        let schema = self.schema.table(table).ok_or("no such table")?;
        let (_, known, paged) = listed(plan.list).ok_or("no list")?;
        let (column, values) = match &plan.by {
            By::All => (None, vec![Value::Null]),
            By::Given(column, at) => (Some(column), only[*at].1.clone()),
            By::Parent(column, target, parent) => {
                let keys = self.run(parent, target, &BTreeSet::new(), &[])?;
                (Some(column), keys.iter().map(|row| row[0].clone()).collect())
            }
        };
        let mut rows = Vec::new();
        for value in values {
            for item in self.list(plan.list, column.map(|column| (column.as_str(), &value)), paged)? {
                let mut cells = vec![Value::Null; schema.columns().len()];
                fill(schema, &mut cells, known, &item)?;
                if let Some(at) = column.and_then(|column| schema.place(column)) {
                    cells[at] = value.clone();
                }
                if let Some(detail) = plan.detail {
                    let more = self.detail(detail, &cells[0], columns)?;
                    let names: Vec<String> =
                        columns.iter().filter(|name| **name != schema.key().name).cloned().collect();
                    for name in &names {
                        fill(schema, &mut cells, std::slice::from_ref(name), &more[name.as_str()])?;
                    }
                }
                rows.push(cells.into());
            }
        }
        Ok(rows)
    }

    fn list(&mut self, tool: &TableTool, by: Option<(&str, &Value)>, paged: bool) -> Result<Vec<JsonValue>, String> {
        let mut items = Vec::new();
        for page in 1.. {
            let mut arguments = Map::new();
            for parameter in &tool.parameters {
                match (&parameter.role, by) {
                    (Role::Where(_), Some((_, value))) => arguments.insert(parameter.name.clone(), value.to_json()),
                    (Role::Page, _) if paged => arguments.insert(parameter.name.clone(), JsonValue::from(page)),
                    _ => None,
                };
            }
            match (self.call)(tool, arguments)? {
                JsonValue::Array(all) => return Ok(all),
                part => {
                    items.extend(part["items"].as_array().cloned().unwrap_or_default());
                    if part["pages"].as_i64().is_none_or(|pages| page >= pages) {
                        break;
                    }
                }
            }
        }
        Ok(items)
    }

    fn detail(&mut self, tool: &TableTool, key: &Value, columns: &BTreeSet<String>) -> Result<JsonValue, String> {
        let table = tool.action.table().and_then(|table| self.schema.table(table));
        let key_name = table.map(|table| table.key().name.clone()).unwrap_or_default();
        let names: Vec<&String> = columns.iter().filter(|name| **name != key_name).collect();
        let arguments = tool.parameters.iter().map(|parameter| {
            let value = if parameter.role == Role::Key {
                key.to_json()
            } else {
                JsonValue::from(names.clone().into_iter().cloned().collect::<Vec<String>>())
            };
            (parameter.name.clone(), value)
        });
        (self.call)(tool, arguments.collect())
    }
}

/// Fills cells from an item of a list: a value if the list has one column, an object if it has several.
fn fill(
    table: &crate::environment::tables::Table,
    cells: &mut [Value],
    columns: &[String],
    item: &JsonValue,
) -> Result<(), String> {
    for name in columns {
        let at = table.place(name).ok_or_else(|| format!("there is no column {name}"))?;
        let json = if columns.len() == 1 { item } else { &item[name.as_str()] };
        cells[at] = Value::from_json(table.columns()[at].kind, json)?;
    }
    Ok(())
}

impl Source for ToolSource<'_> {
    fn place(&self, table: &str, column: &str) -> Result<usize, String> {
        self.schema.place(table, column)
    }

    fn fetch(
        &mut self,
        table: &str,
        columns: &BTreeSet<String>,
        only: &[(String, Vec<Value>)],
    ) -> Result<Vec<Row>, String> {
        let given: Vec<&str> = only.iter().map(|(column, _)| column.as_str()).collect();
        let tools = self.tools;
        let plan = plan(tools, self.schema, table, columns, &given)?;
        self.run(&plan, table, columns, only)
    }
}

/// The tool that sets a column.
pub fn setter<'a>(tools: &'a [TableTool], table: &str, column: &str) -> Option<&'a TableTool> {
    tools
        .iter()
        .find(|tool| matches!(&tool.action, Action::Set { table: t, column: c, .. } if t == table && c == column))
}

/// Solves a task with its tools alone, the submission among the calls, and returns the answer.
///
/// # Errors
/// The tools do not suffice, a call failed, or there is no answer.
pub fn solve(
    goal: &Goal,
    tools: &[TableTool],
    schema: &Database,
    call: &mut MakeCall<'_>,
) -> Result<JsonValue, String> {
    let expected: Expected<'_> = goal.expected(&mut ToolSource { tools, schema, call: &mut *call })?;
    let answer = expected.answer(false)?;
    for wanted in expected.wanted() {
        let tool = setter(tools, &wanted.table, &wanted.column);
        let tool = tool.ok_or_else(|| format!("no tool sets {}.{}", wanted.table, wanted.column))?;
        let value = |role: &Role| if *role == Role::Key { wanted.key.to_json() } else { wanted.value.to_json() };
        let arguments = tool.parameters.iter().map(|p| (p.name.clone(), value(&p.role))).collect();
        call(tool, arguments)?;
    }
    let submit = tools.iter().find(|tool| tool.action == Action::Submit).ok_or("no tool takes the answer")?;
    let text = JsonValue::from(answer.to_string());
    call(submit, submit.parameters.iter().map(|p| (p.name.clone(), text.clone())).collect())?;
    Ok(answer)
}
