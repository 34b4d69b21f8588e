//! The search category: questions over a closed, generated corpus.
//!
//! A [`theme::Theme`] says which kinds of things there are and how they relate. A [`graph::Graph`] of it is drawn and
//! printed as documents. Questions walk the graph away from a thing that few facts speak of, and are kept if the thing
//! is the only one that is meant, if every wrong one verifiably is not, and if a solver that only searches and opens
//! documents finds it. What the tools show is [`crate::environment::corpus`].
//!
//! Its ranking is an index of the crate's own, in whole numbers: the export's Python finds the same documents, on any
//! machine and however the run is split, and an index of a corpus is made in milliseconds.

mod document;
mod draft;
pub mod graph;
mod make;
mod phrase;
pub mod question;
mod solve;
pub mod theme;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub(super) use make::{GATES, make};

use self::graph::{Graph, Web};
use self::question::Question;
use super::category::{Category, Opened, TaskGoal};
use super::error::{Result, SynthesisError};
use super::record::TaskRecord;
use crate::chat::Tool;
use crate::environment::Environment;
use crate::environment::corpus::{AnswerVerifier, Corpus, CorpusWorld, Document};

const TOOLS: &str = include_str!("tools.py");
const SOLUTION: &str = include_str!("solution.py");
const VERIFY: &str = include_str!("verify.py");

/// Documents and what they tell, as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusRecord {
    /// Results of a page.
    pub hits: usize,
    /// Characters of a page of a document.
    pub characters: usize,
    /// The documents.
    pub documents: Vec<Document>,
    /// What they tell; the tools do not show it.
    pub graph: Graph,
}

/// A corpus with its index and its facts.
pub(super) struct OpenCorpus {
    corpus: Arc<Corpus>,
    web: Arc<Web>,
    record: CorpusRecord,
}

/// A question with the facts that it is judged by.
struct Judge {
    web: Arc<Web>,
    question: Question,
}

impl AnswerVerifier for Judge {
    fn problems(&self, answer: Option<&str>) -> Vec<String> {
        self.question.problems(&self.web, answer)
    }
}

impl CorpusRecord {
    /// The documents with their index.
    pub fn corpus(&self) -> Corpus {
        Corpus::new(self.documents.clone(), self.hits, self.characters)
    }

    /// Reads and checks the content.
    pub(super) fn open(&self) -> Result<OpenCorpus> {
        let web = Web::new(self.graph.clone()).map_err(|problem| SynthesisError::Graph { problem })?;
        Ok(OpenCorpus { corpus: Arc::new(self.corpus()), web: Arc::new(web), record: self.clone() })
    }
}

impl TaskGoal {
    /// The question of a task of the search category.
    pub fn search(&self) -> Option<&Question> {
        match self {
            Self::Search(question) => Some(question),
            _ => None,
        }
    }
}

impl OpenCorpus {
    fn question<'a>(&self, task: &'a TaskRecord) -> Result<&'a Question> {
        task.goal.search().ok_or_else(|| task.misplaced(Category::Search))
    }
}

impl Opened for OpenCorpus {
    fn tools(&self) -> Vec<Tool> {
        Corpus::tools()
    }

    fn world(&self, task: &TaskRecord) -> Result<Box<dyn Environment>> {
        let judge = Judge { web: Arc::clone(&self.web), question: self.question(task)?.clone() };
        let world = CorpusWorld::new(&task.id, &task.prompt, Arc::clone(&self.corpus), Arc::new(judge));
        Ok(Box::new(world.with_domain(Category::Search.name())))
    }

    fn problems(&self, task: &TaskRecord, answer: Option<&str>) -> Result<Vec<String>> {
        Ok(self.question(task)?.problems(&self.web, answer))
    }

    fn python(&self, task: &TaskRecord) -> Result<Vec<(&'static str, String)>> {
        let question = self.question(task)?;
        // A text of JSON is a text of Python, too.
        let literal = |value: serde_json::Value| json!(value.to_string());
        let question = format!("import json\n\nQUESTION = json.loads(\n    {}\n)\n", literal(json!(question)));
        let forms: serde_json::Map<String, serde_json::Value> = self
            .record
            .graph
            .relations
            .iter()
            .map(|relation| (relation.name.clone(), json!(relation.sentences)))
            .collect();
        let forms = format!("# How the articles tell facts.\nFORMS = json.loads(\n    {}\n)\n", literal(forms.into()));
        Ok(vec![
            ("environment.json", format!("{}\n", json!(self.record))),
            ("tools.py", TOOLS.to_string()),
            ("solution.py", format!("{question}{forms}{SOLUTION}")),
            ("verify.py", format!("{question}\n\n{VERIFY}")),
        ])
    }
}
