//! The tools of an environment: a random part of what its tables allow, and what a task still needs.

use serde_json::json;

use super::family::Sort;
use super::instance::{Instance, Made};
use super::program::{Filter, Goal, Rows, plan, setter};
use super::seed::Stream;
use super::style::Verb;
use crate::environment::tables::{Action, Figure, Parameter, Role, TableTool};

/// Builds the tools of one environment.
struct Builder<'a> {
    instance: &'a Instance,
    tools: Vec<TableTool>,
}

impl Builder<'_> {
    fn push(&mut self, name: String, description: String, mut parameters: Vec<Parameter>, action: Action) {
        if self.tools.iter().chain(&self.instance.tools).any(|tool| tool.name == name) {
            return;
        }
        if self.instance.style.reversed {
            parameters.reverse();
        }
        self.tools.push(TableTool { name, description, parameters, action });
    }

    fn name(&self, verb: Verb, noun: &str, rest: &str) -> String {
        self.instance.style.tool(verb, noun, rest)
    }

    fn parameter(&self, name: &str, role: Role) -> Parameter {
        Parameter::new(self.instance.style.parameter(name), role)
    }

    fn key(&self, made: &Made) -> Parameter {
        Parameter::new(made.key.as_str(), Role::Key)
    }

    /// A list of all rows, or of those of a column's value.
    fn list(&mut self, made: &Made, columns: Vec<String>, by: Option<&str>, page_size: Option<usize>) {
        let mut parameters = Vec::new();
        let mut rest = String::new();
        let mut of = String::new();
        if let Some(column) = by {
            parameters.push(Parameter::new(column, Role::Where(column.to_string())));
            rest = format!("by_{}", snake(column));
            of = format!(" of one {column}");
        }
        let pages = page_size.map_or(String::new(), |size| {
            parameters.push(self.parameter("page", Role::Page));
            format!(" {size} on a page; pages count from 1.")
        });
        let description = format!("List all {}{of}: {}.{pages}", made.entity.plural, columns.join(", "));
        let name = self.name(Verb::List, made.entity.plural, &rest);
        self.push(name, description, parameters, Action::List { table: made.name.clone(), columns, page_size });
    }

    /// Everything about one row, whole or by keywords.
    fn detail(&mut self, made: &Made) {
        let table = self.instance.database.table(&made.name);
        let columns = table.map_or(&[][..], |table| table.columns()).iter().skip(1).map(|column| {
            match (&column.unit, column.nullable) {
                (Some(unit), true) => format!("{} ({unit}; null if unknown)", column.name),
                (Some(unit), false) => format!("{} ({unit})", column.name),
                (None, true) => format!("{} (null if unknown)", column.name),
                (None, false) => column.name.clone(),
            }
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let (noun, key) = (made.entity.noun, self.key(made));
        let table = made.name.clone();
        if self.instance.style.keywords {
            let description = format!("Those things about a {noun} that the keywords name: {columns}.");
            let keywords = self.parameter("info_keywords", Role::Keywords);
            let name = self.name(Verb::Get, "infos", &format!("by_{noun}"));
            self.push(name, description, vec![keywords, key], Action::Infos { table });
        } else {
            let description = format!("Everything about one {noun}: {columns}.");
            self.push(self.name(Verb::Get, noun, ""), description, vec![key], Action::Get { table });
        }
    }

    fn setter(&mut self, made: &Made, column: &str, sort: &Sort) {
        let Sort::Status { values, change, .. } = sort else { return };
        // Every state but the one that has to be reached first leads there, or nowhere.
        let before: Vec<_> = values.iter().filter(|value| **value != change.1).map(|value| json!(value)).collect();
        let after: Vec<_> = values.iter().map(|value| json!(value)).collect();
        let description = format!(
            "Set the {column} of one {}. One that is already {:?} can't be changed any more.",
            made.entity.noun, change.1
        );
        let parameters = vec![self.key(made), self.parameter("new_value", Role::Value)];
        let name = self.name(Verb::Set, made.entity.noun, &snake(column));
        let action = Action::Set { table: made.name.clone(), column: column.to_string(), before, after };
        self.push(name, description, parameters, action);
    }

    /// Tools that no solution needs, but that an agent may find handy.
    fn handy(&mut self, made: &Made, stream: &mut Stream) {
        let key = made.key.clone();
        for (column, field) in &made.columns {
            let table = made.name.clone();
            let (name, plural, noun) = (snake(column), made.entity.plural, made.entity.noun);
            match &field.sort {
                Sort::Number { .. } | Sort::Date { .. } if stream.chance(25) => {
                    let parameters =
                        vec![self.parameter("at_least", Role::Least), self.parameter("at_most", Role::Most)];
                    let description = format!("The {plural} whose {column} lies in a range, up to 50 of them.");
                    let action =
                        Action::Range { table, column: column.clone(), columns: vec![key.clone(), column.clone()] };
                    self.push(self.name(Verb::Range, plural, &format!("by_{name}")), description, parameters, action);
                }
                Sort::Link { .. } if stream.chance(30) => {
                    let description = format!("The {column} of one {noun}.");
                    let action = Action::Field { table, column: column.clone() };
                    self.push(
                        self.name(Verb::Get, &name, &format!("of_{noun}")),
                        description,
                        vec![self.key(made)],
                        action,
                    );
                }
                Sort::Choice { .. } if !made.is_nullable(column) && stream.chance(25) => {
                    let parameters = vec![Parameter::new(column.as_str(), Role::Where(column.clone()))];
                    let description = format!("How many {plural} there are of one {column}.");
                    let action = Action::Aggregate { table, column: column.clone(), figure: Figure::Count };
                    self.push(self.name(Verb::Figure, plural, &format!("per_{name}")), description, parameters, action);
                }
                _ => {}
            }
        }
        if stream.chance(30) {
            let description = format!("The {} whose name holds a text.", made.entity.plural);
            let action = Action::Search { table: made.name.clone(), column: key.clone(), columns: vec![key] };
            let parameters = vec![self.parameter("text", Role::Text)];
            self.push(self.name(Verb::Search, made.entity.plural, ""), description, parameters, action);
        }
    }
}

/// The snake-case form of a column's name, for the names of tools.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Tools for an environment. They need not suffice for a task: [`augment`] adds what is missing.
pub fn draw(instance: &Instance, stream: &mut Stream) -> Vec<TableTool> {
    let mut builder = Builder { instance, tools: Vec::new() };
    for made in &instance.tables {
        let page_size = instance.style.page_size.filter(|_| stream.chance(70));
        if stream.chance(80) {
            let mut columns = vec![made.key.clone()];
            columns.extend(made.columns.iter().filter(|_| stream.chance(20)).map(|(name, _)| name.clone()));
            builder.list(made, columns, None, page_size);
        }
        let links =
            made.columns.iter().filter(|(_, field)| matches!(field.sort, Sort::Link { .. } | Sort::Choice { .. }));
        for (column, _) in links.filter(|_| stream.chance(45)) {
            builder.list(made, vec![made.key.clone()], Some(column), None);
        }
        if stream.chance(90) {
            builder.detail(made);
        }
        for (column, field) in &made.columns {
            builder.setter(made, column, &field.sort);
        }
        builder.handy(made, stream);
    }
    if stream.chance(50) {
        let parameters = vec![builder.parameter("start", Role::From), builder.parameter("end", Role::To)];
        let name = instance.style.parameter("days_between");
        builder.push(name, "The number of days from one date to another.".into(), parameters, Action::DaysBetween);
    }
    if stream.chance(50) {
        let parameters = vec![builder.parameter("start", Role::From), builder.parameter("days", Role::Amount)];
        let name = instance.style.parameter("add_days");
        builder.push(name, "The date a number of days after another.".into(), parameters, Action::AddDays);
    }
    if stream.chance(40) {
        let text = stream.word(&["Nothing new today.", "The office closes at six.", "Backups run at night."]);
        let action = Action::Notice { text: text.to_string() };
        builder.push(instance.style.parameter("latest_notice"), "The latest notice.".into(), Vec::new(), action);
    }
    stream.shuffle(&mut builder.tools);
    let answer = vec![Parameter::new("answer_text", Role::Answer)];
    builder.push("submit_result".into(), "Submit the result, as JSON text.".into(), answer, Action::Submit);
    builder.tools
}

/// The tools that a goal still needs.
///
/// # Errors
/// No tools of this kind would suffice.
pub fn augment(instance: &Instance, goal: &Goal) -> Result<Vec<TableTool>, String> {
    let mut tables = Vec::new();
    goal.each_rows(&mut |rows| visit(rows, &mut tables));
    let mut added: Vec<TableTool> = Vec::new();
    for made in instance.tables.iter().filter(|made| tables.contains(&made.name)) {
        let tools: Vec<TableTool> = instance.tools.iter().chain(&added).cloned().collect();
        let columns = made.columns.iter().map(|(name, _)| name.clone()).collect();
        if plan(&tools, &instance.database, &made.name, &columns, &[]).is_ok() {
            continue;
        }
        let mut builder = Builder { instance, tools: Vec::new() };
        let none = std::collections::BTreeSet::new();
        if plan(&tools, &instance.database, &made.name, &none, &[]).is_err() {
            builder.list(made, vec![made.key.clone()], None, instance.style.page_size);
        }
        builder.detail(made);
        added.extend(builder.tools);
        let tools: Vec<TableTool> = instance.tools.iter().chain(&added).cloned().collect();
        plan(&tools, &instance.database, &made.name, &columns, &[])?;
    }
    missing_setter(goal, instance)?;
    Ok(added)
}

fn missing_setter(goal: &Goal, instance: &Instance) -> Result<(), String> {
    match goal {
        Goal::Change { rows, column, .. } if setter(&instance.tools, &rows.table, column).is_none() => {
            Err(format!("no tool sets {column}"))
        }
        Goal::Either { then, otherwise, .. } => {
            missing_setter(then, instance)?;
            missing_setter(otherwise, instance)
        }
        _ => Ok(()),
    }
}

fn visit(rows: &Rows, tables: &mut Vec<String>) {
    tables.push(rows.table.clone());
    for filter in &rows.filters {
        match filter {
            Filter::Compare { .. } | Filter::Missing { .. } => {}
            Filter::Linked { rows, .. } | Filter::Has { rows, .. } | Filter::Lacks { rows, .. } => visit(rows, tables),
        }
    }
}
