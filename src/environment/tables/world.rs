//! A world of tables with a task.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as JsonValue};

use super::action::{Action, TableTool};
use super::table::Database;
use crate::chat::{Json, Message, Tool};
use crate::environment::task::{Environment, Verdict};
use crate::environment::toolbox::ToolFailure;

/// Judges what an agent did in a world of tables.
pub trait TableVerifier: Send + Sync {
    /// What is wrong with the submitted answer and the last state; nothing if the task is solved.
    fn problems(&self, initial: &Database, answer: Option<&str>, state: &Database) -> Vec<String>;
}

/// Tables, tools over them and a task. The answer is what the tool of [`Action::Submit`] got last.
#[derive(Clone)]
pub struct TableWorld {
    id: String,
    domain: String,
    prompt: String,
    tools: Arc<[TableTool]>,
    verifier: Arc<dyn TableVerifier>,
    initial: Database,
    state: Database,
    answer: Option<String>,
}

impl TableWorld {
    /// A world in its first state.
    pub fn new(
        id: impl Into<String>,
        prompt: impl Into<String>,
        database: Database,
        tools: Arc<[TableTool]>,
        verifier: Arc<dyn TableVerifier>,
    ) -> Self {
        Self {
            id: id.into(),
            domain: "general".to_string(),
            prompt: prompt.into(),
            tools,
            verifier,
            state: database.clone(),
            initial: database,
            answer: None,
        }
    }

    /// The same world with another kind of task.
    pub fn with_domain(self, domain: impl Into<String>) -> Self {
        Self { domain: domain.into(), ..self }
    }

    /// Its tables as they are now.
    pub fn state(&self) -> &Database {
        &self.state
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
        let tool = self.tools.iter().find(|tool| tool.name == name);
        let tool = tool.ok_or_else(|| format!("there is no tool {name:?}"))?;
        let result = tool.call(&mut self.state, arguments)?;
        match (&tool.action, result) {
            (Action::Submit, JsonValue::String(answer)) => {
                self.answer = Some(answer);
                Ok(JsonValue::from("submitted"))
            }
            (_, result) => Ok(result),
        }
    }
}

impl Environment for TableWorld {
    fn id(&self) -> &str {
        &self.id
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn reset(&mut self) -> Vec<Message> {
        self.state = self.initial.clone();
        self.answer = None;
        vec![Message::user(self.prompt.clone())]
    }

    fn tools(&self) -> Vec<Tool> {
        self.tools.iter().map(|tool| tool.definition(&self.initial)).collect()
    }

    fn step(&mut self, tool: &str, arguments: &Json) -> Result<String, ToolFailure> {
        let JsonValue::Object(arguments) = arguments.to_value() else {
            return Err("the arguments must be an object".into());
        };
        Ok(self.call(tool, &arguments)?.to_string())
    }

    fn verify(&self, _answer: Option<&Message>) -> Verdict {
        let problems = self.verifier.problems(&self.initial, self.answer.as_deref(), &self.state);
        if problems.is_empty() { Verdict::solved() } else { Verdict { score: 0.0, solved: false, problems } }
    }

    fn fork(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for TableWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWorld").field("id", &self.id).field("tools", &self.tools.len()).finish_non_exhaustive()
    }
}
