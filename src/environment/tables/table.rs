//! Tables whose copies share their rows until one of them changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use sha2::{Digest, Sha256};

use super::value::{Kind, Value};

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of its cells.
    pub kind: Kind,
    /// What its numbers count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The table whose keys it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<String>,
    /// Whether a cell may be null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
}

impl Column {
    /// A column without unit and reference, whose cells are never null.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind, unit: None, references: None, nullable: false }
    }

    /// The same column with a unit.
    pub fn with_unit(self, unit: impl Into<String>) -> Self {
        Self { unit: Some(unit.into()), ..self }
    }

    /// The same column with the keys of a table.
    pub fn referring(self, table: impl Into<String>) -> Self {
        Self { references: Some(table.into()), ..self }
    }
}

/// A row: its cells in the order of the columns.
pub type Row = Arc<[Value]>;

/// Why tables were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table:?}: {problem}")]
pub struct TableError {
    /// The table.
    pub table: String,
    /// What is wrong.
    pub problem: String,
}

/// A table. The first column is the key.
#[derive(Debug, Clone)]
pub struct Table {
    name: Arc<str>,
    columns: Arc<[Column]>,
    rows: Arc<Vec<Row>>,
    places: Arc<HashMap<Value, usize>>,
}

impl Table {
    /// A table of rows.
    ///
    /// # Errors
    /// No column, two columns of one name, a row of another length, a cell of another kind, a key that is null or
    /// stands twice.
    pub fn new(name: impl Into<String>, columns: Vec<Column>, rows: Vec<Vec<Value>>) -> Result<Self, TableError> {
        let name = name.into();
        let refused = |problem: String| TableError { table: name.clone(), problem };
        let names: BTreeSet<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        if columns.is_empty() || names.len() != columns.len() {
            return Err(refused("columns need names of their own".to_string()));
        }
        let mut places = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            if row.len() != columns.len() {
                return Err(refused(format!("row {at} has {} cells, expected {}", row.len(), columns.len())));
            }
            for (column, cell) in columns.iter().zip(row) {
                if !cell.is_a(column.kind) || (*cell == Value::Null && !column.nullable) {
                    let (name, expected) = (&column.name, column.kind.name());
                    return Err(refused(format!("row {at}, {name}: {} is not {expected}", cell.to_json())));
                }
            }
            if row[0] == Value::Null || places.insert(row[0].clone(), at).is_some() {
                return Err(refused(format!("row {at}: the key {} is null or stands twice", row[0].to_json())));
            }
        }
        let rows = rows.into_iter().map(Row::from).collect();
        Ok(Self { columns: columns.into(), rows: Arc::new(rows), places: Arc::new(places), name: name.into() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Its key column.
    pub fn key(&self) -> &Column {
        &self.columns[0]
    }

    /// Its rows, in the order that they were given in.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The place of a column.
    pub fn place(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|other| other.name == column)
    }

    /// The row of a key.
    pub fn row(&self, key: &Value) -> Option<&Row> {
        self.places.get(key).map(|at| &self.rows[*at])
    }

    /// Replaces one cell. The key column can't be changed.
    ///
    /// # Errors
    /// There is no such row or column, or the value is of another kind.
    pub fn set(&mut self, key: &Value, column: &str, value: Value) -> Result<(), TableError> {
        let refused = |problem: String| TableError { table: self.name.to_string(), problem };
        let row = *self.places.get(key).ok_or_else(|| refused(format!("there is no {}", key.to_json())))?;
        let at = self.place(column).filter(|at| *at > 0);
        let at = at.ok_or_else(|| refused(format!("{column:?} can't be changed")))?;
        if !value.is_a(self.columns[at].kind) || (value == Value::Null && !self.columns[at].nullable) {
            return Err(refused(format!("{column}: {} is not {}", value.to_json(), self.columns[at].kind.name())));
        }
        let mut cells = self.rows[row].to_vec();
        cells[at] = value;
        Arc::make_mut(&mut self.rows)[row] = cells.into();
        Ok(())
    }

    /// A row as JSON, with these columns of it.
    pub fn row_json(&self, row: &[Value], columns: &[usize]) -> JsonValue {
        let entry = |at: &usize| (self.columns[*at].name.clone(), row[*at].to_json());
        JsonValue::Object(columns.iter().map(entry).collect::<Map<_, _>>())
    }
}

/// The state of a world: its tables. A copy takes no longer than counting them.
#[derive(Debug, Clone, Default)]
pub struct Database {
    tables: Vec<Table>,
}

/// How a cell differs between two states.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Value,
    /// The column.
    pub column: String,
    /// What it was.
    pub before: Value,
    /// What it is.
    pub after: Value,
}

impl Database {
    /// Tables that refer to each other.
    ///
    /// # Errors
    /// Two tables of one name, or a reference to a table or a key that there isn't.
    pub fn new(tables: Vec<Table>) -> Result<Self, TableError> {
        let database = Self { tables };
        for (at, table) in database.tables.iter().enumerate() {
            let refused = |problem: String| TableError { table: table.name().to_string(), problem };
            if database.tables[..at].iter().any(|other| other.name() == table.name()) {
                return Err(refused("stands twice".to_string()));
            }
            for (place, column) in table.columns.iter().enumerate() {
                let Some(target) = &column.references else { continue };
                let target = database.table(target).ok_or_else(|| refused(format!("there is no table {target:?}")))?;
                let known = |row: &&Row| row[place] == Value::Null || target.row(&row[place]).is_some();
                if let Some(row) = table.rows.iter().find(|row| !known(row)) {
                    return Err(refused(format!("{}: there is no {}", column.name, row[place].to_json())));
                }
            }
        }
        Ok(database)
    }

    /// Its tables.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name() == name)
    }

    /// Replaces one cell.
    ///
    /// # Errors
    /// There is no such table, row or column, the value is of another kind, or it refers to nothing.
    pub fn set(&mut self, table: &str, key: &Value, column: &str, value: Value) -> Result<(), TableError> {
        let refused = |problem: &str| TableError { table: table.to_string(), problem: problem.to_string() };
        let at = self.tables.iter().position(|other| other.name() == table);
        let at = at.ok_or_else(|| refused("there is no such table"))?;
        let target = self.tables[at].place(column).and_then(|place| self.tables[at].columns[place].references.clone());
        if let Some(target) = target.and_then(|target| self.table(&target))
            && value != Value::Null
            && target.row(&value).is_none()
        {
            return Err(refused(&format!("{column}: there is no {}", value.to_json())));
        }
        self.tables[at].set(key, column, value)
    }

    /// The state as JSON that two equal states share: tables by name, rows by key, columns by name.
    pub fn to_json(&self) -> JsonValue {
        let mut tables: BTreeMap<&str, JsonValue> = BTreeMap::new();
        for table in &self.tables {
            let mut columns: Vec<usize> = (0..table.columns.len()).collect();
            columns.sort_by(|a, b| table.columns[*a].name.cmp(&table.columns[*b].name));
            let mut rows: Vec<&Row> = table.rows.iter().collect();
            rows.sort_by(|a, b| a[0].cmp(&b[0]));
            tables.insert(table.name(), rows.into_iter().map(|row| table.row_json(row, &columns)).collect());
        }
        tables.into_iter().map(|(name, rows)| (name.to_string(), rows)).collect::<Map<_, _>>().into()
    }

    /// SHA-256 of [`Self::to_json`] in hexadecimal.
    pub fn hash(&self) -> String {
        hash(self.to_json().to_string().as_bytes())
    }

    /// The cells that differ from a later state of the same tables.
    pub fn changes(&self, later: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for before in &self.tables {
            let Some(after) = later.table(before.name()) else { continue };
            if Arc::ptr_eq(&before.rows, &after.rows) {
                continue;
            }
            for row in before.rows() {
                let Some(other) = after.row(&row[0]).filter(|other| !Arc::ptr_eq(row, other)) else { continue };
                for (at, column) in before.columns.iter().enumerate() {
                    if row[at] != other[at] {
                        changes.push(Change {
                            table: before.name().to_string(),
                            key: row[0].clone(),
                            column: column.name.clone(),
                            before: row[at].clone(),
                            after: other[at].clone(),
                        });
                    }
                }
            }
        }
        changes.sort();
        changes
    }
}

/// SHA-256 of bytes in hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
