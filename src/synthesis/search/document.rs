//! The documents that tell a graph's facts: articles with all of them, and listings, letters, chronicles and pages of
//! namesakes with some, which resemble articles.

use std::collections::BTreeMap;

use super::graph::{Fact, Graph, Thing, capital};
use super::theme::{Object, Theme};
use crate::environment::corpus::Document;
use crate::synthesis::seed::Stream;

/// The sentence that tells another name, as those of relations.
pub(super) const ALIAS: &str = "{s} is also known as {o}";

/// A sentence with its blanks filled.
pub(super) fn filled(sentence: &str, subject: &str, object: &str) -> String {
    sentence.replace("{s}", subject).replace("{o}", object)
}

/// Documents in the making.
struct Printer<'a> {
    graph: &'a Graph,
    theme: &'a Theme,
    stream: &'a mut Stream,
}

/// All documents of a graph, in a random order.
pub(super) fn documents(graph: &Graph, theme: &Theme, stream: &mut Stream) -> Vec<Document> {
    let mut printer = Printer { graph, theme, stream };
    let mut documents: Vec<Document> = Vec::new();
    for (place, thing) in (0..).zip(&graph.things) {
        documents.push(printer.article(place, thing));
    }
    documents.extend(printer.listings());
    documents.extend(printer.chronicles());
    documents.extend(printer.letters());
    documents.extend(printer.namesakes());
    stream.shuffle(&mut documents);
    documents
}

impl Printer<'_> {
    fn name(&self, place: u32) -> &str {
        self.graph.things.get(place as usize).map_or("", |thing| thing.name.as_str())
    }

    /// A fact as a sentence. With `short`, a subject in front is told by its short name.
    fn sentence(&mut self, fact: &Fact, short: Option<&str>) -> String {
        let Some(relation) = self.graph.relations.get(fact.1 as usize) else { return String::new() };
        let sentence = self.stream.pick(&relation.sentences).map_or("", String::as_str);
        let object = if relation.number {
            fact.2.to_string()
        } else {
            u32::try_from(fact.2).map_or_else(|_| String::new(), |place| self.name(place).to_string())
        };
        let subject = match short {
            Some(short) if sentence.starts_with("{s}") => short,
            _ => self.name(fact.0),
        };
        capital(&format!("{}.", filled(sentence, subject, &object)))
    }

    fn article(&mut self, place: u32, thing: &Thing) -> Document {
        let kind = self.theme.kinds.iter().find(|kind| kind.name == thing.kind);
        let short = match kind {
            Some(kind) if kind.person => thing.name.split(' ').next_back().unwrap_or_default(),
            _ => "It",
        };
        let graph = self.graph;
        let mut paragraphs = Vec::new();
        let article = if thing.kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let mut first = format!("{} is {article} {}.", thing.name, thing.kind);
        if let Some(alias) = &thing.alias {
            first.push_str(&format!(" {}.", filled(ALIAS, &thing.name, alias)));
        }
        paragraphs.push(first);
        let mut own: Vec<&Fact> = graph.facts.iter().filter(|fact| fact.0 == place).collect();
        self.stream.shuffle(&mut own);
        for facts in own.chunks(3) {
            let sentences: Vec<String> = facts.iter().map(|fact| self.sentence(fact, Some(short))).collect();
            paragraphs.push(sentences.join(" "));
        }
        let filler = self.stream.word(self.theme.fillers);
        let middle = 1 + self.stream.below(paragraphs.len());
        paragraphs.insert(middle, format!("{}.", filled(filler, &thing.name, "")));
        let number = |fact: &&Fact| graph.relations.get(fact.1 as usize).is_none_or(|relation| relation.number);
        let mut others: Vec<&Fact> =
            graph.facts.iter().filter(|fact| fact.2 == i64::from(place) && !number(fact)).collect();
        self.stream.shuffle(&mut others);
        let room = self.stream.below(3);
        if room > 0 && !others.is_empty() {
            let sentences: Vec<String> = others.iter().take(room).map(|fact| self.sentence(fact, None)).collect();
            paragraphs.push(sentences.join(" "));
        }
        Document { kind: "article".to_string(), title: thing.name.clone(), text: paragraphs.join("\n") }
    }

    /// Of the objects that many things relate to: a part of those things.
    fn listings(&mut self) -> Vec<Document> {
        let mut groups: BTreeMap<(u32, i64), Vec<Fact>> = BTreeMap::new();
        for fact in &self.graph.facts {
            let relation = self.theme.relations.get(fact.1 as usize);
            if relation.is_some_and(|relation| matches!(relation.object, Object::Thing(_))) {
                groups.entry((fact.1, fact.2)).or_default().push(*fact);
            }
        }
        let mut documents = Vec::new();
        for ((relation, object), facts) in groups {
            if facts.len() < 5 || !self.stream.chance(50) {
                continue;
            }
            let subject = self.theme.relations.get(relation as usize).and_then(|of| self.theme.kinds.get(of.subject));
            let plural = subject.map_or("", |kind| kind.plural);
            let object = u32::try_from(object).map_or("", |object| self.name(object));
            let title = format!("Some {plural} and {object}");
            let some: Vec<&Fact> = facts.iter().step_by(2).collect();
            let lines: Vec<String> = some.iter().map(|fact| self.sentence(fact, None)).collect();
            documents.push(Document { kind: "listing".to_string(), title, text: lines.join("\n") });
        }
        documents
    }

    /// Years of ten at a time.
    fn chronicles(&mut self) -> Vec<Document> {
        let mut decades: BTreeMap<i64, Vec<Fact>> = BTreeMap::new();
        for fact in &self.graph.facts {
            let relation = self.theme.relations.get(fact.1 as usize);
            if relation.is_some_and(|relation| matches!(relation.object, Object::Year(..))) && self.stream.chance(40) {
                decades.entry(fact.2 / 10 * 10).or_default().push(*fact);
            }
        }
        let mut documents = Vec::new();
        for (decade, mut facts) in decades {
            facts.sort_unstable_by_key(|fact| (fact.2, *fact));
            let lines: Vec<String> = facts.iter().map(|fact| self.sentence(fact, None)).collect();
            let title = format!("Chronicle of the {decade}s");
            documents.push(Document { kind: "chronicle".to_string(), title, text: lines.join("\n") });
        }
        documents
    }

    /// Letters that speak of things by their other names.
    fn letters(&mut self) -> Vec<Document> {
        let mut documents = Vec::new();
        let aliases: Vec<&Thing> = self.graph.things.iter().filter(|thing| thing.alias.is_some()).collect();
        for number in 1..=24 {
            let about = self.stream.pick(&aliases).and_then(|thing| thing.alias.clone()).unwrap_or_default();
            let facts: Vec<Fact> = (0..2).filter_map(|_| self.stream.pick(&self.graph.facts).copied()).collect();
            let facts: Vec<String> = facts.iter().map(|fact| self.sentence(fact, None)).collect();
            let greeting = self.stream.word(&["Dear friend", "My dear cousin", "Dear colleague", "Esteemed editor"]);
            let line = self.stream.word(&[
                "People here still talk of",
                "You asked me again what I think of",
                "I have been reading old papers about",
                "Nobody in the archive remembers",
            ]);
            let text = format!(
                "{greeting},\n{line} {about}.\nWhat I could find out is this. {}\nMore in my next letter.",
                facts.join(" ")
            );
            documents.push(Document { kind: "letter".to_string(), title: format!("Letter {number}"), text });
        }
        documents
    }

    /// Last names that several persons have.
    fn namesakes(&mut self) -> Vec<Document> {
        let mut names: BTreeMap<&str, Vec<&Thing>> = BTreeMap::new();
        for thing in &self.graph.things {
            if self.theme.kinds.iter().any(|kind| kind.person && kind.name == thing.kind) {
                names.entry(thing.name.split(' ').next_back().unwrap_or_default()).or_default().push(thing);
            }
        }
        let shared = names.into_iter().filter(|(_, things)| things.len() > 1);
        let document = |(name, things): (&str, Vec<&Thing>)| {
            let lines: Vec<String> = things.iter().map(|thing| format!("{}, {}", thing.name, thing.kind)).collect();
            let text = format!("{name} may be one of these:\n{}", lines.join("\n"));
            Document { kind: "namesakes".to_string(), title: format!("{name} (name)"), text }
        };
        shared.map(document).collect()
    }
}
