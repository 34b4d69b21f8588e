//! What a task must pass before it is kept.
//!
//! G1: the solution passes, twice, with the same state, and every call follows its schema. G2: doing nothing fails, and
//! so do empty answers. G3: of 200 random answers of the right form at most 1 in 100 passes. G4: changed right answers
//! and changed right calls fail, or a second judge, which shares no code with the verifier, finds them right. G5: other right answers pass. Ramp: what solves the task that this one was made from fails, or is
//! cheaper. G6: the answer depends on the tables and not on the prompt. G7: nothing
//! else may change, and the order of the rows decides nothing. G9: calls and texts stay within bounds. G10: an environment has few tasks of one shape.

mod form;
mod judge;
mod order;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as JsonValue};

use super::instance::Instance;
use super::program::{Expected, Goal, setter, solve};
use super::record::{Attempt, CallRecord, Difficulty, Quality};
use super::seed::Stream;
use crate::chat::{ToolCall, ToolSet};
use crate::environment::tables::{Action, Database, TableTool, TableVerifier, TableWorld, hash};
use form::{call_mutants, mutants, random};
use judge::Judge;

pub(super) use order::shuffled;

/// Random answers of one task.
const RANDOM: usize = 200;
/// The most tasks of one shape in an environment.
const SAME_SHAPE: usize = 3;
/// The most calls of a solution.
const MOST_CALLS: usize = 400;
/// The most characters of prompt and tools.
const MOST_TEXT: usize = 40_000;

/// All gates, in the order they are passed.
pub const GATES: [&str; 10] = ["G9", "G10", "G1", "G2", "G3", "G4", "G5", "ramp", "G6", "G7"];

/// Why a gate did not let a task pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The gate.
    pub gate: &'static str,
    /// Why.
    pub reason: String,
}

/// What the gates found out about a task.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    pub gold: Attempt,
    pub alternatives: Vec<Attempt>,
    pub wrong: Vec<Attempt>,
    pub difficulty: Difficulty,
    pub quality: Quality,
    pub shape: String,
}

/// A task at the gates.
pub(super) struct Candidate<'a> {
    pub instance: &'a Instance,
    pub tools: &'a [TableTool],
    /// The same tools, for the check of calls.
    pub checks: &'a ToolSet,
    pub goal: &'a Goal,
    pub prompt: &'a str,
    pub level: u8,
    /// The right answer of the task that this one was made from, and the number of its calls.
    pub parent: Option<(&'a Attempt, usize)>,
    pub counterfactuals: &'a [Database],
    /// The first state with its rows in another order.
    pub shuffled: &'a Database,
}

/// The hash of a goal's form: its values are masked.
pub(super) fn shape(goal: &Goal) -> String {
    fn masked(value: &JsonValue) -> JsonValue {
        match value {
            JsonValue::Array(items) => items.iter().map(masked).collect(),
            JsonValue::Object(entries) => {
                let entry = |(key, value): (&String, &JsonValue)| match key.as_str() {
                    "value" | "number" | "days" | "least" | "most" if !value.is_boolean() => {
                        (key.clone(), JsonValue::Null)
                    }
                    _ => (key.clone(), masked(value)),
                };
                JsonValue::Object(entries.iter().map(entry).collect())
            }
            other => other.clone(),
        }
    }
    let json = serde_json::to_value(goal).unwrap_or_default();
    let mut text = hash(masked(&json).to_string().as_bytes());
    text.truncate(16);
    text
}

/// Runs a goal's solution through tools; returns the calls, the answer and the last state.
pub(super) fn run(
    database: &Database,
    tools: &[TableTool],
    goal: &Goal,
    checks: Option<&ToolSet>,
) -> Result<(Vec<CallRecord>, JsonValue, Database), String> {
    let mut state = database.clone();
    let mut trace = Vec::new();
    let mut call = |tool: &TableTool, arguments: Map<String, JsonValue>| {
        if trace.len() >= MOST_CALLS {
            return Err(format!("more than {MOST_CALLS} calls"));
        }
        let result = tool.call(&mut state, &arguments)?;
        let arguments = JsonValue::Object(arguments);
        if let Some(checks) = checks {
            let call = ToolCall { id: None, name: tool.name.clone(), arguments: arguments.to_string() };
            checks.check(&call).map_err(|error| error.to_string())?;
        }
        trace.push(CallRecord { tool: tool.name.clone(), arguments });
        Ok(result)
    };
    let answer = solve(goal, tools, database, &mut call)?;
    Ok((trace, answer, state))
}

/// The state after calls.
fn after(database: &Database, tools: &[TableTool], calls: &[CallRecord]) -> Database {
    let mut state = database.clone();
    for call in calls {
        let tool = tools.iter().find(|tool| tool.name == call.tool);
        if let (Some(tool), JsonValue::Object(arguments)) = (tool, &call.arguments) {
            // A call that is refused changes nothing.
            let _ = tool.call(&mut state, arguments);
        }
    }
    state
}

/// Whether a call changes tables.
fn changing(tools: &[TableTool], call: &CallRecord) -> bool {
    tools.iter().any(|tool| tool.name == call.tool && matches!(tool.action, Action::Set { .. } | Action::Add { .. }))
}

impl Candidate<'_> {
    /// Leads the task through all gates.
    pub fn examine(&self, shapes: &BTreeMap<String, usize>, stream: &mut Stream) -> Result<Passed, Failure> {
        let fails = |gate: &'static str, reason: &str| Failure { gate, reason: reason.to_string() };
        let database = &self.instance.database;
        let text: usize = self.tools.iter().map(|tool| tool.definition(database).function().to_string().len()).sum();
        if text + self.prompt.len() > MOST_TEXT {
            return Err(fails("G9", "prompt and tools are too long"));
        }
        let shape = shape(self.goal);
        if shapes.get(&shape).is_some_and(|count| *count >= SAME_SHAPE) {
            return Err(fails("G10", "the environment has tasks of this shape"));
        }
        let problem = |gate: &'static str| move |reason: String| Failure { gate, reason };
        let (trace, answer, state) = run(database, self.tools, self.goal, Some(self.checks)).map_err(problem("G1"))?;
        let (_, again, other) = run(database, self.tools, self.goal, None).map_err(problem("G1"))?;
        let expected = self.goal.expected(&mut &*database).map_err(problem("G1"))?;
        let changes = database.changes(&state);
        if answer != again || database.changes(&other) != changes {
            return Err(fails("G1", "two runs differ"));
        }
        if let Some(reason) = expected.problem(&answer, &changes) {
            return Err(Failure { gate: "G1", reason });
        }
        let calls: Vec<CallRecord> = trace.iter().filter(|call| changing(self.tools, call)).cloned().collect();
        let gold = Attempt { answer: answer.to_string(), calls };
        self.nothing(&gold)?;

        let decided = self.goal.decided(&mut &*database).map_err(problem("G3"))?;
        let mut wrong = Vec::new();
        let mut passed = 0;
        for _ in 0..RANDOM {
            let guess = random(decided, database, stream);
            if expected.problem(&guess, &[]).is_none() {
                passed += 1;
            } else if wrong.is_empty() {
                wrong.push(Attempt { answer: guess.to_string(), calls: Vec::new() });
            }
        }
        if passed * 100 > RANDOM {
            return Err(Failure { gate: "G3", reason: format!("{passed} of {RANDOM} random answers pass") });
        }

        let mut alternatives = Vec::new();
        let judge = Judge::new(self.goal, database).map_err(problem("G4"))?;
        if !judge.accepts(&answer, &state) {
            return Err(fails("G4", "the second judge refuses the solution's answer"));
        }
        let mut quality = Quality { random: RANDOM, random_passed: passed, ..Quality::default() };
        let changed = mutants(&answer, decided, database, stream).into_iter().map(|answer| (answer, &gold.calls));
        let other_calls = call_mutants(&gold.calls, self.tools, database);
        let changed_calls = other_calls.iter().map(|calls| (answer.clone(), calls));
        for (mutant, calls) in changed.chain(changed_calls) {
            quality.mutants += 1;
            let attempt = Attempt { answer: mutant.to_string(), calls: calls.clone() };
            let state = after(database, self.tools, calls);
            let passes = expected.problem(&mutant, &database.changes(&state)).is_none();
            match (passes, judge.accepts(&mutant, &state)) {
                (false, true) => return Err(fails("G5", &format!("{mutant} is right and fails"))),
                (true, true) => {
                    quality.equivalent += 1;
                    if alternatives.len() < 2 && attempt.answer != gold.answer {
                        alternatives.push(attempt);
                    }
                }
                (true, false) => {}
                (false, false) => {
                    quality.killed += 1;
                    if wrong.len() < 5 {
                        wrong.push(attempt);
                    }
                }
            }
        }
        if !quality.is_enough() {
            let reason = format!("of {} wrong mutants {} fail", quality.wrong(), quality.killed);
            return Err(Failure { gate: "G4", reason });
        }
        self.others(&expected, &gold, &mut alternatives)?;
        if let Some((parent, calls)) = self.parent {
            let given: JsonValue = serde_json::from_str(&parent.answer).unwrap_or_default();
            let before = database.changes(&after(database, self.tools, &parent.calls));
            if expected.problem(&given, &before).is_some() {
                wrong.push(parent.clone());
            } else if trace.len() <= calls {
                return Err(fails("ramp", "what solved the easier task solves this one, at no more calls"));
            }
        }
        self.depends(&gold, trace.len())?;
        if !gold.calls.is_empty() {
            self.collateral(&expected, &answer, &gold, &mut wrong)?;
        }
        self.order(&gold, &alternatives, &wrong)?;
        let (conditions, hops, slots) = self.goal.size();
        let difficulty = Difficulty {
            calls: trace.len(),
            conditions,
            hops,
            slots,
            rows: database.tables().iter().map(|table| table.rows().len()).sum(),
            search_bits: form::bits(decided, database),
        };
        Ok(Passed { gold, alternatives, wrong, difficulty, quality, shape })
    }

    /// G2.
    fn nothing(&self, gold: &Attempt) -> Result<(), Failure> {
        let database = &self.instance.database;
        let fails = |reason: String| Failure { gate: "G2", reason };
        let world = TableWorld::new("", self.prompt, database.clone(), self.tools.into(), Arc::new(self.goal.clone()));
        if crate::environment::Environment::verify(&world, None).solved {
            return Err(fails("doing nothing passes".to_string()));
        }
        for answer in ["", "null", "\"\"", "[]", "{}", "\"unknown\"", "0", "true"] {
            if self.goal.problems(database, Some(answer), database).is_empty() {
                return Err(fails(format!("{answer:?} passes")));
            }
        }
        if !gold.calls.is_empty() && self.goal.problems(database, Some(&gold.answer), database).is_empty() {
            return Err(fails("the answer passes without the change".to_string()));
        }
        Ok(())
    }

    /// G5: the answer that is found the other way round, and the object's entries in another order.
    fn others(&self, expected: &Expected<'_>, gold: &Attempt, found: &mut Vec<Attempt>) -> Result<(), Failure> {
        let fails = |reason: String| Failure { gate: "G5", reason };
        let mut answer = expected.answer(true).map_err(fails)?;
        if let JsonValue::Object(entries) = &answer {
            answer =
                entries.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>().into();
        }
        let database = &self.instance.database;
        let changes = database.changes(&after(database, self.tools, &gold.calls));
        if let Some(problem) = expected.problem(&answer, &changes) {
            return Err(fails(problem));
        }
        let text = answer.to_string();
        if text != gold.answer {
            found.push(Attempt { answer: answer.to_string(), calls: gold.calls.clone() });
        }
        Ok(())
    }

    /// G6.
    fn depends(&self, gold: &Attempt, calls: usize) -> Result<(), Failure> {
        let fails = |reason: &str| Failure { gate: "G6", reason: reason.to_string() };
        if self.level >= 2 && calls < 3 {
            return Err(fails("a call and the submission suffice"));
        }
        if self.prompt.contains(&gold.answer) {
            return Err(fails("the prompt has the answer"));
        }
        let answer: JsonValue = serde_json::from_str(&gold.answer).unwrap_or_default();
        for other in self.counterfactuals {
            let expected = self.goal.expected(&mut &*other);
            let changes = other.changes(&after(other, self.tools, &gold.calls));
            if expected.is_ok_and(|expected| expected.problem(&answer, &changes).is_none()) {
                return Err(fails("the answer is right with other tables, too"));
            }
        }
        Ok(())
    }

    /// G7: a change too many and a change too few fail.
    fn collateral(
        &self,
        expected: &Expected<'_>,
        answer: &JsonValue,
        gold: &Attempt,
        wrong: &mut Vec<Attempt>,
    ) -> Result<(), Failure> {
        let database = &self.instance.database;
        let mut attempts = vec![Attempt { answer: gold.answer.clone(), calls: gold.calls[1..].to_vec() }];
        let wanted = expected.wanted();
        let tool = wanted.first().and_then(|wanted| setter(self.tools, &wanted.table, &wanted.column));
        let table = wanted.first().and_then(|wanted| database.table(&wanted.table));
        if let (Some(tool), Some(table), Some(first)) = (tool, table, wanted.first()) {
            let place = table.place(&first.column).unwrap_or_default();
            let spare = table
                .rows()
                .iter()
                .find(|row| row[place] != first.value && wanted.iter().all(|wanted| wanted.key != row[0]));
            if let (Some(spare), Some(call)) = (spare, gold.calls.first()) {
                let mut call = call.clone();
                let key =
                    tool.parameter(&crate::environment::tables::Role::Key).map(|parameter| parameter.name.clone());
                if let (Some(key), JsonValue::Object(arguments)) = (key, &mut call.arguments) {
                    arguments.insert(key, spare[0].to_json());
                }
                let mut calls = gold.calls.clone();
                calls.push(call);
                attempts.push(Attempt { answer: gold.answer.clone(), calls });
            }
        }
        for attempt in attempts {
            let changes = database.changes(&after(database, self.tools, &attempt.calls));
            if expected.problem(answer, &changes).is_none() {
                return Err(Failure { gate: "G7", reason: "a change too many or too few passes".to_string() });
            }
            wrong.push(attempt);
        }
        Ok(())
    }

    /// G7: with the rows in another order, the state has the same hash, the solution still solves the task, and every
    /// attempt gets the verdict that it had.
    fn order(&self, gold: &Attempt, alternatives: &[Attempt], wrong: &[Attempt]) -> Result<(), Failure> {
        let fails =
            |reason: String| Failure { gate: "G7", reason: format!("with the rows in another order, {reason}") };
        let (database, other) = (&self.instance.database, self.shuffled);
        let expected = self.goal.expected(&mut &*other).map_err(fails)?;
        let (_, answer, state) = run(other, self.tools, self.goal, None).map_err(fails)?;
        if let Some(problem) = expected.problem(&answer, &other.changes(&state)) {
            return Err(fails(format!("the solution fails: {problem}")));
        }
        if after(database, self.tools, &gold.calls).hash() != after(other, self.tools, &gold.calls).hash() {
            return Err(fails("the last state has another hash".to_string()));
        }
        let right = std::iter::once(gold).chain(alternatives).map(|attempt| (attempt, true));
        for (attempt, wanted) in right.chain(wrong.iter().map(|attempt| (attempt, false))) {
            let answer = serde_json::from_str(&attempt.answer).unwrap_or_default();
            let changes = other.changes(&after(other, self.tools, &attempt.calls));
            if expected.problem(&answer, &changes).is_none() != wanted {
                return Err(fails(format!("{} gets another verdict", attempt.answer)));
            }
        }
        Ok(())
    }
}
