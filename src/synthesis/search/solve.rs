//! A solver that only calls tools and reads what they return: it searches for the names of a question, opens articles,
//! and takes facts from their sentences. `solution.py` does the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value as JsonValue, json};

use super::document::ALIAS;
use super::graph::Relation;
use super::question::{Ask, Clue, Query, Question, Target};

/// Pages of results that are read of one search.
const MOST_PAGES: i64 = 8;

/// Calls a tool.
pub(super) type Call<'a> = dyn FnMut(&str, Map<String, JsonValue>) -> Result<JsonValue, String> + 'a;

/// A result of a search.
#[derive(Debug, Clone)]
struct Found {
    id: String,
    title: String,
}

/// An article that was opened.
#[derive(Debug, Clone)]
struct Article {
    title: String,
    sentences: Vec<String>,
}

/// A solver with what it has read.
pub(super) struct Solver<'a> {
    call: &'a mut Call<'a>,
    relations: &'a [Relation],
    opened: BTreeMap<String, Article>,
    searched: BTreeMap<(String, i64), (Vec<Found>, i64)>,
}

/// Subject and object of a sentence of a form.
pub(super) fn read<'a>(form: &str, sentence: &'a str) -> Option<(&'a str, &'a str)> {
    let (before, rest) = form.split_once("{s}")?;
    let (between, after) = rest.split_once("{o}")?;
    let (subject, object) = sentence.strip_prefix(before)?.strip_suffix(after)?.split_once(between)?;
    (!subject.is_empty() && !object.is_empty()).then_some((subject, object))
}

/// The facts of a form that an article tells; a short name in front is that of its title.
pub(super) fn told<'a>(form: &str, title: &'a str, sentence: &'a str) -> Option<(&'a str, &'a str)> {
    let (subject, object) = read(form, sentence)?;
    let short = subject == "It" || title.strip_suffix(subject).is_some_and(|first| first.ends_with(' '));
    Some((if short { title } else { subject }, object))
}

/// The sentences of a text, without their full stops.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.split(". ")).map(|sentence| sentence.strip_suffix('.').unwrap_or(sentence))
}

fn arguments(value: JsonValue) -> Map<String, JsonValue> {
    if let JsonValue::Object(arguments) = value { arguments } else { Map::new() }
}

fn text(value: &JsonValue, key: &str) -> String {
    value.get(key).and_then(JsonValue::as_str).unwrap_or_default().to_string()
}

impl<'a> Solver<'a> {
    /// A solver that has read nothing. The relations say how facts are told.
    pub fn new(relations: &'a [Relation], call: &'a mut Call<'a>) -> Self {
        Self { call, relations, opened: BTreeMap::new(), searched: BTreeMap::new() }
    }

    /// The answer of a question, which is submitted, too.
    pub fn solve(&mut self, question: &Question) -> Result<String, String> {
        let found = self.resolve(&question.of)?;
        let [name] = &found[..] else { return Err(format!("{} things were found, expected 1", found.len())) };
        let answer = match &question.ask {
            Ask::Name => name.clone(),
            Ask::Number(relation) => {
                let numbers = self.objects(name, relation)?;
                numbers.first().cloned().ok_or_else(|| format!("{name} has no {relation}"))?
            }
        };
        (self.call)("submit_result", arguments(json!({"answer_text": answer})))?;
        Ok(answer)
    }

    /// The articles of a page of results, and how many pages there are.
    fn search(&mut self, query: &str, page: i64) -> Result<(Vec<Found>, i64), String> {
        let key = (query.to_string(), page);
        if let Some(found) = self.searched.get(&key) {
            return Ok(found.clone());
        }
        let given = if page == 1 { json!({"query": query}) } else { json!({"query": query, "page": page}) };
        let result = (self.call)("search", arguments(given))?;
        let results = result.get("results").and_then(JsonValue::as_array).map_or(&[][..], Vec::as_slice);
        let articles = results.iter().filter(|result| text(result, "kind") == "article");
        let articles = articles.map(|result| Found { id: text(result, "id"), title: text(result, "title") }).collect();
        let found = (articles, result.get("pages").and_then(JsonValue::as_i64).unwrap_or(1));
        self.searched.insert(key, found.clone());
        Ok(found)
    }

    fn open(&mut self, found: &Found) -> Result<Article, String> {
        if let Some(article) = self.opened.get(&found.id) {
            return Ok(article.clone());
        }
        let mut article = Article { title: found.title.clone(), sentences: Vec::new() };
        let (mut page, mut pages) = (1, 1);
        while page <= pages {
            let given = if page == 1 { json!({"id": found.id}) } else { json!({"id": found.id, "page": page}) };
            let result = (self.call)("open", arguments(given))?;
            article.sentences.extend(sentences(&text(&result, "text")).map(str::to_string));
            pages = result.get("pages").and_then(JsonValue::as_i64).unwrap_or(1);
            page += 1;
        }
        self.opened.insert(found.id.clone(), article.clone());
        Ok(article)
    }

    fn forms(&self, relation: &str) -> &'a [String] {
        let found = self.relations.iter().find(|other| other.name == relation);
        found.map_or(&[], |relation| relation.sentences.as_slice())
    }

    /// The article about a thing.
    fn article(&mut self, name: &str) -> Result<Article, String> {
        let (mut page, mut pages) = (1, 1);
        while page <= pages.min(MOST_PAGES) {
            let (found, count) = self.search(name, page)?;
            if let Some(found) = found.iter().find(|found| found.title == name) {
                return self.open(found);
            }
            pages = count;
            page += 1;
        }
        Err(format!("there is no article about {name}"))
    }

    /// The name of the thing that has this name or other name.
    fn canonical(&mut self, name: &str) -> Result<String, String> {
        let (found, _) = self.search(name, 1)?;
        if found.iter().any(|found| found.title == name) {
            return Ok(name.to_string());
        }
        for found in &found {
            let article = self.open(found)?;
            let mut told = article.sentences.iter().filter_map(|sentence| told(ALIAS, &article.title, sentence));
            if told.any(|(subject, other)| subject == article.title && other == name) {
                return Ok(article.title.clone());
            }
        }
        Err(format!("nothing is called {name}"))
    }

    /// What a thing relates to.
    fn objects(&mut self, name: &str, relation: &str) -> Result<Vec<String>, String> {
        let article = self.article(name)?;
        let mut objects: Vec<String> = Vec::new();
        for sentence in &article.sentences {
            for form in self.forms(relation) {
                if let Some((subject, object)) = told(form, &article.title, sentence)
                    && subject == name
                    && !objects.iter().any(|known| known == object)
                {
                    objects.push(object.to_string());
                }
            }
        }
        Ok(objects)
    }

    /// What relates to a thing, from all articles that mention it.
    fn subjects(&mut self, relation: &str, object: &str) -> Result<Vec<String>, String> {
        let mut subjects: Vec<String> = Vec::new();
        let (mut page, mut pages) = (1, 1);
        while page <= pages.min(MOST_PAGES) {
            let (found, count) = self.search(object, page)?;
            let mut mentioned = false;
            for found in &found {
                let article = self.open(found)?;
                for sentence in &article.sentences {
                    mentioned = mentioned || sentence.contains(object);
                    for form in self.forms(relation) {
                        if let Some((subject, other)) = told(form, &article.title, sentence)
                            && other == object
                            && !subjects.iter().any(|known| known == subject)
                        {
                            subjects.push(subject.to_string());
                        }
                    }
                }
            }
            // Results are sorted: behind a page without the name, there is none with it.
            if !mentioned {
                break;
            }
            pages = count;
            page += 1;
        }
        Ok(subjects)
    }

    /// The names of the other side of a clue.
    fn others(&mut self, clue: &Clue) -> Result<Vec<String>, String> {
        match &clue.target {
            Target::Named(name) => Ok(vec![self.canonical(name)?]),
            Target::Described(query) => self.resolve(query),
            Target::Below(_) | Target::Above(_) => Ok(Vec::new()),
        }
    }

    /// The names of all things that a query means. The clue that leads to things comes first, the others are checked.
    fn resolve(&mut self, query: &Query) -> Result<Vec<String>, String> {
        let is_number = |clue: &&Clue| matches!(clue.target, Target::Below(_) | Target::Above(_));
        let (numbers, leading): (Vec<&Clue>, Vec<&Clue>) = query.clues.iter().partition(is_number);
        let mut names: Option<Vec<String>> = None;
        for clue in leading {
            let others = self.others(clue)?;
            let mut kept: Vec<String> = Vec::new();
            match names.take() {
                Some(known) if !clue.inverse => {
                    for name in known {
                        let objects = self.objects(&name, &clue.relation)?;
                        if objects.iter().any(|object| others.contains(object)) {
                            kept.push(name);
                        }
                    }
                }
                known => {
                    for other in &others {
                        let found = if clue.inverse {
                            self.objects(other, &clue.relation)?
                        } else {
                            self.subjects(&clue.relation, other)?
                        };
                        for name in found {
                            if known.as_ref().is_none_or(|known| known.contains(&name)) && !kept.contains(&name) {
                                kept.push(name);
                            }
                        }
                    }
                }
            }
            names = Some(kept);
        }
        let mut names = names.ok_or("a query has no clue that leads to a thing")?;
        for clue in numbers {
            let mut kept = Vec::new();
            for name in names {
                let objects = self.objects(&name, &clue.relation)?;
                let right = |number: i64| match clue.target {
                    Target::Below(limit) => number < limit,
                    Target::Above(limit) => number > limit,
                    _ => false,
                };
                if objects.iter().filter_map(|object| object.parse().ok()).any(right) {
                    kept.push(name);
                }
            }
            names = kept;
        }
        Ok(names)
    }
}
