//! What a question asks for, and which answers are right.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::graph::{Fact, Web};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is asked of the thing.
    pub ask: Ask,
    /// The thing.
    pub of: Query,
}

/// What is asked of a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Its name.
    Name,
    /// The number that a relation has for it.
    Number(String),
}

/// Things of a kind that clues hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The kind.
    pub kind: String,
    /// The clues; all must hold.
    pub clues: Vec<Clue>,
}

/// What holds for a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clue {
    /// The relation.
    pub relation: String,
    /// Whether the thing is the object, and not the subject.
    pub inverse: bool,
    /// The other side.
    pub target: Target,
}

/// The other side of a clue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The thing with this name.
    Named(String),
    /// A number below this one.
    Below(i64),
    /// A number above this one.
    Above(i64),
    /// Any thing that a query finds.
    Described(Query),
}

impl Clue {
    /// All things that the clue holds for, found from the other side.
    fn find(&self, web: &Web) -> Result<BTreeSet<u32>, String> {
        let relation = web.relation(&self.relation).ok_or_else(|| format!("there is no relation {}", self.relation))?;
        let others: BTreeSet<u32> = match &self.target {
            Target::Below(limit) | Target::Above(limit) => {
                let below = matches!(self.target, Target::Below(_));
                let right = |number: i64| if below { number < *limit } else { number > *limit };
                let facts = web.graph.facts.iter().filter(|Fact(_, of, object)| *of == relation && right(*object));
                return Ok(facts.map(|Fact(subject, _, _)| *subject).collect());
            }
            Target::Named(name) => {
                BTreeSet::from([web.named(name).ok_or_else(|| format!("nothing is called {name}"))?])
            }
            Target::Described(query) => query.find(web)?,
        };
        let object = |object: i64| u32::try_from(object).ok();
        Ok(if self.inverse {
            others.into_iter().flat_map(|other| web.objects(other, relation).filter_map(object)).collect()
        } else {
            others.into_iter().flat_map(|other| web.subjects(relation, other)).collect()
        })
    }

    /// Whether the clue holds for a thing, found from the thing.
    fn holds(&self, thing: u32, web: &Web) -> bool {
        let Some(relation) = web.relation(&self.relation) else { return false };
        let other = |place: u32| match &self.target {
            Target::Named(name) => {
                web.thing(place).is_some_and(|thing| thing.name == *name || thing.alias.as_ref() == Some(name))
            }
            Target::Described(query) => query.holds(place, web),
            Target::Below(_) | Target::Above(_) => false,
        };
        if self.inverse {
            return web.subjects(relation, thing).any(other);
        }
        web.objects(thing, relation).any(|object| match self.target {
            Target::Below(limit) => object < limit,
            Target::Above(limit) => object > limit,
            _ => u32::try_from(object).is_ok_and(other),
        })
    }
}

impl Query {
    /// All things that are meant, found from the ends of the clues.
    ///
    /// # Errors
    /// A name or a relation does not exist.
    pub fn find(&self, web: &Web) -> Result<BTreeSet<u32>, String> {
        let mut found: Option<BTreeSet<u32>> = None;
        for clue in &self.clues {
            let next = clue.find(web)?;
            found = Some(found.map_or(next.clone(), |found| &found & &next));
        }
        let mut found = found.unwrap_or_default();
        found.retain(|place| web.thing(*place).is_some_and(|thing| thing.kind == self.kind));
        Ok(found)
    }

    /// Whether a thing is meant, found from the thing: another way than [`Self::find`], to check it.
    pub fn holds(&self, thing: u32, web: &Web) -> bool {
        web.thing(thing).is_some_and(|thing| thing.kind == self.kind)
            && !self.clues.is_empty()
            && self.clues.iter().all(|clue| clue.holds(thing, web))
    }

    /// The names that the question mentions.
    pub fn names(&self) -> Vec<&str> {
        let names = self.clues.iter().flat_map(|clue| match &clue.target {
            Target::Named(name) => vec![name.as_str()],
            Target::Described(query) => query.names(),
            Target::Below(_) | Target::Above(_) => Vec::new(),
        });
        names.collect()
    }

    /// Clues and the longest way from the thing to a name.
    pub fn size(&self) -> (usize, usize) {
        let (mut clues, mut depth) = (0, 0);
        for clue in &self.clues {
            let (more, deeper) = match &clue.target {
                Target::Described(query) => query.size(),
                _ => (0, 0),
            };
            clues += 1 + more;
            depth = depth.max(1 + deeper);
        }
        (clues, depth)
    }
}

/// An answer as it is compared: without case, quotes, a full stop, `the` in front, and commas in numbers.
pub fn plain(answer: &str) -> String {
    let mut text = answer.trim().trim_matches(['"', '\'', '.']).trim().to_lowercase();
    if let Some(rest) = text.strip_prefix("the ") {
        text = rest.to_string();
    }
    if text.chars().all(|c| c.is_ascii_digit() || c == ',') {
        text.retain(|c| c != ',');
    }
    text
}

impl Question {
    /// All texts that are right.
    ///
    /// # Errors
    /// The question means no thing or several, or names what there is not.
    pub fn answers(&self, web: &Web) -> Result<Vec<String>, String> {
        let found = self.of.find(web)?;
        let (Some(thing), 1) = (found.first(), found.len()) else {
            return Err(format!("{} things are meant, expected 1", found.len()));
        };
        match &self.ask {
            Ask::Name => {
                let thing = web.thing(*thing).ok_or("the graph lacks the thing")?;
                Ok(std::iter::once(&thing.name).chain(&thing.alias).cloned().collect())
            }
            Ask::Number(relation) => {
                let place = web.relation(relation).ok_or_else(|| format!("there is no relation {relation}"))?;
                let numbers: Vec<String> = web.objects(*thing, place).map(|number| number.to_string()).collect();
                if numbers.is_empty() { Err(format!("{relation} is not known")) } else { Ok(numbers) }
            }
        }
    }

    /// What is wrong with an answer; nothing if it is right.
    pub fn problems(&self, web: &Web, answer: Option<&str>) -> Vec<String> {
        let Some(answer) = answer else { return vec!["nothing was submitted".to_string()] };
        match self.answers(web) {
            Ok(right) if right.iter().any(|right| plain(right) == plain(answer)) => Vec::new(),
            Ok(_) => vec![format!("{answer:?} is wrong")],
            Err(problem) => vec![problem],
        }
    }
}
