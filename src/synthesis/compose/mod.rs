//! Composes tasks: a first one, and from each the next, harder one.

mod fit;
mod phrase;
mod trip;

use super::family::{Field, Measure, Sort};
use super::instance::Instance;
use super::program::{Comparison, Extreme, Filter, Goal, Rows, Scalar};
use super::seed::Stream;
use crate::environment::tables::{Kind, Value};
use fit::Fit;
use phrase::Subject;
use trip::Trip;

/// A task before it is a record.
#[derive(Debug, Clone)]
pub struct Draft {
    ask: Ask,
    /// What is counted first, and from which number on the question is the first one.
    condition: Option<(Subject, i64)>,
}

/// What is asked.
#[derive(Debug, Clone)]
enum Ask {
    Row(Subject, Extra),
    Keys(Subject),
    Figures(Subject, Extra, Second),
    Change(Subject, Order),
    Fit(Fit),
    Trip(Trip),
}

/// A column that the answer tells of.
#[derive(Debug, Clone)]
struct Extra {
    column: String,
    label: &'static str,
    note: &'static str,
    kind: Kind,
}

/// The second figure beside the count.
#[derive(Debug, Clone, Copy)]
enum Second {
    Sum,
    Span,
    Shift(i64),
}

/// A change of a status.
#[derive(Debug, Clone)]
struct Order {
    column: String,
    to: &'static str,
    words: &'static str,
}

impl Extra {
    fn of(column: &str, field: &'static Field) -> Option<Self> {
        let (note, kind) = match field.sort {
            Sort::Number { measure: Measure::Money(_), .. } => (" in cents", Kind::Money),
            Sort::Number { measure: Measure::Tenths(_), .. } => (" in tenths, so 42 for 4.2", Kind::Integer),
            Sort::Number { .. } => ("", Kind::Integer),
            Sort::Date { .. } => (" as YYYY-MM-DD", Kind::Date),
            _ => return None,
        };
        Some(Self { column: column.to_string(), label: field.label, note, kind })
    }

    /// Whether rows are asked for that have no such value.
    fn is_missing(&self, subject: &Subject) -> bool {
        let missing =
            |piece: &phrase::Piece| matches!(&piece.filter, Filter::Missing { column } if *column == self.column);
        subject.pieces.iter().any(missing)
    }

    fn example(&self) -> &'static str {
        if self.kind == Kind::Date { "\"2025-01-31\"" } else { "0" }
    }
}

/// Numbers and dates of a table.
fn extras(instance: &Instance, table: usize) -> Vec<(Extra, &'static Field)> {
    let columns = instance.tables[table].columns.iter();
    columns.filter_map(|(column, field)| Extra::of(column, field).map(|extra| (extra, *field))).collect()
}

/// The superlative of a column.
fn extreme(extra: &Extra, field: &Field, most: bool) -> Option<(Extreme, &'static str)> {
    let (Sort::Number { extremes, .. } | Sort::Date { extremes, .. }) = field.sort else { return None };
    Some((Extreme { column: extra.column.clone(), most }, extremes[usize::from(!most)]))
}

impl Draft {
    /// A task of the first level.
    pub fn first(instance: &Instance, stream: &mut Stream) -> Option<Self> {
        if instance.family.name == super::family::trip::TRIP.name && stream.chance(55) {
            return Some(Self { ask: Ask::Trip(Trip::first(instance, stream)?), condition: None });
        }
        let table = stream.below(instance.tables.len());
        let mut subject = Subject::new(table);
        let extras = extras(instance, table);
        let (extra, field) = stream.pick(&extras)?.clone();
        let ask = match stream.below(100) {
            0..30 => {
                let (other, of) = stream.pick(&extras)?;
                subject.extreme = extreme(other, of, stream.chance(50));
                subject.pieces.push(subject.simple(instance, stream)?);
                Ask::Row(subject, extra)
            }
            30..48 => {
                subject.pieces.push(subject.simple(instance, stream)?);
                let second = match field.sort {
                    Sort::Date { .. } if stream.chance(50) => Second::Span,
                    Sort::Date { .. } => Second::Shift(*stream.pick(&[7, 10, 14, 21, 30, 45, 90])?),
                    Sort::Number { measure: Measure::Sum(_) | Measure::Money(_), .. } => Second::Sum,
                    _ => return None,
                };
                Ask::Figures(subject, extra, second)
            }
            48..62 => {
                subject.pieces.push(subject.simple(instance, stream)?);
                Ask::Keys(subject)
            }
            62..78 => {
                let statuses: Vec<(usize, &String, &'static Field)> = instance
                    .tables
                    .iter()
                    .enumerate()
                    .flat_map(|(at, made)| made.columns.iter().map(move |(column, field)| (at, column, *field)))
                    .filter(|(_, _, field)| matches!(field.sort, Sort::Status { .. }))
                    .collect();
                let (table, column, field) = *stream.pick(&statuses)?;
                let Sort::Status { phrase, change: (from, to), order, .. } = field.sort else { return None };
                let mut subject = Subject::new(table);
                subject.pieces.push(Subject::status(column, from, phrase));
                if stream.chance(60) {
                    subject.pieces.push(subject.simple(instance, stream)?);
                }
                Ask::Change(subject, Order { column: column.clone(), to, words: order })
            }
            _ => Ask::Fit(Fit::first(instance, table, stream)?),
        };
        Some(Self { ask, condition: None })
    }

    /// The next level: the same task with one thing more.
    pub fn harder(&self, instance: &Instance, stream: &mut Stream) -> Option<Self> {
        let mut draft = self.clone();
        match &mut draft.ask {
            Ask::Trip(trip) => *trip = trip.harder(instance, stream)?,
            Ask::Fit(fit) => *fit = fit.harder(instance, stream)?,
            Ask::Row(subject, _) | Ask::Keys(subject) | Ask::Figures(subject, ..) | Ask::Change(subject, _) => {
                if subject.pieces.len() >= 3 && draft.condition.is_none() && stream.chance(70) {
                    draft.condition = Some(condition(instance, stream)?);
                } else {
                    let hops = subject.pieces.len() >= 2 && stream.chance(75) || stream.chance(30);
                    let piece = if hops { subject.hop(instance, stream) } else { subject.simple(instance, stream) };
                    subject.pieces.push(piece?);
                    // Longer phrases are no longer what a person would say.
                    if subject.pieces.len() > 5 {
                        return None;
                    }
                }
            }
        }
        Some(draft)
    }

    /// Whether there are enough rows to ask about, and not too many.
    pub fn is_sound(&self, instance: &Instance) -> bool {
        let found = |rows: &Rows| rows.find(&mut &instance.database, &[]).map_or(0, |rows| rows.len());
        match &self.ask {
            Ask::Row(subject, extra) if extra.is_missing(subject) => false,
            Ask::Row(subject, _) => {
                let all = found(&Rows { extreme: None, ..subject.rows(instance) });
                all >= 2 && (all >= 3 || subject.pieces.len() > 2) && found(&subject.rows(instance)) == 1
            }
            Ask::Keys(subject) => (2..=12).contains(&found(&subject.rows(instance))),
            Ask::Figures(subject, extra, _) => {
                // A figure over one row, or over what is not recorded, is none.
                let rows = subject.rows(instance);
                let at = instance.database.table(&rows.table).and_then(|table| table.place(&extra.column));
                let rows = rows.find(&mut &instance.database, &[&extra.column]).unwrap_or_default();
                !extra.is_missing(subject)
                    && rows.iter().filter(|row| at.is_some_and(|at| row[at] != Value::Null)).count() >= 2
            }
            Ask::Change(subject, _) => (1..=20).contains(&found(&subject.rows(instance))),
            Ask::Fit(fit) => fit.is_sound(instance),
            Ask::Trip(_) => true,
        }
    }

    /// The goal.
    pub fn goal(&self, instance: &Instance) -> Goal {
        let goal = self.ask.goal(instance);
        match &self.condition {
            None => goal,
            Some((subject, number)) => Goal::Either {
                scalar: Scalar::Count { rows: subject.rows(instance) },
                comparison: Comparison::AtLeast,
                number: *number,
                then: Box::new(goal),
                otherwise: Box::new(self.ask.turned(instance).goal(instance)),
            },
        }
    }

    /// The prompt.
    pub fn prompt(&self, instance: &Instance, stream: &mut Stream) -> String {
        let setting = stream.word(instance.family.settings);
        let wording = stream.below(3);
        let question = self.ask.question(instance, wording);
        let question = match &self.condition {
            None => question,
            Some((subject, number)) => format!(
                "First check how many {} there are. If there are at least {number}, do the following. {question} If \
                 there are fewer than {number}, {}",
                subject.words(instance, true),
                self.ask.turned(instance).turn(&self.ask)
            ),
        };
        format!("{setting} {question}\n\n{}", self.ask.form(instance))
    }
}

/// Something to count first: rows that there are about as many of as the number says.
fn condition(instance: &Instance, stream: &mut Stream) -> Option<(Subject, i64)> {
    let mut subject = Subject::new(stream.below(instance.tables.len()));
    subject.pieces.push(subject.simple(instance, stream)?);
    let count = subject.rows(instance).find(&mut &instance.database, &[]).ok()?.len();
    let count = i64::try_from(count).ok().filter(|count| *count >= 3)?;
    let number = if stream.chance(50) { stream.between(2, count) } else { count + stream.between(1, 4) };
    Some((subject, number))
}

impl Subject {
    /// The condition that a status is one that can be changed.
    fn status(column: &str, from: &str, phrase: &str) -> phrase::Piece {
        let filter =
            Filter::Compare { column: column.to_string(), comparison: Comparison::Equal, value: Value::from(from) };
        phrase::Piece::new(filter, phrase.replace("{}", from))
    }
}

impl Ask {
    fn goal(&self, instance: &Instance) -> Goal {
        match self {
            Self::Row(subject, extra) => {
                let key = subject.made(instance).key.clone();
                let fields = vec![(key.clone(), key), (extra.column.clone(), extra.column.clone())];
                Goal::Row { rows: subject.rows(instance), fields }
            }
            Self::Keys(subject) => Goal::Keys {
                rows: subject.rows(instance),
                name: instance.style.entry(subject.made(instance).entity.plural),
            },
            Self::Figures(subject, extra, second) => {
                let (rows, column) = (subject.rows(instance), extra.column.clone());
                let value = match second {
                    Second::Sum => Scalar::Sum { rows: rows.clone(), column },
                    Second::Span => Scalar::Span { rows: rows.clone(), column },
                    Second::Shift(days) => Scalar::Shift { rows: rows.clone(), column, days: *days },
                };
                let count = ("count".to_string(), Scalar::Count { rows });
                Goal::Figures { figures: vec![count, (second.name(instance, extra), value)] }
            }
            Self::Change(subject, order) => Goal::Change {
                rows: subject.rows(instance),
                column: order.column.clone(),
                value: Value::from(order.to),
                name: "changed".to_string(),
            },
            Self::Fit(fit) => Goal::Fit { slots: fit.slots(instance) },
            Self::Trip(trip) => Goal::Fit { slots: trip.slots(instance) },
        }
    }

    /// The question for the other case: the other end of a scale, or one condition less.
    fn turned(&self, instance: &Instance) -> Self {
        let mut turned = self.clone();
        match &mut turned {
            Self::Row(subject, _) => {
                if let Some((extreme, words)) = &mut subject.extreme {
                    extreme.most = !extreme.most;
                    let made = &instance.tables[subject.table];
                    let field = made.columns.iter().find(|(column, _)| *column == extreme.column);
                    if let Some((_, Field { sort: Sort::Number { extremes, .. } | Sort::Date { extremes, .. }, .. })) =
                        field
                    {
                        *words = extremes[usize::from(!extreme.most)];
                    }
                }
            }
            Self::Change(subject, _) if subject.pieces.len() > 1 => {
                subject.pieces.pop();
            }
            Self::Keys(subject) | Self::Figures(subject, ..) => {
                subject.pieces.pop();
            }
            _ => {}
        }
        turned
    }

    /// How this differs from what was asked, for the case that there are fewer rows.
    fn turn(&self, asked: &Self) -> String {
        match (self, asked) {
            (Self::Row(Subject { extreme: Some((_, words)), .. }, _), _) => {
                format!("do the same for {} instead.", words.replace("{}", "one"))
            }
            (_, Self::Keys(subject) | Self::Figures(subject, ..) | Self::Change(subject, _)) => {
                let condition = subject.pieces.last().map_or("", |piece| piece.text.as_str());
                format!("do the same, but leave out the condition “{condition}”.")
            }
            _ => "do the same.".to_string(),
        }
    }

    fn question(&self, instance: &Instance, wording: usize) -> String {
        match self {
            Self::Row(subject, extra) => {
                let label = extra.label;
                let their = if subject.made(instance).entity.who { "their" } else { "its" };
                let rest = subject.rest(wording);
                if let Some((all, one)) = subject.among(instance) {
                    return match wording {
                        0 => format!("Look at all {all}.{rest} Please find {one}, and tell me {their} {label}."),
                        1 => format!("This is about the {all}.{rest} I'm looking for {one}, and need {their} {label}."),
                        _ => format!("Go through all {all}.{rest} Which is {one}, and what is {their} {label}?"),
                    };
                }
                let rows = subject.words(instance, false);
                match wording {
                    0 => format!("Please find {rows}, and tell me {their} {label}.{rest}"),
                    1 => format!("I'm looking for {rows}; I also need {their} {label}.{rest}"),
                    _ => format!("Could you look up {rows}, together with {their} {label}?{rest}"),
                }
            }
            Self::Keys(subject) => {
                let rows = subject.words(instance, true);
                let rest = subject.rest(wording);
                match wording {
                    0 => format!("Please list all {rows}.{rest}"),
                    1 => format!("I need the complete list of {rows}.{rest}"),
                    _ => format!("Which {rows} are there?{rest} I'd like to have all of them."),
                }
            }
            Self::Figures(subject, extra, second) => {
                let rows = subject.words(instance, true);
                let label = extra.label;
                let second = match second {
                    Second::Sum => match label.strip_prefix("number of ") {
                        Some(things) => format!("how many {things} that makes in total"),
                        None => format!("what the sum of their {label} is"),
                    },
                    Second::Span => format!("how many days lie between the earliest and the latest {label} among them"),
                    Second::Shift(days) => format!("which date is {days} days after the latest {label} among them"),
                };
                let rest = subject.rest(wording);
                match wording {
                    0 => format!("Please count the {rows}, and tell me {second}.{rest}"),
                    1 => format!("I need to know how many {rows} there are, and {second}.{rest}"),
                    _ => format!("Could you find out how many {rows} there are, and {second}?{rest}"),
                }
            }
            Self::Change(subject, order) => {
                let rows = format!("all {}", subject.words(instance, true));
                let order = order.words.replace("{}", &rows);
                let rest = subject.rest(1);
                match wording {
                    0 => format!("{order}.{rest} Leave everything else as it is, and tell me how many you changed."),
                    1 => format!(
                        "Here is what I need: {}{}.{rest} Nothing else may change. Report the number of changes.",
                        order[..1].to_lowercase(),
                        &order[1..]
                    ),
                    _ => format!("{order}, please, and nothing else.{rest} Then tell me how many there were."),
                }
            }
            Self::Fit(fit) => fit.question(instance, wording),
            Self::Trip(trip) => trip.question(instance, wording),
        }
    }

    fn form(&self, instance: &Instance) -> String {
        match self {
            Self::Row(subject, extra) => {
                let key = &subject.made(instance).key;
                let (column, note) = (&extra.column, extra.note);
                let note = match (note, subject.made(instance).is_nullable(column)) {
                    ("", false) => String::new(),
                    (note, false) => format!(", with {column}{note}"),
                    (note, true) => format!(", with {column}{note}, or null if none is recorded"),
                };
                format!("Submit a JSON object such as {{\"{key}\": \"...\", \"{column}\": {}}}{note}.", extra.example())
            }
            Self::Keys(subject) => {
                let entity = subject.made(instance).entity;
                let name = instance.style.entry(entity.plural);
                format!("Submit a JSON object such as {{\"{name}\": [\"...\", \"...\"]}}; the order does not matter.")
            }
            Self::Figures(_, extra, second) => {
                let name = second.name(instance, extra);
                let (example, note) = match second {
                    Second::Sum => ("0", extra.note),
                    Second::Span => ("0", ""),
                    Second::Shift(_) => ("\"2025-01-31\"", ""),
                };
                let note = if note.is_empty() { String::new() } else { format!(", with {name}{note}") };
                format!("Submit a JSON object such as {{\"count\": 0, \"{name}\": {example}}}{note}.")
            }
            Self::Change(..) => "When you are done, submit a JSON object such as {\"changed\": 0}.".to_string(),
            Self::Fit(fit) => fit.form(instance),
            Self::Trip(trip) => trip.form(),
        }
    }
}

impl Second {
    fn name(self, instance: &Instance, extra: &Extra) -> String {
        match self {
            Self::Sum => instance.style.entry(&format!("total_{}", extra.column)),
            Self::Span => instance.style.entry("days_between"),
            Self::Shift(_) => "date".to_string(),
        }
    }
}
