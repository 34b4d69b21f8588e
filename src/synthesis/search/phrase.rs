//! Questions as a person would ask them.

use super::graph::Web;
use super::question::{Ask, Clue, Query, Question, Target};
use super::theme::{Object, Relation, Theme};
use crate::synthesis::seed::Stream;

fn relation<'a>(theme: &'a Theme, name: &str) -> Option<&'a Relation> {
    theme.relations.iter().find(|relation| relation.name == name)
}

/// A thing as a query describes it.
pub(super) fn described(query: &Query, theme: &Theme, web: &Web) -> Result<String, String> {
    let one = query.find(web)?.len() == 1;
    let article = match (one, query.kind.starts_with(['a', 'e', 'i', 'o', 'u'])) {
        (true, _) => "the",
        (false, true) => "an",
        (false, false) => "a",
    };
    let person = theme.kinds.iter().any(|kind| kind.person && kind.name == query.kind);
    // Short clues first, so that each stands beside what it is about.
    let nested = |clue: &&Clue| matches!(clue.target, Target::Described(_));
    let (long, short): (Vec<&Clue>, Vec<&Clue>) = query.clues.iter().partition(nested);
    let clauses: Result<Vec<String>, String> =
        short.into_iter().chain(long).map(|clue| clause(clue, person, theme, web)).collect();
    Ok(format!("{article} {} {}", query.kind, clauses?.join(" and ")))
}

fn clause(clue: &Clue, person: bool, theme: &Theme, web: &Web) -> Result<String, String> {
    let relation = relation(theme, &clue.relation).ok_or_else(|| format!("there is no relation {}", clue.relation))?;
    let year = matches!(relation.object, Object::Year(..));
    let other = match &clue.target {
        Target::Named(name) => name.clone(),
        Target::Described(query) => described(query, theme, web)?,
        Target::Below(limit) => format!("{} {limit}", if year { "before" } else { "fewer than" }),
        Target::Above(limit) => format!("{} {limit}", if year { "after" } else { "more than" }),
    };
    if clue.inverse {
        return Ok(relation.inverse.replace("{s}", &other));
    }
    let pronoun = if person { "who" } else { "that" };
    Ok(format!("{pronoun} {}", relation.clue.replace("{o}", &other)))
}

/// A question in words.
pub(super) fn prompt(question: &Question, theme: &Theme, web: &Web, stream: &mut Stream) -> Result<String, String> {
    let thing = described(&question.of, theme, web)?;
    let kind = &question.of.kind;
    Ok(match &question.ask {
        Ask::Name => {
            let asked = match stream.below(4) {
                0 => format!("I am looking for {thing}. What is the name?"),
                1 => format!("What is the name of {thing}?"),
                2 => format!("A reader asks about {thing}. Which {kind} is meant?"),
                _ => format!("Please identify {thing}."),
            };
            let how = stream.word(&[
                "Search the archive and submit the name alone.",
                "The archive should have it; submit nothing but the name.",
                "Look it up in the archive and submit only the name.",
            ]);
            format!("{asked} {how}")
        }
        Ask::Number(name) => {
            let relation = relation(theme, name).ok_or_else(|| format!("there is no relation {name}"))?;
            let asked = match stream.below(2) {
                0 => relation.inverse.replace("{x}", &thing),
                _ => format!("This is about {thing}. {}", relation.inverse.replace("{x}", &format!("that {kind}"))),
            };
            let how = stream.word(&[
                "Search the archive and submit the number alone.",
                "The archive should have it; submit nothing but the number.",
                "Look it up in the archive and submit only the number.",
            ]);
            format!("{asked} {how}")
        }
    })
}
