//! What a run makes: environments and tasks per category, each from its place alone.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::category::Category;
use super::family::{FAMILIES, Family};
use super::record::{EnvironmentRecord, Reject, TaskRecord};
use crate::chat::ToolError;
use crate::environment::tables::TableError;

/// How many environments and tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Environments.
    pub environments: u64,
    /// Tasks in all of them; a few less where an environment does not give enough.
    pub tasks: u64,
}

/// How much of each category a run makes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan(BTreeMap<Category, Size>);

/// What a run makes.
#[derive(Debug, Clone)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How much of each category.
    pub plan: Plan,
    /// The levels of the tasks.
    pub levels: RangeInclusive<u8>,
    /// The families of the general category, by turns.
    pub families: Vec<&'static Family>,
}

/// An environment with its tasks.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// The environment.
    pub environment: EnvironmentRecord,
    /// Its tasks.
    pub tasks: Vec<TaskRecord>,
    /// What was rejected.
    pub rejects: Vec<Reject>,
    /// How many tasks came to the gates.
    pub examined: u64,
}

/// Why an environment could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// Its tables contradict each other.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its tools contradict each other.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The run has no families.
    #[error("a run needs at least one family")]
    NoFamily,
}

impl Default for Run {
    /// All categories at full size, from seed 0.
    fn default() -> Self {
        Self { seed: 0, plan: Plan::full(&Category::ALL), levels: 1..=5, families: FAMILIES.to_vec() }
    }
}

impl Plan {
    /// One category alone. [`Self::and`] adds others.
    pub fn only(category: Category, environments: u64, tasks: u64) -> Self {
        Self::default().and(category, environments, tasks)
    }

    /// The same with so much of a category.
    pub fn and(mut self, category: Category, environments: u64, tasks: u64) -> Self {
        self.0.insert(category, Size { environments, tasks });
        self
    }

    /// Categories at their full sizes.
    pub fn full(categories: &[Category]) -> Self {
        Self(categories.iter().map(|category| (*category, category.size())).collect())
    }

    /// Categories in the proportions of a full run, with so many tasks in all. `environments` are those of the general
    /// category; the other categories' follow in proportion. What is left out follows from the other.
    pub fn scaled(categories: &[Category], environments: Option<u64>, tasks: Option<u64>) -> Self {
        let full = Self::full(categories);
        let part =
            |number: u64, (of, whole): (u64, u64)| u128::from(number) * u128::from(of) / u128::from(whole.max(1));
        let number = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        let environments = environments.map(|count| (count, Category::General.size().environments));
        let tasks = tasks.map(|count| (count, full.tasks()));
        let of_tasks = tasks.or(environments).unwrap_or((1, 1));
        let of_environments = environments.or(tasks).unwrap_or((1, 1));
        let mut before = 0;
        let sizes = full.0.into_iter().map(|(category, size)| {
            // The sizes add up: each is what the sum grows by.
            let tasks = number(part(before + size.tasks, of_tasks) - part(before, of_tasks));
            before += size.tasks;
            let least = u64::from(of_environments.0 > 0 && tasks > 0);
            let environments = number(part(size.environments, of_environments)).max(least);
            (category, Size { environments, tasks })
        });
        Self(sizes.collect())
    }

    /// How much of a category.
    pub fn size(&self, category: Category) -> Size {
        self.0.get(&category).copied().unwrap_or_default()
    }

    /// The categories with their sizes, in the order of a run.
    pub fn iter(&self) -> impl Iterator<Item = (Category, Size)> + '_ {
        self.0.iter().map(|(category, size)| (*category, *size))
    }

    /// All environments.
    pub fn environments(&self) -> u64 {
        self.0.values().map(|size| size.environments).sum()
    }

    /// All tasks.
    pub fn tasks(&self) -> u64 {
        self.0.values().map(|size| size.tasks).sum()
    }
}

impl Run {
    /// How many tasks an environment gets.
    pub(super) fn quota(&self, category: Category, index: u64) -> usize {
        let size = self.plan.size(category);
        let until = |count: u64| u128::from(size.tasks) * u128::from(count) / u128::from(size.environments.max(1));
        usize::try_from(until(index + 1) - until(index)).unwrap_or(usize::MAX)
    }

    /// Makes the environment with a place among those of a category, and its tasks.
    ///
    /// # Errors
    /// The environment can't be made: what it is made of contradicts itself, or the run lacks it.
    pub fn make(&self, category: Category, index: u64) -> Result<Output, MakeError> {
        category.make(self, index)
    }
}
