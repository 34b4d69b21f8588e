//! The categories of tasks, and the one place where they part.
//!
//! A category is a folder of its own (the general one, which came first, is [`super::make`] and what that uses) and an
//! entry in every item of this file:
//!
//! 1. a variant of [`Category`] with its name, size and gates,
//! 2. a function `make(run, index)` in [`Category::make`], which makes an environment and its tasks from the seed and
//!    the place alone and counts what its gates reject,
//! 3. what its environments hold in [`Content`], with an implementation of [`Opened`]: tools, worlds and Python,
//! 4. what its tasks ask for in [`TaskGoal`].
//!
//! The compiler names every `match` that lacks the new category. Nothing else knows the categories: runs, files,
//! reports, shards, the export and the audit go by [`Category::ALL`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{Result, SynthesisError};
use super::general::Tables;
use super::program::Goal;
use super::record::TaskRecord;
use super::run::{MakeError, Output, Run, Size};
use super::{gate, make};
use crate::chat::Tool;
use crate::environment::Environment;

/// A kind of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Tables and tools over them.
    General,
}

/// What an environment holds, by category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// Tables and tools.
    General(Tables),
}

/// What a task asks for, by category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskGoal {
    /// A program over the tables.
    General(Goal),
}

/// The content of an environment, read and checked: made once and used for all its tasks.
pub trait Opened: Send + Sync {
    /// The tools, as the model sees them.
    fn tools(&self) -> Vec<Tool>;

    /// A task's world in its first state.
    ///
    /// # Errors
    /// The task is of another category, or the world needs what this build lacks.
    fn world(&self, task: &TaskRecord) -> Result<Box<dyn Environment>>;

    /// What is wrong with an attempt that left nothing changed but the answer; nothing if it solves the task.
    ///
    /// # Errors
    /// The task is of another category.
    fn problems(&self, task: &TaskRecord, answer: Option<&str>) -> Result<Vec<String>>;

    /// The files of an export by name: `environment.json`, `tools.py`, `solution.py` and `verify.py`.
    ///
    /// `tools.py` has `ToolError` and `Tools(environment)` with `call(name, arguments)`, `state` and `answer`;
    /// `solution.py` has `solve(tools)`, which calls tools only; `verify.py` has
    /// `verify(environment, answer, final_state)`.
    ///
    /// # Errors
    /// The task is of another category, or can't be printed.
    fn python(&self, task: &TaskRecord) -> Result<Vec<(&'static str, String)>>;
}

impl Category {
    /// All of them, in the order of a run.
    pub const ALL: [Self; 1] = [Self::General];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
        }
    }

    /// The category of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.name() == name)
    }

    /// Environments and tasks of a whole run.
    pub fn size(self) -> Size {
        match self {
            Self::General => Size { environments: 1_827, tasks: 4_417 },
        }
    }

    /// The gates, in the order they are passed.
    pub fn gates(self) -> &'static [&'static str] {
        match self {
            Self::General => &gate::GATES,
        }
    }

    /// Environments that are made and written together.
    pub(super) fn part(self) -> u64 {
        match self {
            Self::General => 16,
        }
    }

    /// Makes the environment with a place among those of the category.
    pub(super) fn make(self, run: &Run, index: u64) -> std::result::Result<Output, MakeError> {
        match self {
            Self::General => make::make(run, index),
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Content {
    /// The category.
    pub fn category(&self) -> Category {
        match self {
            Self::General(_) => Category::General,
        }
    }

    /// Reads and checks the content.
    ///
    /// # Errors
    /// The content contradicts itself.
    pub fn open(&self) -> Result<Box<dyn Opened>> {
        match self {
            Self::General(tables) => Ok(Box::new(tables.open()?)),
        }
    }
}

impl TaskGoal {
    /// The category.
    pub fn category(&self) -> Category {
        match self {
            Self::General(_) => Category::General,
        }
    }
}

impl TaskRecord {
    /// The error of a task that was given to an environment of another category.
    pub(super) fn misplaced(&self, expected: Category) -> SynthesisError {
        SynthesisError::Category { task: self.id.clone(), got: self.goal.category(), expected }
    }
}
