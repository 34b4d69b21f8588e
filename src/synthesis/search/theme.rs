//! Themes of corpora: kinds of things, and how they relate, as data.

mod arts;
mod letters;
mod mountains;
mod music;
mod science;
mod sea;

/// What a corpus is about.
#[derive(Debug)]
pub struct Theme {
    /// The name.
    pub name: &'static str,
    /// The kinds of things.
    pub kinds: &'static [Kind],
    /// How they relate.
    pub relations: &'static [Relation],
    /// Sentences without facts, with `{s}` for a thing.
    pub fillers: &'static [&'static str],
}

/// A kind of things.
#[derive(Debug)]
pub struct Kind {
    /// One of them.
    pub name: &'static str,
    /// Several.
    pub plural: &'static str,
    /// Whether they are persons.
    pub person: bool,
    /// The least and most that a corpus has.
    pub count: (i64, i64),
    /// How they are called.
    pub naming: Naming,
}

/// How things are called.
#[derive(Debug, Clone, Copy)]
pub enum Naming {
    /// A first and a last name.
    Person,
    /// A town.
    Place,
    /// `The`, an adjective and a noun.
    Title,
    /// An invented word before one of these.
    Before(&'static [&'static str]),
    /// An invented word after one of these.
    After(&'static [&'static str]),
}

/// How things of a kind relate to others, or to numbers.
#[derive(Debug)]
pub struct Relation {
    /// The name.
    pub name: &'static str,
    /// The kind of the subject, by place.
    pub subject: usize,
    /// What it relates to.
    pub object: Object,
    /// Of 100 subjects so many have it.
    pub share: usize,
    /// The sentences that say so, with `{s}` and `{o}`. No sentence of a relation may read like one of another.
    pub sentences: &'static [&'static str],
    /// What is said of the subject after `who` or `that`, with `{o}`.
    pub clue: &'static str,
    /// What is said of the object, with its pronoun and `{s}`; the question for it, with `{x}`, where it is a number.
    pub inverse: &'static str,
}

/// What a subject relates to.
#[derive(Debug, Clone, Copy)]
pub enum Object {
    /// A thing of a kind, by place.
    Thing(usize),
    /// A year between two.
    Year(i64, i64),
    /// A number between two.
    Number(i64, i64),
}

/// All themes.
pub const THEMES: [&Theme; 6] =
    [&arts::ARTS, &science::SCIENCE, &sea::SEA, &music::MUSIC, &mountains::MOUNTAINS, &letters::LETTERS];
