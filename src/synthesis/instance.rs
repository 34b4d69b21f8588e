//! An environment of a family: its schema, drawn by a grammar, its names, by a style, and its rows.

use std::collections::BTreeMap;

use serde_json::json;

use super::category::{Category, Content};
use super::family::{Entity, Family, Field, Measure, Sort, trip};
use super::general::Tables;
use super::record::{EnvironmentRecord, SCHEMA_VERSION, TableRecord, content_id};
use super::seed::Stream;
use super::split::Split;
use super::style::Style;
use super::toolset;
use crate::environment::tables::{Column, Database, Date, Kind, Table, TableError, TableTool, Value, hash};

/// A table of an instance.
#[derive(Debug)]
pub struct Made {
    /// What it holds.
    pub entity: &'static Entity,
    /// Its place in the family.
    pub place: usize,
    /// Its name.
    pub name: String,
    /// Its key column.
    pub key: String,
    /// Its other columns, by name.
    pub columns: Vec<(String, &'static Field)>,
    /// In how many of 100 rows the cells of an optional column are null, by column. Others are never null.
    nulls: BTreeMap<String, usize>,
    /// Its keys.
    keys: Vec<String>,
}

impl Made {
    /// Whether cells of a column may be null.
    pub fn is_nullable(&self, column: &str) -> bool {
        self.nulls.contains_key(column)
    }
}

/// Whether no other table of a family refers to one.
fn is_leaf(family: &Family, place: usize) -> bool {
    let mut fields = family.tables.iter().flat_map(|entity| entity.fields);
    fields.all(|field| !matches!(field.sort, Sort::Link { table, .. } if table == place))
}

/// An environment.
#[derive(Debug)]
pub struct Instance {
    /// Its place in the run.
    pub index: u64,
    /// Its family.
    pub family: &'static Family,
    /// How things are named.
    pub style: Style,
    /// Its tables, without those that are there to distract.
    pub tables: Vec<Made>,
    /// The first state.
    pub database: Database,
    /// The tools.
    pub tools: Vec<TableTool>,
    stream: Stream,
}

impl Instance {
    /// The environment with a place in the run of a seed.
    ///
    /// # Errors
    /// The family's tables contradict each other.
    pub fn new(seed: u64, index: u64, family: &'static Family) -> Result<Self, TableError> {
        let stream = Stream::new(seed, &format!("environment/{index}/{}", family.name));
        let is_trip = family.name == trip::TRIP.name;
        let style = if is_trip { Style::plain() } else { Style::draw(&mut stream.child("style")) };
        let mut tables: Vec<Made> = Vec::new();
        let mut grammar = stream.child("schema");
        for (place, entity) in family.tables.iter().enumerate() {
            if !is_trip && family.tables.len() > 3 && is_leaf(family, place) && grammar.chance(15) {
                continue;
            }
            let mut nulls = BTreeMap::new();
            let mut columns: Vec<(String, &'static Field)> = Vec::new();
            let key = style.column(grammar.word(entity.keys), None);
            for field in entity.fields {
                let needed = is_trip || matches!(field.sort, Sort::Link { .. });
                let needed = needed || (matches!(field.sort, Sort::Number { .. }) && !field.optional);
                if !needed && !grammar.chance(82) {
                    continue;
                }
                let measure = if let Sort::Number { measure, .. } = field.sort { Some(measure) } else { None };
                let mut name = style.column(grammar.word(field.names), measure);
                if name == key || columns.iter().any(|(other, _)| *other == name) {
                    name = style.column(&format!("{}_value", field.names[0]), measure);
                }
                if field.optional && grammar.chance(65) {
                    nulls.insert(name.clone(), *grammar.pick(&[6, 12, 20]).unwrap_or(&12));
                }
                columns.push((name, field));
            }
            if !is_trip {
                grammar.shuffle(&mut columns);
            }
            let count = usize::try_from(grammar.between(entity.rows.0, entity.rows.1)).unwrap_or(10);
            let keys = entity.naming.draw(count, &mut stream.child(&format!("keys/{place}")));
            tables.push(Made { entity, place, name: style.table(entity.plural), key, columns, nulls, keys });
        }
        let mut made = Self { index, family, style, tables, database: Database::default(), tools: Vec::new(), stream };
        made.database = made.rows("rows")?;
        made.tools = if is_trip { trip::tools() } else { toolset::draw(&made, &mut made.stream.child("tools")) };
        Ok(made)
    }

    /// The table with a place in the family, and its place in this environment, where some tables may be missing.
    pub fn linked(&self, place: usize) -> Option<(usize, &Made)> {
        self.tables.iter().enumerate().find(|(_, made)| made.place == place)
    }

    /// A stream of random numbers of this environment.
    pub fn stream(&self, path: &str) -> Stream {
        self.stream.child(path)
    }

    /// The same schema and the same keys with other cells.
    ///
    /// # Errors
    /// None where the environment itself could be made.
    pub fn counterfactual(&self, number: usize) -> Result<Database, TableError> {
        self.rows(&format!("counterfactual/{number}"))
    }

    fn rows(&self, path: &str) -> Result<Database, TableError> {
        let mut tables = Vec::new();
        for made in &self.tables {
            let mut stream = self.stream.child(&format!("{path}/{}", made.place));
            let mut columns = vec![Column::new(made.key.as_str(), Kind::Text)];
            columns.extend(
                made.columns
                    .iter()
                    .map(|(name, field)| Column { nullable: made.is_nullable(name), ..self.column(name, field) }),
            );
            let rows = made.keys.iter().map(|key| {
                let mut row = vec![Value::from(key.as_str())];
                row.extend(made.columns.iter().map(|(name, field)| {
                    let null = made.nulls.get(name).is_some_and(|of_100| stream.chance(*of_100));
                    if null { Value::Null } else { self.cell(field, &mut stream) }
                }));
                row
            });
            tables.push(Table::new(made.name.as_str(), columns, rows.collect())?);
        }
        if self.family.name == trip::TRIP.name {
            let mut stream = self.stream.child(&format!("{path}/more"));
            tables.extend(trip::more_tables(&self.tables[0].keys, &mut stream)?);
        }
        Database::new(tables)
    }

    fn column(&self, name: &str, field: &Field) -> Column {
        match field.sort {
            Sort::Choice { .. } | Sort::Status { .. } => Column::new(name, Kind::Text),
            Sort::Date { .. } => Column::new(name, Kind::Date),
            Sort::Flag { .. } => Column::new(name, Kind::Boolean),
            Sort::Link { table, .. } => {
                let target = self.linked(table).map(|(_, made)| made.name.as_str());
                Column::new(name, Kind::Text).referring(target.unwrap_or_default())
            }
            Sort::Number { measure, .. } => match measure {
                Measure::Money(_) => Column::new(name, Kind::Money).with_unit("cents"),
                Measure::Sum(unit) | Measure::Level(unit) => Column::new(name, Kind::Integer).with_unit(unit),
                Measure::Tenths(unit) => Column::new(name, Kind::Integer).with_unit(format!("tenths of a {unit}")),
            },
        }
    }

    fn cell(&self, field: &Field, stream: &mut Stream) -> Value {
        match field.sort {
            Sort::Choice { values, .. } | Sort::Status { values, .. } => Value::from(stream.word(values)),
            Sort::Date { range: (first, days), .. } => {
                Value::Date(Date::from_days(stream.between(first, first + days - 1)))
            }
            Sort::Flag { .. } => Value::Boolean(stream.chance(45)),
            Sort::Link { table, .. } => {
                let keys = self.linked(table).map_or(&[][..], |(_, made)| &made.keys);
                Value::from(stream.pick(keys).map_or("", String::as_str))
            }
            Sort::Number { range: (low, high, step), measure, .. } => {
                let number = low + step * stream.between(0, (high - low) / step);
                if let Measure::Money(_) = measure { Value::Money(number * 100) } else { Value::Integer(number) }
            }
        }
    }

    /// The hash of the schema: names, kinds and references, without rows.
    pub fn schema_hash(&self) -> String {
        let tables: Vec<_> =
            self.database.tables().iter().map(|table| json!([table.name(), table.columns()])).collect();
        let mut text = hash(json!(tables).to_string().as_bytes());
        text.truncate(24);
        text
    }

    /// The split of the environment.
    pub fn split(&self) -> Split {
        let unseen = self.style.unseen && self.family.name != trip::TRIP.name;
        Split::of_environment(self.family.name, unseen, &format!("{}/{}", self.schema_hash(), self.database.hash()))
    }

    /// The environment as it is written.
    pub fn record(&self) -> EnvironmentRecord {
        let record = EnvironmentRecord {
            schema_version: SCHEMA_VERSION,
            id: String::new(),
            index: 0,
            category: Category::General,
            family: self.family.name.to_string(),
            style: self.style.name(),
            split: self.split(),
            schema_hash: self.schema_hash(),
            content: Content::General(Tables {
                tables: self.database.tables().iter().map(TableRecord::new).collect(),
                tools: self.tools.clone(),
            }),
        };
        EnvironmentRecord { id: content_id(&record), index: self.index, ..record }
    }
}
