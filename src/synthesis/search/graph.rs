//! A graph of things and facts: what a corpus tells.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::theme::{Naming, Object, Theme};
use crate::synthesis::seed::Stream;

/// A thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thing {
    /// The name.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// How things relate to others, or to numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// The name.
    pub name: String,
    /// Whether the object is a number.
    pub number: bool,
    /// The sentences that say so, with `{s}` and `{o}`.
    pub sentences: Vec<String>,
}

/// A fact: the places of subject and relation, and the object, a place or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fact(pub u32, pub u32, pub i64);

/// Things with facts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// The relations.
    pub relations: Vec<Relation>,
    /// The things.
    pub things: Vec<Thing>,
    /// The facts.
    pub facts: Vec<Fact>,
}

/// A graph with ways to look facts up.
#[derive(Debug)]
pub struct Web {
    /// The graph.
    pub graph: Graph,
    /// For each thing the relations and objects of its facts.
    pub of: Vec<Vec<(u32, i64)>>,
    /// For each thing the relations and subjects of the facts that it is the object of.
    pub to: Vec<Vec<(u32, u32)>>,
    names: HashMap<String, u32>,
}

const ONSETS: &[&str] = &[
    "b", "br", "c", "d", "dr", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "w",
    "z",
];
const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ei", "io"];
const CODAS: &[&str] = &["", "", "", "l", "n", "r", "s", "nd", "rk", "m"];
const PLACE_TAILS: &[&str] = &["ford", "holm", "mouth", "stad", "burg", "vik", "minster", "haven", "by", "ness"];
const ADJECTIVES: &[&str] = &[
    "Silent",
    "Amber",
    "Broken",
    "Crimson",
    "Distant",
    "Early",
    "Faithful",
    "Gilded",
    "Hidden",
    "Idle",
    "Jealous",
    "Last",
    "Lost",
    "Merry",
    "Northern",
    "Patient",
    "Quiet",
    "Restless",
    "Scarlet",
    "Tall",
    "Unfinished",
    "Velvet",
    "Wandering",
    "Young",
];
const NOUNS: &[&str] = &[
    "Anchor",
    "Bridge",
    "Candle",
    "Daughter",
    "Evening",
    "Falcon",
    "Garden",
    "Harbour",
    "Island",
    "Juniper",
    "Kingfisher",
    "Lantern",
    "Mirror",
    "Nightingale",
    "Orchard",
    "Pilgrim",
    "Quarry",
    "River",
    "Shepherd",
    "Traveller",
    "Umbrella",
    "Violin",
    "Widow",
    "Year",
    "Winter",
    "Miller",
    "Thistle",
    "Swallow",
    "Hunter",
    "Clock",
];

/// An invented word of two or three syllables.
fn word(stream: &mut Stream) -> String {
    let mut text = String::new();
    for _ in 0..stream.between(2, 3) {
        text.push_str(stream.word(ONSETS));
        text.push_str(stream.word(VOWELS));
    }
    text.push_str(stream.word(CODAS));
    capital(&text)
}

/// The text with a capital letter in front.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Names that are drawn for a thing before one gets a number.
const NAMES: usize = 200;

impl Naming {
    fn name(self, lasts: &[String], stream: &mut Stream) -> String {
        match self {
            Self::Person => {
                let last = stream.pick(lasts).cloned().unwrap_or_default();
                format!("{} {last}", word(stream))
            }
            Self::Place => {
                let head = format!(
                    "{}{}{}",
                    stream.word(ONSETS),
                    stream.word(VOWELS),
                    stream.word(&["l", "n", "r", "s", "x"])
                );
                format!("{}{}", capital(&head), stream.word(PLACE_TAILS))
            }
            Self::Title => format!("The {} {}", stream.word(ADJECTIVES), stream.word(NOUNS)),
            Self::Before(tails) => format!("{} {}", word(stream), stream.word(tails)),
            Self::After(heads) => format!("{} {}", stream.word(heads), word(stream)),
        }
    }

    fn alias(self, stream: &mut Stream) -> String {
        match self {
            Self::Person => {
                format!("{} {}", stream.word(&["Old", "Little", "Captain", "Doctor", "Grey"]), word(stream))
            }
            Self::Place => format!("the Town of the {} {}", stream.word(ADJECTIVES), stream.word(NOUNS)),
            Self::Title => format!("{} Number {}", word(stream), stream.between(2, 99)),
            Self::Before(_) | Self::After(_) => format!("the {} {}", word(stream), stream.word(NOUNS)),
        }
    }
}

impl Graph {
    /// The things of a theme, without facts.
    pub fn things(theme: &Theme, stream: &mut Stream) -> Self {
        let mut graph = Self::default();
        // Few last names, so that persons resemble each other.
        let lasts: Vec<String> = (0..56).map(|_| word(stream)).collect();
        let mut taken: BTreeSet<String> = BTreeSet::new();
        let mut fresh = |stream: &mut Stream, make: &dyn Fn(&mut Stream) -> String| {
            // There are far more names than things, so that a number behind a name is rare.
            let mut name = make(stream);
            for _ in 0..NAMES {
                if taken.insert(name.to_lowercase()) {
                    return name;
                }
                name = make(stream);
            }
            let numbered = (2..=taken.len() + 2).map(|number| format!("{name} {number}"));
            numbered.into_iter().find(|name| taken.insert(name.to_lowercase())).unwrap_or(name)
        };
        for kind in theme.kinds {
            for _ in 0..stream.between(kind.count.0, kind.count.1) {
                let name = fresh(stream, &|stream| kind.naming.name(&lasts, stream));
                let alias = stream.chance(35).then(|| fresh(stream, &|stream| kind.naming.alias(stream)));
                graph.things.push(Thing { name, kind: kind.name.to_string(), alias });
            }
        }
        graph.relations = theme
            .relations
            .iter()
            .map(|relation| Relation {
                name: relation.name.to_string(),
                number: !matches!(relation.object, Object::Thing(_)),
                sentences: relation.sentences.iter().map(ToString::to_string).collect(),
            })
            .collect();
        graph
    }

    /// The same things with facts. Things of a kind stand in the order of time: works have authors of their time, and
    /// teachers are older than their pupils.
    pub fn with_facts(&self, theme: &Theme, stream: &mut Stream) -> Self {
        let place = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let of_kind = |kind: usize| -> Vec<u32> {
            let name = theme.kinds.get(kind).map_or("", |kind| kind.name);
            (0..).zip(&self.things).filter(|(_, thing)| thing.kind == name).map(|(at, _)| at).collect()
        };
        let mut facts = Vec::new();
        for (number, relation) in (0..).zip(theme.relations) {
            let subjects = of_kind(relation.subject);
            for (at, subject) in subjects.iter().enumerate() {
                if !stream.chance(relation.share) {
                    continue;
                }
                let object = match relation.object {
                    Object::Year(first, last) => {
                        let on_line = first + (last - first) * place(at) / place(subjects.len()).max(1);
                        (on_line + stream.between(-4, 4)).clamp(first, last)
                    }
                    Object::Number(least, most) => stream.between(least, most),
                    Object::Thing(kind) => {
                        let objects = of_kind(kind);
                        let chosen = if kind == relation.subject {
                            let first = at.saturating_sub(40);
                            if at == first { None } else { objects.get(first + stream.below(at - first)) }
                        } else if kind == 0 {
                            let middle = place(at) * place(objects.len()) / place(subjects.len()).max(1);
                            let near = (middle + stream.between(-6, 6)).clamp(0, place(objects.len()) - 1);
                            usize::try_from(near).ok().and_then(|near| objects.get(near))
                        } else {
                            stream.pick(&objects)
                        };
                        let Some(chosen) = chosen else { continue };
                        i64::from(*chosen)
                    }
                };
                facts.push(Fact(*subject, number, object));
            }
        }
        facts.sort_unstable();
        Self { facts, ..self.clone() }
    }
}

impl Web {
    /// A graph's facts, ready to be looked up.
    ///
    /// # Errors
    /// A fact has no subject, relation or object, or two things share a name.
    pub fn new(graph: Graph) -> Result<Self, String> {
        let mut web = Self {
            of: vec![Vec::new(); graph.things.len()],
            to: vec![Vec::new(); graph.things.len()],
            names: HashMap::new(),
            graph: Graph::default(),
        };
        for (at, thing) in (0..).zip(&graph.things) {
            for name in std::iter::once(&thing.name).chain(&thing.alias) {
                if web.names.insert(name.to_lowercase(), at).is_some() {
                    return Err(format!("two things are called {name}"));
                }
            }
        }
        for Fact(subject, relation, object) in &graph.facts {
            let kind = graph.relations.get(*relation as usize);
            let of = web.of.get_mut(*subject as usize);
            let (Some(kind), Some(of)) = (kind, of) else {
                return Err(format!("the fact {subject}, {relation}, {object} has no subject or no relation"));
            };
            of.push((*relation, *object));
            if !kind.number {
                let to = usize::try_from(*object).ok().and_then(|object| web.to.get_mut(object));
                to.ok_or_else(|| format!("the fact {subject}, {relation}, {object} has no object"))?
                    .push((*relation, *subject));
            }
        }
        web.graph = graph;
        Ok(web)
    }

    /// The place of a relation.
    pub fn relation(&self, name: &str) -> Option<u32> {
        (0..).zip(&self.graph.relations).find(|(_, relation)| relation.name == name).map(|(at, _)| at)
    }

    /// The thing with a name or another name.
    pub fn named(&self, name: &str) -> Option<u32> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// A thing.
    pub fn thing(&self, place: u32) -> Option<&Thing> {
        self.graph.things.get(place as usize)
    }

    /// The objects of a thing's facts of a relation.
    pub fn objects(&self, subject: u32, relation: u32) -> impl Iterator<Item = i64> + '_ {
        let facts = self.of.get(subject as usize).map_or(&[][..], Vec::as_slice);
        facts.iter().filter(move |(of, _)| *of == relation).map(|(_, object)| *object)
    }

    /// The subjects of the facts of a relation that have a thing as object.
    pub fn subjects(&self, relation: u32, object: u32) -> impl Iterator<Item = u32> + '_ {
        let facts = self.to.get(object as usize).map_or(&[][..], Vec::as_slice);
        facts.iter().filter(move |(of, _)| *of == relation).map(|(_, subject)| *subject)
    }
}
