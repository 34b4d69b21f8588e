//! Solvers of tasks, and how often they succeed.
//!
//! A [`Solver`] acts through [`Environment`], as an agent does. [`ladder`] are scripted ones, from one that guesses to
//! one that knows nearly everything; a model is one through an implementation of the trait.

mod form;
mod greedy;
mod oracle;
mod random;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};

use super::record::TaskRecord;
use super::seed::Stream;
use crate::chat::{Json, Message};
use crate::environment::Environment;
use crate::statistics::pass_at_k;

pub use greedy::Greedy;
pub use oracle::Oracle;
pub use random::Random;

/// What attempts at tasks.
pub trait Solver: Sync {
    /// Its name in records.
    fn name(&self) -> String;

    /// Acts in a world that was just reset and posed its task with `messages`. Returns the final message, if there is
    /// one. Only an oracle may look at `task` itself.
    fn attempt(
        &self,
        task: &TaskRecord,
        world: &mut dyn Environment,
        messages: &[Message],
        stream: &mut Stream,
    ) -> Option<Message>;
}

/// How often a solver solved a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passes {
    /// The solver.
    pub solver: String,
    /// How many times it tried.
    pub attempts: u64,
    /// How many times it succeeded.
    pub solved: u64,
}

impl Passes {
    /// Returns the estimate of pass@k; `None` if there were fewer than `k` attempts.
    pub fn pass_at(&self, k: u64) -> Option<f64> {
        pass_at_k(self.attempts, self.solved, k)
    }
}

/// Lets a solver try a task, each time in a fresh copy of the world, and counts. The same stream gives the same count.
pub fn count(
    solver: &dyn Solver,
    task: &TaskRecord,
    world: &dyn Environment,
    attempts: u64,
    stream: &Stream,
) -> Passes {
    let name = solver.name();
    let solved = (0..attempts).filter(|attempt| {
        let mut world = world.fork();
        let messages = world.reset();
        let mut stream = stream.child(&format!("{name}/{attempt}"));
        let answer = solver.attempt(task, &mut *world, &messages, &mut stream);
        world.verify(answer.as_ref()).solved
    });
    let solved = u64::try_from(solved.count()).unwrap_or(u64::MAX);
    Passes { solver: name, attempts, solved }
}

/// The scripted solvers, the weakest first, with the attempts that each gets.
pub fn ladder() -> Vec<(Box<dyn Solver>, u64)> {
    let mut rungs: Vec<(Box<dyn Solver>, u64)> = vec![(Box::new(Random), 8), (Box::new(Greedy), 2)];
    for per_cent in [50, 80, 95] {
        rungs.push((Box::new(Oracle { per_cent }), 8));
    }
    rungs
}

/// Makes a call; `None` if it was refused or its result is no JSON.
fn call(world: &mut dyn Environment, tool: &str, arguments: Map<String, JsonValue>) -> Option<JsonValue> {
    let text = world.step(tool, &Json::from(&JsonValue::Object(arguments))).ok()?;
    Some(serde_json::from_str(&text).unwrap_or(JsonValue::String(text)))
}

/// A tool as scripted solvers see it.
struct Seen {
    name: String,
    /// Names and schemas.
    parameters: Vec<(String, JsonValue)>,
    required: Vec<String>,
}

/// The tools of a world, the submission apart.
fn tools(world: &dyn Environment) -> (Vec<Seen>, Option<Seen>) {
    let (mut tools, mut submit) = (Vec::new(), None);
    for tool in world.tools() {
        let definition: JsonValue = serde_json::from_str(&tool.function().to_string()).unwrap_or_default();
        let schema = definition.get("parameters").cloned().unwrap_or_default();
        let entries = schema.get("properties").and_then(JsonValue::as_object).cloned().unwrap_or_default();
        let required = schema.get("required").and_then(JsonValue::as_array).cloned().unwrap_or_default();
        let seen = Seen {
            name: tool.name().to_string(),
            parameters: entries.into_iter().collect(),
            required: required.iter().filter_map(JsonValue::as_str).map(String::from).collect(),
        };
        if seen.name.contains("submit") { submit = Some(seen) } else { tools.push(seen) }
    }
    (tools, submit)
}

/// Submits an answer through the tool for it.
fn submit(world: &mut dyn Environment, tool: Option<&Seen>, answer: &JsonValue) {
    let Some(tool) = tool else { return };
    let text = JsonValue::from(answer.to_string());
    let arguments = tool.parameters.iter().map(|(name, _)| (name.clone(), text.clone())).collect();
    call(world, &tool.name, arguments);
}

/// The text that poses a task.
fn prompt(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}
