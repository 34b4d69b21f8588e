//! Documents with tools to search, open and answer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue, json};

use super::index::{SearchIndex, tokens};
use crate::chat::{Json, Message, Tool};
use crate::environment::task::{Environment, Verdict};
use crate::environment::toolbox::ToolFailure;

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What kind of text it is.
    pub kind: String,
    /// The title.
    pub title: String,
    /// The text, a paragraph a line.
    pub text: String,
}

/// Documents with their index.
#[derive(Debug)]
pub struct Corpus {
    documents: Vec<Document>,
    /// The pages of each document.
    pages: Vec<Vec<String>>,
    index: SearchIndex,
    hits: usize,
}

/// Judges an answer.
pub trait AnswerVerifier: Send + Sync {
    /// What is wrong with the answer; nothing if it is right.
    fn problems(&self, answer: Option<&str>) -> Vec<String>;
}

/// The paragraphs of a text in pages of up to so many characters; a longer paragraph is a page of its own.
fn pages(text: &str, characters: usize) -> Vec<String> {
    let mut pages: Vec<String> = Vec::new();
    let mut room = 0;
    for paragraph in text.lines() {
        let size = paragraph.chars().count() + 1;
        match pages.last_mut() {
            Some(page) if size <= room => {
                page.push('\n');
                page.push_str(paragraph);
                room -= size;
            }
            _ => {
                pages.push(paragraph.to_string());
                room = characters.saturating_sub(size);
            }
        }
    }
    if pages.is_empty() {
        pages.push(String::new());
    }
    pages
}

/// The sentences of a text, without their full stops.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split(". ")).map(|sentence| sentence.strip_suffix('.').unwrap_or(sentence))
}

impl Corpus {
    /// Documents, of which a search shows up to `hits` at once, and which open in pages of up to `characters`.
    pub fn new(documents: Vec<Document>, hits: usize, characters: usize) -> Self {
        let texts: Vec<String> =
            documents.iter().map(|document| format!("{}\n{}", document.title, document.text)).collect();
        Self {
            index: SearchIndex::new(texts.iter().map(String::as_str)),
            pages: documents.iter().map(|document| pages(&document.text, characters)).collect(),
            documents,
            hits: hits.max(1),
        }
    }

    /// The documents.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// A page of the results of a search, from 1 on.
    ///
    /// # Errors
    /// A text for the model: the query has no words, or there is no such page.
    pub fn search(&self, query: &str, page: i64) -> Result<JsonValue, String> {
        let words: BTreeSet<String> = tokens(query).collect();
        if words.is_empty() {
            return Err("the query has no words".to_string());
        }
        let found = self.index.search(query);
        let (page, pages, range) = place(page, found.len(), self.hits)?;
        let shown = found[range].iter().map(|hit| {
            let document = &self.documents[hit.document];
            json!({
                "id": id(hit.document), "kind": document.kind, "title": document.title,
                "snippet": snippet(&document.text, &words),
            })
        });
        Ok(json!({"results": shown.collect::<Vec<_>>(), "page": page, "pages": pages}))
    }

    /// A page of a document, from 1 on.
    ///
    /// # Errors
    /// A text for the model: there is no such document or page.
    pub fn open(&self, name: &str, page: i64) -> Result<JsonValue, String> {
        let place_of = name.strip_prefix("doc-").and_then(|number| number.parse::<usize>().ok());
        let found = place_of
            .filter(|place| id(*place) == name)
            .and_then(|place| Some((self.documents.get(place)?, self.pages.get(place)?)));
        let (document, texts) = found.ok_or_else(|| format!("there is no document {name:?}"))?;
        let (page, pages, range) = place(page, texts.len(), 1)?;
        Ok(json!({
            "id": name, "kind": document.kind, "title": document.title, "text": texts[range].join("\n"),
            "page": page, "pages": pages,
        }))
    }

    /// The tools, as the model sees them.
    pub fn tools() -> Vec<Tool> {
        let page = || json!({"type": "integer", "minimum": 1, "description": "The page, from 1 on; 1 if left out."});
        let text = |about: &str| json!({"type": "string", "description": about});
        let tool = |name: &str, about: &str, properties: JsonValue, required: &str| {
            let schema = json!({
                "type": "object", "properties": properties, "required": [required], "additionalProperties": false
            });
            Tool::new(name, about, Json::from(&schema))
        };
        vec![
            tool(
                "search",
                "Searches the archive. Returns documents that have words of the query, best first, page by page.",
                json!({"query": text("Words to look for."), "page": page()}),
                "query",
            ),
            tool(
                "open",
                "Opens a document of the archive by the id that a search returned, page by page.",
                json!({"id": text("The document's id."), "page": page()}),
                "id",
            ),
            tool(
                "submit_result",
                "Submits the answer.",
                json!({"answer_text": text("The answer alone.")}),
                "answer_text",
            ),
        ]
    }

    /// Carries out a call of [`Self::tools`] other than the last.
    fn call(&self, name: &str, arguments: &Map<String, JsonValue>) -> Result<JsonValue, String> {
        let page = match arguments.get("page") {
            None => 1,
            Some(page) => page.as_i64().ok_or("the page must be a whole number")?,
        };
        match name {
            "search" => self.search(text(arguments, "query")?, page),
            "open" => self.open(text(arguments, "id")?, page),
            _ => Err(format!("there is no tool {name:?}")),
        }
    }
}

/// The id of a document.
fn id(place: usize) -> String {
    format!("doc-{place:03}")
}

/// The number of a page, that of all pages, and what is on it.
fn place(page: i64, count: usize, size: usize) -> Result<(usize, usize, std::ops::Range<usize>), String> {
    let pages = count.div_ceil(size).max(1);
    let page = usize::try_from(page).ok().filter(|page| (1..=pages).contains(page));
    let page = page.ok_or_else(|| format!("there are pages 1 to {pages}"))?;
    Ok((page, pages, (page - 1) * size..count.min(page * size)))
}

/// The first of the sentences that have most words of a query.
fn snippet<'a>(text: &'a str, words: &BTreeSet<String>) -> &'a str {
    let mut best = ("", 0);
    for sentence in sentences(text) {
        let found: BTreeSet<String> = tokens(sentence).filter(|token| words.contains(token)).collect();
        if found.len() > best.1 || best.0.is_empty() {
            best = (sentence, found.len());
        }
    }
    best.0
}

fn text<'a>(arguments: &'a Map<String, JsonValue>, name: &str) -> Result<&'a str, String> {
    arguments.get(name).and_then(JsonValue::as_str).ok_or_else(|| format!("{name} must be a text"))
}

/// A corpus with a question. The answer is what `submit_result` got last.
#[derive(Clone)]
pub struct CorpusWorld {
    id: String,
    domain: String,
    prompt: String,
    corpus: Arc<Corpus>,
    verifier: Arc<dyn AnswerVerifier>,
    answer: Option<String>,
}

impl CorpusWorld {
    /// A world in its first state, of the domain `search`.
    pub fn new(
        id: impl Into<String>,
        prompt: impl Into<String>,
        corpus: Arc<Corpus>,
        verifier: Arc<dyn AnswerVerifier>,
    ) -> Self {
        let domain = "search".to_string();
        Self { id: id.into(), domain, prompt: prompt.into(), corpus, verifier, answer: None }
    }

    /// The same world with another kind of task.
    pub fn with_domain(self, domain: impl Into<String>) -> Self {
        Self { domain: domain.into(), ..self }
    }

    /// The answer that was submitted last.
    pub fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// [`Environment::step`] with arguments and result as serde_json has them.
    ///
    /// # Errors
    /// A text for the model that says what is wrong with the call.
    pub fn call(&mut self, name: &str, arguments: &Map<String, JsonValue>) -> Result<JsonValue, String> {
        let known = match name {
            "search" => ["query", "page"],
            "open" => ["id", "page"],
            _ => ["answer_text", "answer_text"],
        };
        if let Some(other) = arguments.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("{name} has no parameter {other:?}"));
        }
        if name == "submit_result" {
            self.answer = Some(text(arguments, "answer_text")?.to_string());
            return Ok(JsonValue::from("submitted"));
        }
        self.corpus.call(name, arguments)
    }
}

impl Environment for CorpusWorld {
    fn id(&self) -> &str {
        &self.id
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn reset(&mut self) -> Vec<Message> {
        self.answer = None;
        vec![Message::user(self.prompt.clone())]
    }

    fn tools(&self) -> Vec<Tool> {
        Corpus::tools()
    }

    fn step(&mut self, tool: &str, arguments: &Json) -> Result<String, ToolFailure> {
        let JsonValue::Object(arguments) = arguments.to_value() else {
            return Err("the arguments must be an object".into());
        };
        Ok(self.call(tool, &arguments)?.to_string())
    }

    fn verify(&self, _answer: Option<&Message>) -> Verdict {
        let problems = self.verifier.problems(self.answer.as_deref());
        if problems.is_empty() { Verdict::solved() } else { Verdict { score: 0.0, solved: false, problems } }
    }

    fn fork(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for CorpusWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorpusWorld").field("id", &self.id).finish_non_exhaustive()
    }
}
