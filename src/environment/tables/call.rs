//! Carries out calls of tools over tables.

use serde_json::{Map, Value as JsonValue, json};

use super::action::{Action, Figure, Role, TableTool};
use super::table::{Database, Row, Table};
use super::value::{Date, Kind, Value};

/// The most rows that a search or a range returns.
const MOST_ROWS: usize = 50;

impl TableTool {
    /// Carries out a call. A submitted answer is returned as it came; keeping it is the world's task.
    ///
    /// # Errors
    /// A text for the model that says what is wrong with the call.
    pub fn call(&self, database: &mut Database, arguments: &Map<String, JsonValue>) -> Result<JsonValue, String> {
        if let Some(name) = arguments.keys().find(|name| self.parameters.iter().all(|known| known.name != **name)) {
            let known: Vec<&str> = self.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
            return Err(format!("{} has no parameter {name:?}; it has {}", self.name, known.join(", ")));
        }
        for parameter in &self.parameters {
            if !Self::optional(&parameter.role) && !arguments.contains_key(&parameter.name) {
                return Err(format!("{} needs the parameter {:?}", self.name, parameter.name));
            }
        }
        let call = Call { tool: self, arguments };
        match &self.action {
            Action::List { columns, page_size, .. } => {
                let table = call.table(database)?;
                let rows = call.selected(database, table)?;
                call.page(table, &rows, columns, *page_size)
            }
            Action::Range { column, columns, .. } => {
                let table = call.table(database)?;
                let kind = self.kind(database, column);
                let (least, most) = (call.optional(&Role::Least, kind)?, call.optional(&Role::Most, kind)?);
                let at = call.place(table, column)?;
                let inside = |row: &&Row| {
                    row[at] != Value::Null
                        && least.as_ref().is_none_or(|least| row[at] >= *least)
                        && most.as_ref().is_none_or(|most| row[at] <= *most)
                };
                call.items(table, &table.rows().iter().filter(inside).collect::<Vec<_>>(), columns)
            }
            Action::Search { column, columns, .. } => {
                let table = call.table(database)?;
                let Value::Text(text) = call.required(&Role::Text, Kind::Text)? else { return Ok(json!([])) };
                let at = call.place(table, column)?;
                let text = text.to_lowercase();
                let holds = |row: &&Row| matches!(&row[at], Value::Text(cell) if cell.to_lowercase().contains(&text));
                call.items(table, &table.rows().iter().filter(holds).collect::<Vec<_>>(), columns)
            }
            Action::Get { .. } => {
                let table = call.table(database)?;
                let columns: Vec<usize> = (0..table.columns().len()).collect();
                Ok(table.row_json(call.row(table)?, &columns))
            }
            Action::Infos { .. } => {
                let table = call.table(database)?;
                let row = call.row(table)?;
                let places = call.keywords()?.into_iter().map(|name| call.place(table, name));
                Ok(table.row_json(row, &places.collect::<Result<Vec<_>, _>>()?))
            }
            Action::Field { column, .. } => {
                let table = call.table(database)?;
                Ok(call.row(table)?[call.place(table, column)?].to_json())
            }
            Action::Aggregate { column, figure, .. } => {
                let table = call.table(database)?;
                let rows = call.selected(database, table)?;
                let at = call.place(table, column)?;
                let cells = rows.iter().map(|row| &row[at]).filter(|cell| **cell != Value::Null);
                Ok(match figure {
                    Figure::Count => JsonValue::from(rows.len()),
                    Figure::Sum => JsonValue::from(cells.filter_map(Value::number).fold(0i64, i64::saturating_add)),
                    Figure::Least => cells.min().map_or(JsonValue::Null, Value::to_json),
                    Figure::Most => cells.max().map_or(JsonValue::Null, Value::to_json),
                })
            }
            Action::Set { column, before, after, .. } => {
                let table = call.table(database)?;
                let (key, now) = (call.row(table)?[0].clone(), call.row(table)?[call.place(table, column)?].to_json());
                let value = call.required(&Role::Value, self.kind(database, column))?;
                if !before.is_empty() && !before.contains(&now) {
                    return Err(format!("{} is {now} and can't be changed from there", key.to_json()));
                }
                if !after.is_empty() && !after.contains(&value.to_json()) {
                    return Err(format!("{} is none of {}", value.to_json(), JsonValue::from(after.clone())));
                }
                let name = table.name().to_string();
                database.set(&name, &key, column, value).map_err(|error| error.to_string())?;
                Ok(json!("done"))
            }
            Action::Add { column, .. } => {
                let table = call.table(database)?;
                let row = call.row(table)?;
                let (key, now) = (row[0].clone(), row[call.place(table, column)?].clone());
                let amount = call.required(&Role::Amount, Kind::Integer)?.number().unwrap_or_default();
                let number = now.number().and_then(|number| number.checked_add(amount)).filter(|sum| *sum >= 0);
                let number = number.ok_or_else(|| format!("{} has {}, too little", key.to_json(), now.to_json()))?;
                let name = table.name().to_string();
                let value = now.with_number(number);
                database.set(&name, &key, column, value).map_err(|error| error.to_string())?;
                Ok(json!(number))
            }
            Action::DaysBetween => {
                let (from, to) = (call.required(&Role::From, Kind::Date)?, call.required(&Role::To, Kind::Date)?);
                Ok(json!(to.number().unwrap_or_default() - from.number().unwrap_or_default()))
            }
            Action::AddDays => {
                let from = call.required(&Role::From, Kind::Date)?.number().unwrap_or_default();
                let days = call.required(&Role::Amount, Kind::Integer)?.number().unwrap_or_default();
                Ok(Value::Date(Date::from_days(from.saturating_add(days))).to_json())
            }
            Action::Notice { text } => Ok(json!(text)),
            Action::Submit => Ok(call.required(&Role::Answer, Kind::Text)?.to_json()),
        }
    }
}

/// A call under way.
struct Call<'a> {
    tool: &'a TableTool,
    arguments: &'a Map<String, JsonValue>,
}

impl<'a> Call<'a> {
    fn table<'d>(&self, database: &'d Database) -> Result<&'d Table, String> {
        let table = self.tool.action.table().and_then(|table| database.table(table));
        table.ok_or_else(|| format!("{} has no table", self.tool.name))
    }

    fn place(&self, table: &Table, column: &str) -> Result<usize, String> {
        table.place(column).ok_or_else(|| {
            let known: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
            format!("there is no {column:?}; there is {}", known.join(", "))
        })
    }

    fn argument(&self, role: &Role) -> Option<(&'a str, &'a JsonValue)> {
        let parameter = self.tool.parameter(role)?;
        self.arguments.get(&parameter.name).map(|value| (parameter.name.as_str(), value))
    }

    fn optional(&self, role: &Role, kind: Kind) -> Result<Option<Value>, String> {
        let Some((name, json)) = self.argument(role) else { return Ok(None) };
        let value = Value::from_json(kind, json).map_err(|problem| format!("{name}: {problem}"))?;
        Ok((value != Value::Null).then_some(value))
    }

    fn required(&self, role: &Role, kind: Kind) -> Result<Value, String> {
        self.optional(role, kind)?.ok_or_else(|| format!("{} needs {}", self.tool.name, kind.name()))
    }

    fn row<'d>(&self, table: &'d Table) -> Result<&'d Row, String> {
        let key = self.required(&Role::Key, table.key().kind)?;
        table.row(&key).ok_or_else(|| format!("there is no {} {}", table.key().name, key.to_json()))
    }

    fn keywords(&self) -> Result<Vec<&'a str>, String> {
        let problem = "the keywords must be a list of column names".to_string();
        let Some((_, JsonValue::Array(names))) = self.argument(&Role::Keywords) else { return Err(problem) };
        names.iter().map(|name| name.as_str().ok_or_else(|| problem.clone())).collect()
    }

    /// The rows that all [`Role::Where`] hold for. A value that no row could have is an error: it is likelier misspelt
    /// than asked for.
    fn selected<'d>(&self, database: &Database, table: &'d Table) -> Result<Vec<&'d Row>, String> {
        let mut rows: Vec<&Row> = table.rows().iter().collect();
        for parameter in &self.tool.parameters {
            let Role::Where(column) = &parameter.role else { continue };
            let at = self.place(table, column)?;
            let value = self.required(&parameter.role, table.columns()[at].kind)?;
            let target = table.columns()[at].references.as_ref().and_then(|target| database.table(target));
            let known = target.is_some_and(|target| target.row(&value).is_some());
            if !known && table.rows().iter().all(|row| row[at] != value) {
                return Err(format!("nothing found for {} {}", parameter.name, value.to_json()));
            }
            rows.retain(|row| row[at] == value);
        }
        Ok(rows)
    }

    fn shown(&self, table: &Table, rows: &[&Row], columns: &[String]) -> Result<Vec<JsonValue>, String> {
        let places = columns.iter().map(|name| self.place(table, name)).collect::<Result<Vec<_>, _>>()?;
        Ok(match places[..] {
            [only] => rows.iter().map(|row| row[only].to_json()).collect(),
            _ => rows.iter().map(|row| table.row_json(row, &places)).collect(),
        })
    }

    fn items(&self, table: &Table, rows: &[&Row], columns: &[String]) -> Result<JsonValue, String> {
        if rows.len() > MOST_ROWS {
            return Err(format!("{} rows were found, more than {MOST_ROWS}; ask for fewer", rows.len()));
        }
        Ok(JsonValue::from(self.shown(table, rows, columns)?))
    }

    fn page(&self, table: &Table, rows: &[&Row], columns: &[String], size: Option<usize>) -> Result<JsonValue, String> {
        let Some(size) = size.filter(|size| *size > 0) else {
            return Ok(JsonValue::from(self.shown(table, rows, columns)?));
        };
        let page = self.optional(&Role::Page, Kind::Integer)?.and_then(|page| page.number()).unwrap_or(1);
        let pages = rows.len().div_ceil(size).max(1);
        let page = usize::try_from(page).ok().filter(|page| (1..=pages).contains(page));
        let page = page.ok_or_else(|| format!("there are pages 1 to {pages}"))?;
        let rows = &rows[(page - 1) * size..rows.len().min(page * size)];
        Ok(json!({"items": self.shown(table, rows, columns)?, "page": page, "pages": pages}))
    }
}
