//! Families of environments, each as data: tables, columns, and the words for them.

mod astronomy;
mod auction;
mod bank;
mod callcentre;
mod chess;
mod cinema;
mod clinic;
mod conference;
mod construction;
mod courses;
mod election;
mod estate;
mod events;
mod exams;
mod farm;
mod files;
mod fleet;
mod flights;
mod game;
mod garage;
mod garden;
mod genealogy;
mod grid;
mod gym;
mod hackathon;
mod harbour;
mod hotel;
mod insurance;
mod issues;
mod lab;
mod league;
mod lending;
mod lexicon;
mod library;
mod market;
mod museum;
mod newspaper;
mod orchestra;
mod payroll;
mod podcast;
mod post;
mod railway;
mod recipes;
mod recycling;
mod rentals;
mod restaurant;
mod roster;
mod sensors;
mod social;
mod support;
mod telecom;
mod theatre;
pub mod trip;
mod vet;
mod ward;
mod warehouse;
mod waterworks;
mod weather;
mod wine;
mod zoo;

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
    /// Whether cells may be null: what a row need not have, or what nobody may have noted.
    pub optional: bool,
}

impl Field {
    /// The same column, whose cells may be null.
    const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
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

const fn things(
    [noun, plural]: [&'static str; 2],
    keys: &'static [&'static str],
    naming: Naming,
    rows: (i64, i64),
    fields: &'static [Field],
) -> Entity {
    Entity { noun, plural, who: false, keys, naming, rows, fields }
}

const fn people(
    nouns: [&'static str; 2],
    keys: &'static [&'static str],
    rows: (i64, i64),
    fields: &'static [Field],
) -> Entity {
    Entity { who: true, ..things(nouns, keys, Naming::Person, rows, fields) }
}

const fn choice(
    names: &'static [&'static str],
    label: &'static str,
    values: &'static [&'static str],
    phrase: &'static str,
) -> Field {
    Field { names, label, sort: Sort::Choice { values, phrase }, optional: false }
}

const fn status(
    names: &'static [&'static str],
    values: &'static [&'static str],
    phrase: &'static str,
    change: (&'static str, &'static str),
    order: &'static str,
) -> Field {
    Field { names, label: "status", sort: Sort::Status { values, phrase, change, order }, optional: false }
}

const fn number(
    names: &'static [&'static str],
    label: &'static str,
    range: (i64, i64, i64),
    measure: Measure,
    bounds: [&'static str; 2],
    extremes: [&'static str; 2],
) -> Field {
    Field { names, label, sort: Sort::Number { range, measure, bounds, extremes }, optional: false }
}

const fn date(
    names: &'static [&'static str],
    label: &'static str,
    range: (i64, i64),
    bounds: [&'static str; 2],
    extremes: [&'static str; 2],
) -> Field {
    Field { names, label, sort: Sort::Date { range, bounds, extremes }, optional: false }
}

const fn flag(names: &'static [&'static str], label: &'static str, phrases: [&'static str; 2]) -> Field {
    Field { names, label, sort: Sort::Flag { phrases }, optional: false }
}

const fn link(names: &'static [&'static str], label: &'static str, table: usize, phrase: &'static str) -> Field {
    Field { names, label, sort: Sort::Link { table, phrase }, optional: false }
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
    &recipes::RECIPES,
    &flights::FLIGHTS,
    &hotel::HOTEL,
    &warehouse::WAREHOUSE,
    &ward::WARD,
    &files::FILES,
    &social::SOCIAL,
    &bank::BANK,
    &chess::CHESS,
    &conference::CONFERENCE,
    &podcast::PODCAST,
    &theatre::THEATRE,
    &cinema::CINEMA,
    &zoo::ZOO,
    &garden::GARDEN,
    &farm::FARM,
    &weather::WEATHER,
    &grid::GRID,
    &waterworks::WATERWORKS,
    &roster::ROSTER,
    &harbour::HARBOUR,
    &railway::RAILWAY,
    &construction::CONSTRUCTION,
    &estate::ESTATE,
    &insurance::INSURANCE,
    &vet::VET,
    &gym::GYM,
    &restaurant::RESTAURANT,
    &wine::WINE,
    &auction::AUCTION,
    &recycling::RECYCLING,
    &astronomy::ASTRONOMY,
    &lab::LAB,
    &game::GAME,
    &issues::ISSUES,
    &callcentre::CALLCENTRE,
    &garage::GARAGE,
    &post::POST,
    &orchestra::ORCHESTRA,
    &exams::EXAMS,
    &election::ELECTION,
    &genealogy::GENEALOGY,
    &newspaper::NEWSPAPER,
    &sensors::SENSORS,
    &hackathon::HACKATHON,
    &events::EVENTS,
    &lending::LENDING,
];

/// The family of a name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.name == name)
}
