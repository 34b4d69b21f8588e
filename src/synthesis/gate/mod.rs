//! What a task must pass before it is kept.
//!
//! G1: the solution passes, twice, with the same state, and every call follows its schema. G2: doing nothing fails, and
//! so do empty answers. G3: of 200 random answers of the right form at most 1 in 100 passes. G4: changed right answers
//! fail, or fit. G5: other right answers pass. Ramp: what solves the task that this one was made from fails, or is
//! cheaper. G6: the answer depends on the tables and not on the prompt. G7: nothing
//! else may change. G9: calls and texts stay within bounds. G10: an environment has few tasks of one shape.

mod form;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as JsonValue};

use super::instance::Instance;
use super::program::{Expected, Goal, setter, solve};
use super::record::{Attempt, CallRecord, Difficulty};
use super::seed::Stream;
use crate::chat::{ToolCall, ToolSet};
use crate::environment::tables::{Action, Database, TableTool, TableVerifier, TableWorld, hash};
use form::{mutants, random};

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
    instance: &Instance,
    tools: &[TableTool],
    goal: &Goal,
    checks: Option<&ToolSet>,
) -> Result<(Vec<CallRecord>, JsonValue, Database), String> {
    let mut state = instance.database.clone();
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
    let answer = solve(goal, tools, &instance.database, &mut call)?;
    Ok((trace, answer, state))
}

/// The state after calls.
fn after(instance: &Instance, tools: &[TableTool], calls: &[CallRecord]) -> Database {
    let mut state = instance.database.clone();
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
        let (trace, answer, state) =
            run(self.instance, self.tools, self.goal, Some(self.checks)).map_err(problem("G1"))?;
        let (_, again, other) = run(self.instance, self.tools, self.goal, None).map_err(problem("G1"))?;
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
        let fits = matches!(decided, Goal::Fit { .. });
        for mutant in mutants(&answer, decided, database, stream) {
            let attempt = Attempt { answer: mutant.to_string(), calls: gold.calls.clone() };
            match expected.problem(&mutant, &changes) {
                Some(_) if wrong.len() < 5 => wrong.push(attempt),
                Some(_) => {}
                None if !fits => return Err(Failure { gate: "G4", reason: format!("{mutant} passes as well") }),
                None if alternatives.len() < 2 => alternatives.push(attempt),
                None => {}
            }
        }
        self.others(&expected, &gold, &mut alternatives)?;
        if let Some((parent, calls)) = self.parent {
            let given: JsonValue = serde_json::from_str(&parent.answer).unwrap_or_default();
            let before = database.changes(&after(self.instance, self.tools, &parent.calls));
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
        let (conditions, hops, slots) = self.goal.size();
        let difficulty = Difficulty {
            calls: trace.len(),
            conditions,
            hops,
            slots,
            rows: database.tables().iter().map(|table| table.rows().len()).sum(),
            search_bits: form::bits(decided, database),
        };
        Ok(Passed { gold, alternatives, wrong, difficulty, shape })
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
        let changes = self.instance.database.changes(&after(self.instance, self.tools, &gold.calls));
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
            let changes = other.changes(&{
                let mut state = other.clone();
                for call in &gold.calls {
                    let tool = self.tools.iter().find(|tool| tool.name == call.tool);
                    if let (Some(tool), JsonValue::Object(arguments)) = (tool, &call.arguments) {
                        let _ = tool.call(&mut state, arguments);
                    }
                }
                state
            });
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
            let changes = database.changes(&after(self.instance, self.tools, &attempt.calls));
            if expected.problem(answer, &changes).is_none() {
                return Err(Failure { gate: "G7", reason: "a change too many or too few passes".to_string() });
            }
            wrong.push(attempt);
        }
        Ok(())
    }
}
