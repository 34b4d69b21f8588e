//! Questions made by walking a graph away from a thing.

use std::collections::BTreeSet;

use super::graph::Web;
use super::question::{Ask, Clue, Query, Question, Target};
use crate::synthesis::seed::Stream;

/// How far and how broad a question walks.
#[derive(Debug, Clone, Copy)]
struct Walk {
    /// Steps to the farthest name.
    depth: usize,
    /// Clues of the thing that is asked for.
    breadth: usize,
    /// Clues of the things on the way.
    inner: usize,
    /// Whether a name is told by another name, where there is one.
    aliases: bool,
}

/// The walk of a level. The nearest name is two steps away: the article of what is asked for does not have it.
fn walk(level: u8) -> Walk {
    match level {
        1 => Walk { depth: 2, breadth: 1, inner: 1, aliases: false },
        2 => Walk { depth: 2, breadth: 2, inner: 1, aliases: false },
        3 => Walk { depth: 3, breadth: 2, inner: 1, aliases: false },
        4 => Walk { depth: 3, breadth: 2, inner: 2, aliases: true },
        _ => Walk { depth: 4, breadth: 2, inner: 2, aliases: true },
    }
}

/// A question of a level about a random thing, which need not be the only one that is meant.
pub(super) fn draft(web: &Web, level: u8, stream: &mut Stream) -> Option<(Question, u32)> {
    let walk = walk(level);
    let thing = u32::try_from(stream.below(web.graph.things.len())).ok()?;
    let number = |relation: u32| web.graph.relations.get(relation as usize).filter(|relation| relation.number);
    let numbers: Vec<u32> =
        web.of.get(thing as usize)?.iter().map(|(relation, _)| *relation).filter(|at| number(*at).is_some()).collect();
    // A number is a step more.
    let asked = if level >= 2 && stream.chance(40) { stream.pick(&numbers).copied() } else { None };
    let ask = match asked.and_then(number) {
        Some(relation) => Ask::Number(relation.name.clone()),
        None => Ask::Name,
    };
    let mut walker = Walker { web, walk, stream, seen: BTreeSet::from([thing]), hidden: asked };
    let of = walker.query(thing, walk.depth, walk.breadth)?;
    Some((Question { ask, of }, thing))
}

struct Walker<'a> {
    web: &'a Web,
    walk: Walk,
    stream: &'a mut Stream,
    /// Things that the question has told of.
    seen: BTreeSet<u32>,
    /// The relation that is asked for, which may not be a clue.
    hidden: Option<u32>,
}

impl Walker<'_> {
    /// A query that means a thing, with a name so many steps away.
    fn query(&mut self, thing: u32, depth: usize, breadth: usize) -> Option<Query> {
        let kind = self.web.thing(thing)?.kind.clone();
        let mut clues = vec![self.step(thing, depth)?];
        for _ in 1..breadth {
            let more = if self.stream.chance(70) { self.number(thing) } else { None };
            // Where the article of what is asked for could be found by it, a name is not near.
            let near = if depth == self.walk.depth { 2 } else { 1 };
            let clue = more.or_else(|| self.step(thing, near))?;
            if clues.iter().any(|other: &Clue| other.relation == clue.relation && other.inverse == clue.inverse) {
                return None;
            }
            clues.push(clue);
        }
        self.stream.shuffle(&mut clues);
        Some(Query { kind, clues })
    }

    /// A clue that leads to another thing.
    fn step(&mut self, thing: u32, depth: usize) -> Option<Clue> {
        let numbered = |relation: u32| self.web.graph.relations.get(relation as usize).is_none_or(|of| of.number);
        let of = self.web.of.get(thing as usize)?.iter().filter(|(relation, _)| !numbered(*relation));
        let of = of.filter_map(|(relation, object)| Some((*relation, false, u32::try_from(*object).ok()?)));
        let to = self.web.to.get(thing as usize)?.iter().map(|(relation, subject)| (*relation, true, *subject));
        let ways: Vec<(u32, bool, u32)> = of.chain(to).filter(|(_, _, other)| !self.seen.contains(other)).collect();
        let (relation, inverse, other) = *self.stream.pick(&ways)?;
        self.seen.insert(other);
        let target = if depth > 1 {
            Target::Described(self.query(other, depth - 1, self.walk.inner)?)
        } else {
            let thing = self.web.thing(other)?;
            let alias = thing.alias.as_ref().filter(|_| self.walk.aliases);
            Target::Named(alias.unwrap_or(&thing.name).clone())
        };
        Some(Clue { relation: self.web.graph.relations.get(relation as usize)?.name.clone(), inverse, target })
    }

    /// A clue that compares a number with a round one.
    fn number(&mut self, thing: u32) -> Option<Clue> {
        let facts: Vec<(u32, i64)> = self.web.of.get(thing as usize)?.clone();
        let relation_of = |relation: u32| self.web.graph.relations.get(relation as usize);
        let numbers: Vec<(u32, i64)> = facts
            .into_iter()
            .filter(|(relation, _)| {
                Some(*relation) != self.hidden && relation_of(*relation).is_some_and(|of| of.number)
            })
            .collect();
        let (relation, number) = *self.stream.pick(&numbers)?;
        let step = if number > 2_100 { 100 } else { 10 };
        let away = step * self.stream.between(1, 4);
        let target = if self.stream.chance(50) {
            Target::Above((number - away).div_euclid(step) * step)
        } else {
            Target::Below((number + away + step - 1).div_euclid(step) * step)
        };
        Some(Clue { relation: relation_of(relation)?.name.clone(), inverse: false, target })
    }
}

/// The query with one clue left out, in every way that leaves one that leads to a thing.
pub(super) fn without_a_clue(query: &Query) -> Vec<Query> {
    let mut found = Vec::new();
    for (at, clue) in query.clues.iter().enumerate() {
        let with = |other: Option<Clue>| {
            let mut clues = query.clues.clone();
            match other {
                Some(other) => clues[at] = other,
                None => drop(clues.remove(at)),
            }
            Query { kind: query.kind.clone(), clues }
        };
        if query.clues.len() > 1 {
            found.push(with(None));
        }
        if let Target::Described(inner) = &clue.target {
            let others = without_a_clue(inner).into_iter();
            found.extend(others.map(|inner| with(Some(Clue { target: Target::Described(inner), ..clue.clone() }))));
        }
    }
    found
}
