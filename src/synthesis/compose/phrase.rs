//! Rows as a person would speak of them.

use crate::environment::tables::{Date, Value};
use crate::synthesis::family::{Field, Measure, Sort};
use crate::synthesis::instance::{Instance, Made};
use crate::synthesis::program::{Comparison, Extreme, Filter, Rows};
use crate::synthesis::seed::Stream;

/// A condition with its words.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub filter: Filter,
    pub text: String,
    /// Words of a higher rank stand later: relative clauses after short phrases, other rows last.
    rank: u8,
}

/// Rows of one table and the words for them.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The table's place among those of the instance.
    pub table: usize,
    pub pieces: Vec<Piece>,
    pub extreme: Option<(Extreme, &'static str)>,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A day in words.
pub(super) fn day(date: Date) -> String {
    let (year, month, day) = date.parts();
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&"");
    format!("{day} {month} {year}")
}

/// A number with commas.
fn grouped(number: i64) -> String {
    let digits = number.abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A value of a column in words.
pub(super) fn shown(field: &Field, value: &Value) -> String {
    let measure = if let Sort::Number { measure, .. } = field.sort { Some(measure) } else { None };
    match (value, measure) {
        (Value::Money(cents), Some(Measure::Money(sign))) if cents % 100 == 0 => {
            format!("{sign}{}", grouped(cents / 100))
        }
        (Value::Money(cents), _) => format!("{}.{:02}", grouped(cents / 100), cents % 100),
        (Value::Integer(number), Some(Measure::Tenths(_))) => format!("{}.{}", number / 10, number % 10),
        (Value::Integer(number), _) => grouped(*number),
        (Value::Date(date), _) => day(*date),
        (Value::Text(text), _) => text.clone(),
        (other, _) => other.to_json().to_string(),
    }
}

/// `a` or `an` before a word.
pub(super) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

/// A condition as it follows another one, with what stands between them. Two that begin alike share what they can.
fn joined(last: &str, text: &str, between: &str) -> String {
    let first = |text: &str| text.split(' ').next().unwrap_or_default().to_string();
    let clause = |text: &str| matches!(first(text).as_str(), "that" | "who" | "whose" | "where");
    if last.is_empty() || (first(last) != first(text) && !(clause(last) && clause(text))) {
        return format!("{between}{text}");
    }
    format!(" and {}", text.strip_prefix("with ").unwrap_or(text))
}

/// A condition on one row: "that are open" becomes "that is open".
pub(super) fn singular(text: &str) -> String {
    let mut words = text.splitn(3, ' ');
    let (Some(first @ ("that" | "who")), Some(verb)) = (words.next(), words.next()) else { return text.to_string() };
    let verb = match verb {
        "are" => "is".to_string(),
        "have" => "has".to_string(),
        "do" => "does".to_string(),
        "belong" | "eat" | "play" | "run" | "sell" | "sing" | "sit" | "work" => format!("{verb}s"),
        // Past tenses, and verbs such as "must".
        other => other.to_string(),
    };
    words.fold(format!("{first} {verb}"), |text, rest| format!("{text} {rest}"))
}

/// The words for a row that is referred to, such as "on the line {}", with other words in place of its key: "on a line
/// of at least 5 kilometres".
fn referring(phrase: &str, noun: &str, words: &str) -> String {
    let forms =
        [format!("the {noun} \"{{}}\""), format!("the {noun} {{}}"), format!("the {{}} {noun}"), "the {}".into()];
    let form = forms.iter().find(|form| phrase.contains(form.as_str())).map_or("{}", String::as_str);
    phrase.replace(form, &format!("{} {words}", article(words)))
}

impl Piece {
    /// A condition on the table itself.
    pub fn new(filter: Filter, text: String) -> Self {
        let first = text.split(' ').next().unwrap_or_default();
        let rank = u8::from(matches!(first, "that" | "who" | "whose" | "where"));
        Self { filter, text, rank }
    }
}

impl Subject {
    pub fn new(table: usize) -> Self {
        Self { table, pieces: Vec::new(), extreme: None }
    }

    pub fn made<'a>(&self, instance: &'a Instance) -> &'a Made {
        &instance.tables[self.table]
    }

    pub fn rows(&self, instance: &Instance) -> Rows {
        Rows {
            table: self.made(instance).name.clone(),
            filters: self.pieces.iter().map(|piece| piece.filter.clone()).collect(),
            extreme: self.extreme.as_ref().map(|(extreme, _)| extreme.clone()),
        }
    }

    /// The conditions that stand beside the noun, and those that need a sentence of their own: a person would not say
    /// more than two or three in a row.
    fn parts(&self) -> (Vec<&Piece>, Vec<&Piece>) {
        let (nested, mut simple): (Vec<&Piece>, Vec<&Piece>) = self.pieces.iter().partition(|piece| piece.rank == 2);
        // "Of a size with a number", not the other way round.
        let with = |piece: &Piece| piece.text.starts_with("with");
        simple.sort_by_key(|piece| (piece.rank, with(piece)));
        let mut rest = simple.split_off(simple.len().min(2));
        // Behind a relative clause other rows would seem to belong to the clause.
        let room = usize::from(simple.len() < 2 && simple.iter().all(|piece| piece.rank == 0)).min(nested.len());
        simple.extend(&nested[..room]);
        rest.extend(&nested[room..]);
        (simple, rest)
    }

    /// The noun with the conditions beside it, and the superlative around them.
    pub fn words(&self, instance: &Instance, plural: bool) -> String {
        let entity = self.made(instance).entity;
        let mut text = if plural { entity.plural } else { entity.noun }.to_string();
        let mut last = "";
        for piece in self.parts().0 {
            let condition = if plural { piece.text.clone() } else { singular(&piece.text) };
            text.push_str(&joined(last, &condition, " "));
            last = &piece.text;
        }
        match &self.extreme {
            Some((_, words)) => words.replace("{}", &text),
            None => text,
        }
    }

    /// A sentence with the other conditions, after a space; empty if there are none.
    pub fn rest(&self, wording: usize) -> String {
        let rest = self.parts().1;
        let mut text = String::new();
        let mut last: Option<&Piece> = None;
        for piece in rest {
            // Behind the words for other rows "and" alone would go on about those.
            text.push_str(match last {
                None => "",
                Some(last) if last.rank == 2 => ", and also ",
                Some(_) => " and ",
            });
            text.push_str(&piece.text);
            last = Some(piece);
        }
        match wording {
            _ if text.is_empty() => String::new(),
            0 => format!(" Take only those {text}."),
            1 => format!(" I only mean those {text}."),
            _ => format!(" Please consider only those {text}."),
        }
    }

    /// The rows and the superlative apart: behind a long phrase it would seem to be about the last noun.
    pub fn among(&self, instance: &Instance) -> Option<(String, String)> {
        let (_, words) = self.extreme.as_ref().filter(|_| self.pieces.iter().any(|piece| piece.rank > 0))?;
        let all = Self { extreme: None, ..self.clone() };
        Some((all.words(instance, true), words.replace("{}", "one")))
    }

    /// Whether a column is spoken of already.
    fn uses(&self, name: &str) -> bool {
        let filtered = self.pieces.iter().any(|piece| match &piece.filter {
            Filter::Compare { column, .. } | Filter::Missing { column } | Filter::Linked { column, .. } => {
                column == name
            }
            Filter::Has { .. } | Filter::Lacks { .. } => false,
        });
        filtered || self.extreme.as_ref().is_some_and(|(extreme, _)| extreme.column == name)
    }

    fn nested(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.rank == 2).count()
    }

    /// A condition on a column of the table itself.
    pub fn simple(&self, instance: &Instance, stream: &mut Stream) -> Option<Piece> {
        let made = self.made(instance);
        let (column, field) = stream.pick(&made.columns)?;
        if self.uses(column) {
            return None;
        }
        let table = instance.database.table(&made.name)?;
        let at = table.place(column)?;
        let value = stream.pick(table.rows())?[at].clone();
        if value == Value::Null {
            let which = if made.entity.who { "whom" } else { "which" };
            let text = format!("for {which} no {} is recorded", field.label);
            return Some(Piece { filter: Filter::Missing { column: column.clone() }, text, rank: 1 });
        }
        if value.number() == Some(1) {
            // The phrases are for several.
            return None;
        }
        let (comparison, words) = match &field.sort {
            Sort::Choice { phrase, .. } | Sort::Status { phrase, .. } | Sort::Link { phrase, .. } => {
                (Comparison::Equal, *phrase)
            }
            Sort::Flag { phrases: [yes, no] } => {
                (Comparison::Equal, if value == Value::Boolean(true) { *yes } else { *no })
            }
            Sort::Number { bounds, .. } | Sort::Date { bounds, .. } => {
                if stream.chance(55) {
                    (Comparison::AtLeast, bounds[0])
                } else {
                    (Comparison::AtMost, bounds[1])
                }
            }
        };
        let text = words.replace("{}", &shown(field, &value));
        Some(Piece::new(Filter::Compare { column: column.clone(), comparison, value }, text))
    }

    /// A condition on the rows that this one refers to, or that refer to this one.
    pub fn hop(&self, instance: &Instance, stream: &mut Stream) -> Option<Piece> {
        if self.nested() > 1 {
            return None;
        }
        let made = self.made(instance);
        let links: Vec<_> = made
            .columns
            .iter()
            .filter_map(|(column, field)| match field.sort {
                Sort::Link { table, phrase } if !self.uses(column) => {
                    instance.linked(table).map(|(at, _)| (column, at, phrase))
                }
                _ => None,
            })
            .collect();
        let back: Vec<_> = instance
            .tables
            .iter()
            .enumerate()
            .flat_map(|(at, other)| other.columns.iter().map(move |(column, field)| (at, column, field)))
            .filter(|(_, _, field)| matches!(field.sort, Sort::Link { table, .. } if table == made.place))
            .collect();
        let towards = links.is_empty() || (!back.is_empty() && stream.chance(40));
        if !towards {
            let (column, table, phrase) = *stream.pick(&links)?;
            let mut inner = Subject::new(table);
            inner.pieces.push(inner.simple(instance, stream)?);
            if stream.chance(25)
                && let Some(more) = inner.simple(instance, stream)
            {
                inner.pieces.push(more);
            }
            let words = inner.words(instance, false);
            let text = referring(phrase, inner.made(instance).entity.noun, &words);
            let filter = Filter::Linked { column: column.clone(), rows: Box::new(inner.rows(instance)) };
            return Some(Piece { filter, text, rank: 2 });
        }
        let (table, column, _) = *stream.pick(&back)?;
        if self.pieces.iter().any(|piece| matches!(piece.filter, Filter::Has { .. } | Filter::Lacks { .. })) {
            return None;
        }
        let mut inner = Subject::new(table);
        inner.pieces.push(inner.simple(instance, stream)?);
        let (column, rows) = (column.clone(), Box::new(inner.rows(instance)));
        // The inner condition must not be about this row itself.
        if matches!(&inner.pieces[0].filter, Filter::Compare { column: other, .. } if *other == column) {
            return None;
        }
        let (filter, text) = if stream.chance(55) {
            (Filter::Lacks { column, rows }, format!("without any {}", inner.words(instance, true)))
        } else {
            (Filter::Has { column, rows }, format!("with one or more {}", inner.words(instance, true)))
        };
        Some(Piece { filter, text, rank: 2 })
    }
}
