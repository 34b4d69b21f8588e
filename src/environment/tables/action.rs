//! What a tool over tables is: data, so that a world can be written to a file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue, json};

use super::table::Database;
use super::value::Kind;
use crate::chat::{Json, Tool};

/// A tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableTool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// Its parameters, in their order.
    pub parameters: Vec<Parameter>,
    /// What it does.
    pub action: Action,
}

/// A parameter of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it means to the action.
    pub role: Role,
}

impl Parameter {
    /// A parameter.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role }
    }
}

/// What a parameter means to an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The key of a row.
    Key,
    /// What a column must be.
    Where(String),
    /// The smallest value.
    Least,
    /// The largest value.
    Most,
    /// Which page, from 1.
    Page,
    /// The columns wanted.
    Keywords,
    /// A part of a text.
    Text,
    /// The new value.
    Value,
    /// What is added to a number.
    Amount,
    /// The first day.
    From,
    /// The second day.
    To,
    /// The answer.
    Answer,
}

/// What a tool does. A result of one column is a list of values, one of several a list of objects; with a page size, an
/// object with `items`, `page` and `pages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The rows whose columns are the values of [`Role::Where`], all of them if there are none.
    List {
        /// The table.
        table: String,
        /// The columns of the result.
        columns: Vec<String>,
        /// Rows of one page; all rows at once without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page_size: Option<usize>,
    },
    /// The rows whose column lies between [`Role::Least`] and [`Role::Most`], each of which may be absent.
    Range {
        /// The table.
        table: String,
        /// The column that is compared.
        column: String,
        /// The columns of the result.
        columns: Vec<String>,
    },
    /// The rows whose column holds [`Role::Text`], in either case.
    Search {
        /// The table.
        table: String,
        /// The column that is searched.
        column: String,
        /// The columns of the result.
        columns: Vec<String>,
    },
    /// The whole row of [`Role::Key`].
    Get {
        /// The table.
        table: String,
    },
    /// Those columns of the row of [`Role::Key`] that [`Role::Keywords`] names.
    Infos {
        /// The table.
        table: String,
    },
    /// One column of the row of [`Role::Key`].
    Field {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A number over the rows whose columns are the values of [`Role::Where`].
    Aggregate {
        /// The table.
        table: String,
        /// The column; without meaning for a count.
        column: String,
        /// Which number.
        figure: Figure,
    },
    /// Sets a column of the row of [`Role::Key`] to [`Role::Value`].
    Set {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What the column must be before, in JSON; anything if the list is empty.
        before: Vec<JsonValue>,
        /// What it may become, in JSON; anything if the list is empty.
        after: Vec<JsonValue>,
    },
    /// Adds [`Role::Amount`] to a column of the row of [`Role::Key`], which must not fall below 0.
    Add {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The days from [`Role::From`] to [`Role::To`].
    DaysBetween,
    /// The day [`Role::Amount`] days after [`Role::From`].
    AddDays,
    /// A text that is always the same.
    Notice {
        /// The text.
        text: String,
    },
    /// Takes [`Role::Answer`] as the answer.
    Submit,
}

/// A number over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// How many there are.
    Count,
    /// The sum of a column.
    Sum,
    /// The smallest value of a column.
    Least,
    /// The largest value of a column.
    Most,
}

impl Action {
    /// The table it reads or changes.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::List { table, .. }
            | Self::Range { table, .. }
            | Self::Search { table, .. }
            | Self::Get { table }
            | Self::Infos { table }
            | Self::Field { table, .. }
            | Self::Aggregate { table, .. }
            | Self::Set { table, .. }
            | Self::Add { table, .. } => Some(table),
            Self::DaysBetween | Self::AddDays | Self::Notice { .. } | Self::Submit => None,
        }
    }

    /// The column it is about.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Range { column, .. }
            | Self::Search { column, .. }
            | Self::Field { column, .. }
            | Self::Aggregate { column, .. }
            | Self::Set { column, .. }
            | Self::Add { column, .. } => Some(column),
            _ => None,
        }
    }
}

impl TableTool {
    /// The parameter with a role.
    pub fn parameter(&self, role: &Role) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.role == *role)
    }

    /// The kind of a column of the tool's table; text where there is no such column.
    pub(super) fn kind(&self, database: &Database, column: &str) -> Kind {
        let table = self.action.table().and_then(|table| database.table(table));
        let place = table.and_then(|table| table.place(column).map(|at| table.columns()[at].kind));
        place.unwrap_or(Kind::Text)
    }

    /// Whether a call may leave a parameter out.
    pub(super) fn optional(role: &Role) -> bool {
        matches!(role, Role::Page | Role::Least | Role::Most)
    }

    /// The tool as the model sees it.
    pub fn definition(&self, database: &Database) -> Tool {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for parameter in &self.parameters {
            properties.insert(parameter.name.clone(), self.schema(database, &parameter.role));
            if !Self::optional(&parameter.role) {
                required.push(JsonValue::from(parameter.name.as_str()));
            }
        }
        let schema = json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false
        });
        Tool::new(self.name.as_str(), self.description.as_str(), Json::from(&schema))
    }

    fn schema(&self, database: &Database, role: &Role) -> JsonValue {
        let column = self.action.column().unwrap_or_default();
        match role {
            Role::Key => {
                let table = self.action.table().and_then(|table| database.table(table));
                table.map_or(Kind::Text, |table| table.key().kind).schema()
            }
            Role::Where(column) => self.kind(database, column).schema(),
            Role::Least | Role::Most => self.kind(database, column).schema(),
            Role::Value => match &self.action {
                Action::Set { after, .. } if !after.is_empty() => json!({"enum": after}),
                _ => self.kind(database, column).schema(),
            },
            Role::Page => json!({"type": "integer", "minimum": 1}),
            Role::Keywords => {
                let table = self.action.table().and_then(|table| database.table(table));
                let names: Vec<&str> = table.map_or(Vec::new(), |table| {
                    table.columns().iter().skip(1).map(|column| column.name.as_str()).collect()
                });
                json!({"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1})
            }
            Role::Text | Role::Answer => Kind::Text.schema(),
            Role::Amount => Kind::Integer.schema(),
            Role::From | Role::To => Kind::Date.schema(),
        }
    }
}
