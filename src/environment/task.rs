//! What an agent is trained and judged in: a world with a task.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::toolbox::{CallResult, ToolFailure, ToolHandler, Toolbox};
use crate::chat::{Json, Message, Tool, ToolCall, ToolError};

/// A world with one task in it.
///
/// The same calls from the same state give the same results, so that an episode can be repeated.
pub trait Environment: Send {
    /// The task's name. Episodes of one name are attempts at the same task.
    fn id(&self) -> &str;

    /// The kind of task, by which training chooses weights and rewards.
    fn domain(&self) -> &str {
        "general"
    }

    /// Puts the world into its first state and returns the conversation that poses the task.
    fn reset(&mut self) -> Vec<Message>;

    /// The tools of the world, always the same.
    fn tools(&self) -> Vec<Tool>;

    /// Carries out a call of one of [`Self::tools`]. The arguments are a JSON object.
    ///
    /// # Errors
    /// The model gets the text of the error and may try again.
    fn step(&mut self, tool: &str, arguments: &Json) -> Result<String, ToolFailure>;

    /// Judges the world's state and the final answer; `None` if the agent stopped without one.
    fn verify(&self, answer: Option<&Message>) -> Verdict;

    /// A copy in the same state that shares nothing with this one.
    fn fork(&self) -> Box<dyn Environment>;
}

/// What a verifier says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// How well the task was done, in `[0, 1]`.
    pub score: f64,
    /// Whether it counts as solved.
    pub solved: bool,
    /// What was missing; empty if nothing was.
    pub problems: Vec<String>,
}

impl Verdict {
    /// The task is solved: score 1.
    pub fn solved() -> Self {
        Self { score: 1.0, solved: true, problems: Vec::new() }
    }

    /// The task is not solved: score 0.
    pub fn failed(problem: impl Into<String>) -> Self {
        Self { score: 0.0, solved: false, problems: vec![problem.into()] }
    }
}

/// An environment that an agent acts on through a [`Toolbox`] and that can be judged afterwards. Clones share it.
#[derive(Clone)]
pub struct World {
    environment: Arc<Mutex<Box<dyn Environment>>>,
}

impl World {
    /// Takes an environment in the state that it is in.
    pub fn new(environment: Box<dyn Environment>) -> Self {
        Self { environment: Arc::new(Mutex::new(environment)) }
    }

    /// [`Environment::reset`].
    pub fn reset(&self) -> Vec<Message> {
        self.lock().reset()
    }

    /// [`Environment::verify`].
    pub fn verify(&self, answer: Option<&Message>) -> Verdict {
        self.lock().verify(answer)
    }

    /// The world's tools. Calls of one answer are carried out one after another, in their order, so that an episode can
    /// be repeated.
    ///
    /// # Errors
    /// [`ToolError::Definition`]: a tool has no name, or one that another has, or (with the feature `schema`) its
    /// parameters are no JSON Schema.
    pub fn toolbox(&self) -> Result<Toolbox, ToolError> {
        let mut toolbox = Toolbox::new().with_max_parallel(1);
        let tools = self.lock().tools();
        for tool in tools {
            toolbox.insert(Arc::new(WorldTool { tool, world: self.clone() }))?;
        }
        Ok(toolbox)
    }

    /// Carries out one call, as an agent's is: whatever is wrong with it becomes a text that the model can read.
    ///
    /// # Errors
    /// As [`Self::toolbox`].
    pub fn call(&self, call: &ToolCall) -> Result<CallResult, ToolError> {
        Ok(self.toolbox()?.call(call))
    }

    /// A tool that panicked leaves the world as it was at that moment.
    fn lock(&self) -> MutexGuard<'_, Box<dyn Environment>> {
        self.environment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("id", &self.lock().id()).finish()
    }
}

/// One tool of a world.
struct WorldTool {
    tool: Tool,
    world: World,
}

impl ToolHandler for WorldTool {
    fn tool(&self) -> &Tool {
        &self.tool
    }

    fn call(&self, arguments: &Json) -> Result<String, ToolFailure> {
        self.world.lock().step(self.tool.name(), arguments)
    }
}
