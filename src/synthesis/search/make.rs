//! Makes the corpora and questions of a run, and lets the questions through gates.
//!
//! draft: the walk from a random thing is long enough and can be told. unique: one thing is meant; two ways to find it agree, and every other thing of the kind fails. clues: without any
//! of its clues the question means something else. G3: at most 1 in 100 random answers of the right kind passes. G10: a
//! corpus has few questions of one form, and each once. closed book: names and numbers of the prompt and the thing that most
//! facts speak of fail. one hop: what is a step away from a name of the prompt, and the first article of the kind on
//! the first page of a search for the whole prompt, fail. G6: in two other graphs of the same things the answer is wrong. G2: no answer and empty answers
//! fail. G4: near misses fail. G5: other names pass. G1: the solver, which only searches and opens, finds the answer
//! within bounds, and every call is one that the tools take.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as JsonValue, json};

use super::CorpusRecord;
use super::document::documents;
use super::draft::{draft, without_a_clue};
use super::graph::{Graph, Web};
use super::phrase::prompt;
use super::question::{Ask, Query, Question, Target, plain};
use super::solve::Solver;
use super::theme::{Object, THEMES, Theme};
use crate::environment::corpus::{AnswerVerifier, Corpus, CorpusWorld};
use crate::environment::tables::hash;
use crate::synthesis::category::{Category, Content, TaskGoal};
use crate::synthesis::record::{
    Attempt, CallRecord, Difficulty, EnvironmentRecord, Quality, Reject, SCHEMA_VERSION, TaskRecord, content_id,
};
use crate::synthesis::run::{MakeError, Output, Run};
use crate::synthesis::seed::Stream;
use crate::synthesis::split::Split;

/// The gates, in the order they are passed.
pub(in crate::synthesis) const GATES: [&str; 12] =
    ["draft", "unique", "clues", "G3", "G10", "closed book", "one hop", "G6", "G2", "G4", "G5", "G1"];
/// The most calls of a solution.
const MOST_CALLS: usize = 120;
/// The most questions of one form in a corpus.
const SAME_SHAPE: usize = 8;
/// Drafts that are tried for one question.
const TRIES: usize = 40;

/// A gate and why it did not let a question pass.
struct Failure(&'static str, String);

/// A question that passed.
struct Passed {
    trace: Vec<CallRecord>,
    gold: Attempt,
    alternatives: Vec<Attempt>,
    wrong: Vec<Attempt>,
    quality: Quality,
    bits: u32,
}

/// A corpus in the making.
struct Making {
    theme: &'static Theme,
    web: Web,
    /// Other facts of the same things.
    others: Vec<Web>,
    corpus: std::sync::Arc<Corpus>,
    /// For each kind the thing that most facts speak of.
    known: BTreeMap<String, u32>,
    shapes: BTreeMap<String, usize>,
    prompts: BTreeSet<String>,
}

/// The solver's calls are not judged by the world that they are made in.
struct Unjudged;

impl AnswerVerifier for Unjudged {
    fn problems(&self, _answer: Option<&str>) -> Vec<String> {
        vec!["not judged".to_string()]
    }
}

/// Makes the corpus with a place in the run, and its questions.
///
/// # Errors
/// A theme's data contradict each other.
pub(in crate::synthesis) fn make(run: &Run, index: u64) -> Result<Output, MakeError> {
    let place = usize::try_from(index % THEMES.len() as u64).unwrap_or_default();
    let theme = THEMES.get(place).copied().ok_or(MakeError::NoFamily)?;
    let stream = Stream::new(run.seed, &format!("search/{index}/{}", theme.name));
    let things = Graph::things(theme, &mut stream.child("things"));
    let web = |path: &str| Web::new(things.with_facts(theme, &mut stream.child(path))).map_err(MakeError::Graph);
    let facts = web("facts")?;
    let mut form = stream.child("form");
    let record = CorpusRecord {
        hits: usize::try_from(form.between(5, 10)).unwrap_or(5),
        characters: usize::try_from(form.between(5, 12)).unwrap_or(5) * 100,
        documents: documents(&facts.graph, theme, &mut stream.child("documents")),
        graph: facts.graph.clone(),
    };
    let environment = environment(record, theme, index);
    let Content::Search(record) = &environment.content else { return Err(MakeError::NoFamily) };
    let mut making = Making {
        theme,
        corpus: std::sync::Arc::new(record.corpus()),
        others: vec![web("counterfactual/0")?, web("counterfactual/1")?],
        known: known(&facts),
        web: facts,
        shapes: BTreeMap::new(),
        prompts: BTreeSet::new(),
    };
    let quota = run.quota(Category::Search, index);
    let span = usize::from(run.levels.end().saturating_sub(*run.levels.start())) + 1;
    let (mut tasks, mut rejects, mut examined) = (Vec::new(), Vec::new(), 0);
    for number in 0..quota {
        let level = run.levels.start() + u8::try_from(number % span).unwrap_or_default();
        for attempt in 0..TRIES {
            let mut stream = stream.child(&format!("question/{number}/{attempt}"));
            examined += 1;
            let mut words = String::new();
            match making.question(level, &mut stream, &mut words) {
                Ok((question, passed)) => {
                    tasks.push(task(&environment, question, words, level, passed));
                    break;
                }
                Err(Failure(gate, reason)) => rejects.push(Reject {
                    category: Category::Search,
                    environment: index,
                    family: theme.name.to_string(),
                    level,
                    gate: gate.to_string(),
                    reason,
                    prompt: words,
                }),
            }
        }
    }
    Ok(Output { environment, tasks, rejects, examined })
}

fn environment(record: CorpusRecord, theme: &Theme, index: u64) -> EnvironmentRecord {
    let form = |graph: &Graph| {
        let counts: BTreeMap<&str, usize> = graph.things.iter().fold(BTreeMap::new(), |mut counts, thing| {
            *counts.entry(thing.kind.as_str()).or_default() += 1;
            counts
        });
        json!([graph.relations, counts.keys().collect::<Vec<_>>()]).to_string()
    };
    let mut schema_hash = hash(form(&record.graph).as_bytes());
    schema_hash.truncate(24);
    let facts = content_id(&record.graph);
    let record = EnvironmentRecord {
        schema_version: SCHEMA_VERSION,
        id: String::new(),
        index: 0,
        category: Category::Search,
        family: theme.name.to_string(),
        style: format!("{} results, {} characters", record.hits, record.characters),
        split: Split::of_environment(theme.name, false, &facts),
        schema_hash,
        content: Content::Search(record),
    };
    EnvironmentRecord { id: content_id(&record), index, ..record }
}

fn task(environment: &EnvironmentRecord, question: Question, prompt: String, level: u8, passed: Passed) -> TaskRecord {
    let (conditions, hops) = question.of.size();
    let documents = if let Content::Search(record) = &environment.content { record.documents.len() } else { 0 };
    let mut task = TaskRecord {
        schema_version: SCHEMA_VERSION,
        id: String::new(),
        environment: environment.id.clone(),
        parent: None,
        category: Category::Search,
        family: environment.family.clone(),
        split: environment.split.of_task(&format!("{}/{prompt}", environment.id)),
        level,
        shape: shape(&question),
        prompt,
        difficulty: Difficulty {
            calls: passed.trace.len(),
            conditions,
            hops: hops + usize::from(question.ask != Ask::Name),
            slots: 0,
            rows: documents,
            search_bits: passed.bits,
        },
        goal: TaskGoal::Search(question),
        quality: passed.quality,
        augmented: Vec::new(),
        trace: passed.trace,
        gold: passed.gold,
        alternatives: passed.alternatives,
        wrong: passed.wrong,
    };
    task.id = task.content_id();
    task
}

/// The hash of a question's form: names and numbers are masked.
fn shape(question: &Question) -> String {
    fn form(query: &Query) -> JsonValue {
        let clue = |clue: &super::question::Clue| {
            let target = match &clue.target {
                Target::Named(_) => json!("named"),
                Target::Below(_) => json!("below"),
                Target::Above(_) => json!("above"),
                Target::Described(query) => form(query),
            };
            json!([clue.relation, clue.inverse, target])
        };
        let mut clues: Vec<JsonValue> = query.clues.iter().map(clue).collect();
        clues.sort_by_key(JsonValue::to_string);
        json!([query.kind, clues])
    }
    let mut text = hash(json!([question.ask, form(&question.of)]).to_string().as_bytes());
    text.truncate(16);
    text
}

/// For each kind the thing that most facts speak of.
fn known(web: &Web) -> BTreeMap<String, u32> {
    let mut known: BTreeMap<String, (usize, u32)> = BTreeMap::new();
    for ((at, thing), facts) in (0..).zip(&web.graph.things).zip(&web.to) {
        let best = known.entry(thing.kind.clone()).or_insert((facts.len(), at));
        if facts.len() > best.0 {
            *best = (facts.len(), at);
        }
    }
    known.into_iter().map(|(kind, (_, at))| (kind, at)).collect()
}

impl Making {
    /// Drafts a question of a level, puts it in words and examines it.
    fn question(&mut self, level: u8, stream: &mut Stream, words: &mut String) -> Result<(Question, Passed), Failure> {
        let (question, thing) = draft(&self.web, level, stream)
            .ok_or_else(|| Failure("draft", "a walk from a random thing ends too early".to_string()))?;
        *words = prompt(&question, self.theme, &self.web, stream).map_err(|reason| Failure("draft", reason))?;
        let passed = self.examine(&question, thing, words, stream)?;
        Ok((question, passed))
    }

    fn examine(
        &mut self,
        question: &Question,
        thing: u32,
        prompt: &str,
        stream: &mut Stream,
    ) -> Result<Passed, Failure> {
        let fails = |gate: &'static str, reason: &str| Failure(gate, reason.to_string());
        let broken = |gate: &'static str| move |reason: String| Failure(gate, reason);
        let web = &self.web;
        let found = question.of.find(web).map_err(broken("unique"))?;
        if found != BTreeSet::from([thing]) {
            return Err(Failure("unique", format!("{} things are meant", found.len())));
        }
        let all: Vec<u32> = (0..).zip(&web.graph.things).map(|(at, _)| at).collect();
        if all.iter().any(|other| question.of.holds(*other, web) != (*other == thing)) {
            return Err(fails("unique", "two ways to find the thing differ"));
        }
        let weaker: Vec<BTreeSet<u32>> =
            without_a_clue(&question.of).iter().filter_map(|query| query.find(web).ok()).collect();
        if weaker.contains(&found) {
            return Err(fails("clues", "a clue is not needed"));
        }
        let answers = question.answers(web).map_err(broken("unique"))?;
        let gold = answers.first().cloned().ok_or_else(|| fails("unique", "there is no answer"))?;
        let same: Vec<u32> =
            all.into_iter().filter(|at| web.thing(*at).is_some_and(|other| other.kind == question.of.kind)).collect();
        let choices = self.choices(question, &same);
        let right = choices.iter().filter(|choice| question.problems(web, Some(choice)).is_empty()).count();
        if right * 100 > choices.len() {
            return Err(Failure("G3", format!("{right} of {} answers pass", choices.len())));
        }
        let shape = shape(question);
        if self.prompts.contains(prompt) || self.shapes.get(&shape).is_some_and(|count| *count >= SAME_SHAPE) {
            return Err(fails("G10", "the corpus has the question, or enough of its form"));
        }
        self.closed_book(question, thing, prompt, &answers)?;
        self.one_hop(question, thing, prompt)?;
        for other in &self.others {
            let known = question.of.find(other).unwrap_or_default();
            let right = match &question.ask {
                Ask::Name => known.contains(&thing),
                Ask::Number(name) => other.relation(name).is_some_and(|relation| {
                    known.iter().any(|at| other.objects(*at, relation).any(|number| number.to_string() == gold))
                }),
            };
            if right {
                return Err(fails("G6", "the answer is right with other facts, too"));
            }
        }
        for empty in [None, Some(""), Some("null"), Some("[]"), Some("{}"), Some("unknown"), Some("0")] {
            if question.problems(web, empty).is_empty() {
                return Err(Failure("G2", format!("{empty:?} passes")));
            }
        }
        let attempt = |answer: String| Attempt { answer, calls: Vec::new() };
        let wrong = self.near_misses(question, thing, &weaker, &same, &gold, stream);
        if let Some(passed) = wrong.iter().find(|wrong| question.problems(web, Some(wrong)).is_empty()) {
            return Err(Failure("G4", format!("{passed:?} passes as well")));
        }
        let quality = Quality {
            random: choices.len(),
            random_passed: right,
            mutants: wrong.len(),
            equivalent: 0,
            killed: wrong.len(),
        };
        let mut alternatives: Vec<String> = answers.iter().skip(1).cloned().collect();
        alternatives.push(if question.ask == Ask::Name { gold.to_lowercase() } else { format!("{gold}.") });
        if let Some(failed) = alternatives.iter().find(|other| !question.problems(web, Some(other)).is_empty()) {
            return Err(Failure("G5", format!("{failed:?} fails")));
        }
        let trace = self.solve(question, &gold).map_err(broken("G1"))?;
        let again = self.solve(question, &gold).map_err(broken("G1"))?;
        if trace != again {
            return Err(fails("G1", "two runs differ"));
        }
        *self.shapes.entry(shape).or_default() += 1;
        self.prompts.insert(prompt.to_string());
        Ok(Passed {
            trace,
            gold: attempt(gold),
            alternatives: alternatives.into_iter().map(attempt).collect(),
            wrong: wrong.into_iter().map(attempt).collect(),
            quality,
            bits: choices.len().max(1).ilog2(),
        })
    }

    /// All answers of the right kind.
    fn choices(&self, question: &Question, things: &[u32]) -> Vec<String> {
        let Ask::Number(name) = &question.ask else {
            return things.iter().filter_map(|at| self.web.thing(*at)).map(|thing| thing.name.clone()).collect();
        };
        let relation = self.theme.relations.iter().find(|relation| relation.name == *name);
        match relation.map(|relation| relation.object) {
            Some(Object::Year(least, most) | Object::Number(least, most)) => {
                (least..=most).map(|number| number.to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn closed_book(&self, question: &Question, thing: u32, prompt: &str, answers: &[String]) -> Result<(), Failure> {
        let fails = |reason: &str| Failure("closed book", reason.to_string());
        let text = prompt.to_lowercase();
        if answers.iter().any(|answer| text.contains(&plain(answer))) {
            return Err(fails("the prompt has the answer"));
        }
        if self.known.get(&question.of.kind) == Some(&thing) {
            return Err(fails("most facts speak of the thing"));
        }
        Ok(())
    }

    fn one_hop(&self, question: &Question, thing: u32, prompt: &str) -> Result<(), Failure> {
        let fails = |reason: String| Failure("one hop", reason);
        let kind = |at: u32| self.web.thing(at).is_some_and(|thing| thing.kind == question.of.kind);
        for name in question.of.names() {
            let Some(at) = self.web.named(name) else { continue };
            let of = self.web.of.get(at as usize).into_iter().flatten();
            let number = |relation: u32| self.web.graph.relations.get(relation as usize).is_none_or(|of| of.number);
            let of =
                of.filter(|(relation, _)| !number(*relation)).filter_map(|(_, object)| u32::try_from(*object).ok());
            let to = self.web.to.get(at as usize).into_iter().flatten().map(|(_, subject)| *subject);
            if of.chain(to).chain([at]).any(|other| other == thing) {
                return Err(fails(format!("the thing is a step away from {name}")));
            }
        }
        let first = self.corpus.search(prompt, 1).map_err(fails)?;
        let results = first.get("results").and_then(JsonValue::as_array).map_or(&[][..], Vec::as_slice);
        let titles = results.iter().filter_map(|result| result.get("title").and_then(JsonValue::as_str));
        if titles.filter_map(|title| self.web.named(title)).find(|at| kind(*at)) == Some(thing) {
            return Err(fails("a search for the prompt finds the thing first".to_string()));
        }
        Ok(())
    }

    /// Answers that are nearly right: of things that all clues but one hold for, of names on the way, of others of the
    /// kind, and numbers beside the right one.
    fn near_misses(
        &self,
        question: &Question,
        thing: u32,
        weaker: &[BTreeSet<u32>],
        same: &[u32],
        gold: &str,
        stream: &mut Stream,
    ) -> Vec<String> {
        let mut things: Vec<u32> = weaker.iter().flatten().copied().filter(|other| *other != thing).collect();
        stream.shuffle(&mut things);
        things.truncate(3);
        things.extend((0..2).filter_map(|_| stream.pick(same).copied()).filter(|other| *other != thing));
        let mut found: Vec<String> = Vec::new();
        match &question.ask {
            Ask::Name => {
                found.extend(things.iter().filter_map(|at| self.web.thing(*at)).map(|thing| thing.name.clone()));
                found.extend(question.of.names().first().map(ToString::to_string));
                found.extend(gold.split_once(' ').map(|(first, _)| first.to_string()));
            }
            Ask::Number(name) => {
                let relation = self.web.relation(name);
                let numbers =
                    things.iter().flat_map(|at| relation.map(|of| self.web.objects(*at, of)).into_iter().flatten());
                found.extend(numbers.map(|number| number.to_string()).filter(|number| number != gold));
                if let Ok(number) = gold.parse::<i64>() {
                    found.extend([number - 1, number + 1].map(|number| number.to_string()));
                }
                found.extend(self.web.thing(thing).map(|thing| thing.name.clone()));
            }
        }
        found.push(format!("{gold} or {}", found.first().cloned().unwrap_or_default()));
        let mut kept: BTreeSet<String> = BTreeSet::new();
        found.retain(|answer| !answer.is_empty() && kept.insert(answer.clone()));
        found
    }

    /// The calls of the solver in a world of its own.
    fn solve(&self, question: &Question, gold: &str) -> Result<Vec<CallRecord>, String> {
        let corpus = std::sync::Arc::clone(&self.corpus);
        let mut world = CorpusWorld::new("", "", corpus, std::sync::Arc::new(Unjudged));
        let mut trace: Vec<CallRecord> = Vec::new();
        let mut call = |tool: &str, arguments: Map<String, JsonValue>| {
            if trace.len() >= MOST_CALLS {
                return Err(format!("more than {MOST_CALLS} calls"));
            }
            let result = world.call(tool, &arguments)?;
            trace.push(CallRecord { tool: tool.to_string(), arguments: JsonValue::Object(arguments) });
            Ok(result)
        };
        let answer = Solver::new(&self.web.graph.relations, &mut call).solve(question)?;
        if answer == gold { Ok(trace) } else { Err(format!("the solver finds {answer:?}, expected {gold:?}")) }
    }
}
