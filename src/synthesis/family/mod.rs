//! Families of environments, each as data: tables, columns, and the words for them.

mod clinic;
mod courses;
mod fleet;
mod league;
mod lexicon;
mod library;
mod market;
mod museum;
mod payroll;
mod rentals;
mod support;
mod telecom;
pub mod trip;

pub use lexicon::Naming;

/// A family.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Who asks, in a sentence before the question; one is drawn.
    pub settings: &'static [&'static str],
    /// Its tables; a link points to an earlier one.
    pub tables: &'static [Entity],
}

/// What a table holds.
#[derive(Debug)]
pub struct Entity {
    /// One of it.
    pub noun: &'static str,
    /// Several of it.
    pub plural: &'static str,
    /// Whether they are people.
    pub who: bool,
    /// What the key column may be called.
    pub keys: &'static [&'static str],
    /// How the keys are made.
    pub naming: Naming,
    /// The fewest and the most rows.
    pub rows: (i64, i64),
    /// The other columns.
    pub fields: &'static [Field],
}

/// A column.
#[derive(Debug)]
pub struct Field {
    /// What it may be called in a table.
    pub names: &'static [&'static str],
    /// What it is called in a sentence.
    pub label: &'static str,
    /// What it holds.
    pub sort: Sort,
}

/// What a column holds, and how one speaks of it. `{}` stands for a value, or for the rows that are spoken of.
#[derive(Debug)]
pub enum Sort {
    /// One of some words.
    Choice {
        /// The words.
        values: &'static [&'static str],
        /// As in "in the genre {}".
        phrase: &'static str,
    },
    /// A state that can change.
    Status {
        /// The states.
        values: &'static [&'static str],
        /// As in "that are {}".
        phrase: &'static str,
        /// Which state changes to which.
        change: (&'static str, &'static str),
        /// As in "Mark {} as returned".
        order: &'static str,
    },
    /// A number.
    Number {
        /// The smallest, the largest and the step.
        range: (i64, i64, i64),
        /// What it counts.
        measure: Measure,
        /// As in "with at least {} pages" and "with at most {} pages".
        bounds: [&'static str; 2],
        /// As in "the longest {}" and "the shortest {}".
        extremes: [&'static str; 2],
    },
    /// A day.
    Date {
        /// The first day, as days since 1970, and how many there are.
        range: (i64, i64),
        /// As in "published on or after {}" and "published on or before {}".
        bounds: [&'static str; 2],
        /// As in "the newest {}" and "the oldest {}".
        extremes: [&'static str; 2],
    },
    /// Yes or no.
    Flag {
        /// The words for those that have it and for those that don't.
        phrases: [&'static str; 2],
    },
    /// A row of an earlier table.
    Link {
        /// The table's place in the family.
        table: usize,
        /// As in "by {}".
        phrase: &'static str,
    },
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Things that add up, with their name.
    Sum(&'static str),
    /// Things that do not add up, with their name.
    Level(&'static str),
    /// Tenths of something, written with one digit after the point.
    Tenths(&'static str),
    /// Money, in whole units of a currency that the sign stands for.
    Money(&'static str),
}

const fn choice(
    names: &'static [&'static str],
    label: &'static str,
    values: &'static [&'static str],
    phrase: &'static str,
) -> Field {
    Field { names, label, sort: Sort::Choice { values, phrase } }
}

const fn status(
    names: &'static [&'static str],
    values: &'static [&'static str],
    phrase: &'static str,
    change: (&'static str, &'static str),
    order: &'static str,
) -> Field {
    Field { names, label: "status", sort: Sort::Status { values, phrase, change, order } }
}

const fn number(
    names: &'static [&'static str],
    label: &'static str,
    range: (i64, i64, i64),
    measure: Measure,
    bounds: [&'static str; 2],
    extremes: [&'static str; 2],
) -> Field {
    Field { names, label, sort: Sort::Number { range, measure, bounds, extremes } }
}

const fn date(
    names: &'static [&'static str],
    label: &'static str,
    range: (i64, i64),
    bounds: [&'static str; 2],
    extremes: [&'static str; 2],
) -> Field {
    Field { names, label, sort: Sort::Date { range, bounds, extremes } }
}

const fn flag(names: &'static [&'static str], label: &'static str, phrases: [&'static str; 2]) -> Field {
    Field { names, label, sort: Sort::Flag { phrases } }
}

const fn link(names: &'static [&'static str], label: &'static str, table: usize, phrase: &'static str) -> Field {
    Field { names, label, sort: Sort::Link { table, phrase } }
}

/// All families, the trip planner first.
pub const FAMILIES: &[&Family] = &[
    &trip::TRIP,
    &library::LIBRARY,
    &market::MARKET,
    &clinic::CLINIC,
    &fleet::FLEET,
    &support::SUPPORT,
    &courses::COURSES,
    &museum::MUSEUM,
    &league::LEAGUE,
    &payroll::PAYROLL,
    &telecom::TELECOM,
    &rentals::RENTALS,
];

/// The family of a name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.name == name)
}
