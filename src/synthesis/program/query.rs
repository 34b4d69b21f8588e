//! Which rows a task is about, and numbers over them. Every query ends, whatever the tables hold.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::environment::tables::{Database, Date, Row, Value};

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// They are equal.
    Equal,
    /// They differ.
    Unequal,
    /// The first is smaller.
    Below,
    /// The first is not larger.
    AtMost,
    /// The first is larger.
    Above,
    /// The first is not smaller.
    AtLeast,
}

impl Comparison {
    /// Whether it holds. Nothing compares with null but null's equality.
    pub fn holds<T: PartialOrd>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Unequal => a != b,
            Self::Below => a < b,
            Self::AtMost => a <= b,
            Self::Above => a > b,
            Self::AtLeast => a >= b,
        }
    }

    /// Its sign in Python.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// A condition on a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// A column compares with a value.
    Compare {
        /// The column.
        column: String,
        /// How.
        comparison: Comparison,
        /// The value.
        value: Value,
    },
    /// A column is null.
    Missing {
        /// The column.
        column: String,
    },
    /// A column refers to one of some rows.
    Linked {
        /// The column.
        column: String,
        /// The rows.
        rows: Box<Rows>,
    },
    /// Some row refers to this one.
    Has {
        /// The other column, which holds this row's key.
        column: String,
        /// The other rows.
        rows: Box<Rows>,
    },
    /// No such row refers to this one.
    Lacks {
        /// The other column, which holds this row's key.
        column: String,
        /// The other rows.
        rows: Box<Rows>,
    },
}

/// Rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The table.
    pub table: String,
    /// What all must hold for them.
    pub filters: Vec<Filter>,
    /// Keeps those with the largest or the smallest value, all of them if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extreme: Option<Extreme>,
}

/// The largest or smallest value of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extreme {
    /// The column.
    pub column: String,
    /// Whether it is the largest.
    pub most: bool,
}

/// One value over rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scalar {
    /// How many rows.
    Count {
        /// The rows.
        rows: Rows,
    },
    /// The sum of a column.
    Sum {
        /// The rows.
        rows: Rows,
        /// The column.
        column: String,
    },
    /// The days from the earliest to the latest date; 0 without rows.
    Span {
        /// The rows.
        rows: Rows,
        /// The column.
        column: String,
    },
    /// The day so many days after the latest date; null without rows.
    Shift {
        /// The rows.
        rows: Rows,
        /// The column.
        column: String,
        /// How many days.
        days: i64,
    },
}

/// Where rows come from: the tables themselves, or tools.
pub trait Source {
    /// The place of a column in a table's rows.
    ///
    /// # Errors
    /// There is no such column.
    fn place(&self, table: &str, column: &str) -> Result<usize, String>;

    /// Rows of a table, in which these columns (and the key) are filled. A source may leave out rows whose column is
    /// none of the values that `only` gives for it.
    ///
    /// # Errors
    /// The rows can't be had; the text says why.
    fn fetch(
        &mut self,
        table: &str,
        columns: &BTreeSet<String>,
        only: &[(String, Vec<Value>)],
    ) -> Result<Vec<Row>, String>;
}

impl Source for &Database {
    fn place(&self, table: &str, column: &str) -> Result<usize, String> {
        let place = self.table(table).and_then(|table| table.place(column));
        place.ok_or_else(|| format!("there is no column {table}.{column}"))
    }

    fn fetch(&mut self, table: &str, _: &BTreeSet<String>, _: &[(String, Vec<Value>)]) -> Result<Vec<Row>, String> {
        let table = self.table(table).ok_or_else(|| format!("there is no table {table}"))?;
        Ok(table.rows().to_vec())
    }
}

/// A filter whose inner queries are answered.
enum Ready<'a> {
    Missing(usize),
    Compare(usize, Comparison, &'a Value),
    Among(usize, BTreeSet<Value>, bool),
}

impl Ready<'_> {
    fn holds(&self, row: &Row) -> bool {
        match self {
            Self::Missing(at) => row[*at] == Value::Null,
            Self::Compare(at, comparison, value) => row[*at] != Value::Null && comparison.holds(&row[*at], value),
            Self::Among(at, values, wanted) => values.contains(&row[*at]) == *wanted,
        }
    }
}

impl Rows {
    /// All rows of a table.
    pub fn of(table: impl Into<String>) -> Self {
        Self { table: table.into(), filters: Vec::new(), extreme: None }
    }

    /// The columns of the table itself that the query looks at.
    pub fn columns(&self) -> BTreeSet<String> {
        let filters = self.filters.iter().filter_map(|filter| match filter {
            Filter::Compare { column, .. } | Filter::Missing { column } | Filter::Linked { column, .. } => {
                Some(column.clone())
            }
            Filter::Has { .. } | Filter::Lacks { .. } => None,
        });
        filters.chain(self.extreme.iter().map(|extreme| extreme.column.clone())).collect()
    }

    /// The rows, with `columns` filled.
    ///
    /// # Errors
    /// There is no such table or column, or the source has no way to them.
    pub fn find(&self, source: &mut dyn Source, columns: &[&str]) -> Result<Vec<Row>, String> {
        let mut needed = self.columns();
        needed.extend(columns.iter().map(|column| (*column).to_string()));
        let mut only = Vec::new();
        let mut ready = Vec::new();
        for filter in &self.filters {
            match filter {
                Filter::Compare { column, comparison, value } => {
                    if *comparison == Comparison::Equal {
                        only.push((column.clone(), vec![value.clone()]));
                    }
                    ready.push(Ready::Compare(source.place(&self.table, column)?, *comparison, value));
                }
                Filter::Missing { column } => ready.push(Ready::Missing(source.place(&self.table, column)?)),
                Filter::Linked { column, rows } => {
                    let keys: BTreeSet<Value> = rows.find(source, &[])?.iter().map(|row| row[0].clone()).collect();
                    only.push((column.clone(), keys.iter().cloned().collect()));
                    ready.push(Ready::Among(source.place(&self.table, column)?, keys, true));
                }
                Filter::Has { column, rows } | Filter::Lacks { column, rows } => {
                    let at = source.place(&rows.table, column)?;
                    let found = rows.find(source, &[column.as_str()])?;
                    let keys = found.iter().map(|row| row[at].clone()).collect();
                    ready.push(Ready::Among(0, keys, matches!(filter, Filter::Has { .. })));
                }
            }
        }
        let mut rows = source.fetch(&self.table, &needed, &only)?;
        rows.retain(|row| ready.iter().all(|filter| filter.holds(row)));
        if let Some(Extreme { column, most }) = &self.extreme {
            let at = source.place(&self.table, column)?;
            let cells = || rows.iter().map(|row| &row[at]).filter(|cell| **cell != Value::Null);
            let best = if *most { cells().max() } else { cells().min() }.cloned();
            rows.retain(|row| best.as_ref() == Some(&row[at]));
        }
        Ok(rows)
    }

    /// How many conditions there are, those of inner queries among them.
    pub fn conditions(&self) -> usize {
        let inner = self.filters.iter().map(|filter| match filter {
            Filter::Compare { .. } | Filter::Missing { .. } => 1,
            Filter::Linked { rows, .. } | Filter::Has { rows, .. } | Filter::Lacks { rows, .. } => {
                1 + rows.conditions()
            }
        });
        inner.sum::<usize>() + usize::from(self.extreme.is_some())
    }

    /// How many times the query goes from one table to another.
    pub fn hops(&self) -> usize {
        let inner = self.filters.iter().map(|filter| match filter {
            Filter::Compare { .. } | Filter::Missing { .. } => 0,
            Filter::Linked { rows, .. } | Filter::Has { rows, .. } | Filter::Lacks { rows, .. } => 1 + rows.hops(),
        });
        inner.sum()
    }
}

impl Scalar {
    /// The rows that it is over.
    pub fn rows(&self) -> &Rows {
        match self {
            Self::Count { rows } | Self::Sum { rows, .. } | Self::Span { rows, .. } | Self::Shift { rows, .. } => rows,
        }
    }

    /// The value.
    ///
    /// # Errors
    /// As [`Rows::find`].
    pub fn value(&self, source: &mut dyn Source) -> Result<Value, String> {
        let (rows, column) = match self {
            Self::Count { rows } => {
                let count = rows.find(source, &[])?.len();
                return Ok(Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)));
            }
            Self::Sum { rows, column } | Self::Span { rows, column } | Self::Shift { rows, column, .. } => {
                (rows, column)
            }
        };
        let at = source.place(&rows.table, column)?;
        let found = rows.find(source, &[column.as_str()])?;
        let numbers = || found.iter().filter_map(|row| row[at].number());
        Ok(match self {
            Self::Shift { days, .. } => {
                numbers().max().map_or(Value::Null, |latest| Value::Date(Date::from_days(latest.saturating_add(*days))))
            }
            Self::Span { .. } => {
                Value::Integer(numbers().max().unwrap_or_default() - numbers().min().unwrap_or_default())
            }
            _ => Value::Integer(numbers().fold(0, i64::saturating_add)),
        })
    }
}
