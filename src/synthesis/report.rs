//! What a run made, counted per category.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;

use super::category::Category;
use super::run::Run;
use super::store::Tally;

/// What is counted of a task, or of one that was rejected.
#[derive(Debug, Deserialize)]
struct Counted {
    category: Category,
    family: String,
    level: u8,
    split: Option<String>,
    gate: Option<String>,
    shape: Option<String>,
}

/// What is counted of an environment.
#[derive(Debug, Deserialize)]
struct CountedEnvironment {
    category: Category,
    split: String,
    schema_hash: String,
}

/// The counts of a run.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<Category, OfCategory>);

/// The counts of a category.
#[derive(Debug, Default)]
struct OfCategory {
    environments: u64,
    examined: u64,
    tasks: u64,
    families: BTreeMap<String, u64>,
    levels: BTreeMap<u8, u64>,
    splits: BTreeMap<String, (u64, u64)>,
    gates: BTreeMap<String, u64>,
    schemas: BTreeSet<String>,
    shapes: BTreeSet<String>,
}

impl Counts {
    /// Counts a line of a part.
    ///
    /// # Errors
    /// The text is no record of this kind.
    pub fn add(&mut self, kind: &str, text: &str) -> serde_json::Result<()> {
        match kind {
            "environment" => {
                let environment: CountedEnvironment = serde_json::from_str(text)?;
                let counts = self.0.entry(environment.category).or_default();
                counts.environments += 1;
                counts.splits.entry(environment.split).or_default().0 += 1;
                counts.schemas.insert(environment.schema_hash);
            }
            "tally" => {
                let tally: Tally = serde_json::from_str(text)?;
                self.0.entry(tally.category).or_default().examined += tally.examined;
            }
            _ => {
                let counted: Counted = serde_json::from_str(text)?;
                let counts = self.0.entry(counted.category).or_default();
                if let Some(gate) = counted.gate {
                    *counts.gates.entry(gate).or_default() += 1;
                } else {
                    counts.tasks += 1;
                    *counts.families.entry(counted.family).or_default() += 1;
                    *counts.levels.entry(counted.level).or_default() += 1;
                    counts.splits.entry(counted.split.unwrap_or_default()).or_default().1 += 1;
                    counts.shapes.extend(counted.shape);
                }
            }
        }
        Ok(())
    }

    /// The report of a run, in Markdown.
    pub fn report(&self, run: &Run) -> String {
        let sum = |of: fn(&OfCategory) -> u64| self.0.values().map(of).sum::<u64>();
        let (environments, tasks) = (sum(|counts| counts.environments), sum(|counts| counts.tasks));
        let mut text = format!(
            "# Synthesis\n\nSeed {}: {environments} environments, {tasks} tasks, {} drafts at the gates.\n\n\
             | category | environments | schemas | tasks | shapes | drafts |\n|---|---|---|---|---|---|\n",
            run.seed,
            sum(|counts| counts.examined)
        );
        // A text always has room for more.
        for (category, counts) in &self.0 {
            let _ = writeln!(
                text,
                "| {category} | {} | {} | {} | {} | {} |",
                counts.environments,
                counts.schemas.len(),
                counts.tasks,
                counts.shapes.len(),
                counts.examined
            );
        }
        for (category, counts) in &self.0 {
            counts.write(*category, &mut text);
        }
        text
    }
}

impl OfCategory {
    fn write(&self, category: Category, text: &mut String) {
        let _ = write!(text, "\n## {category}\n\n| gate | rejected |\n|---|---|\n");
        for gate in category.gates() {
            let _ = writeln!(text, "| {gate} | {} |", self.gates.get(*gate).copied().unwrap_or_default());
        }
        text.push_str("\n| level | tasks |\n|---|---|\n");
        for (level, tasks) in &self.levels {
            let _ = writeln!(text, "| {level} | {tasks} |");
        }
        text.push_str("\n| split | environments | tasks |\n|---|---|---|\n");
        for (split, (environments, tasks)) in &self.splits {
            let _ = writeln!(text, "| {split} | {environments} | {tasks} |");
        }
        text.push_str("\n| family | tasks |\n|---|---|\n");
        for (family, tasks) in &self.families {
            let _ = writeln!(text, "| {family} | {tasks} |");
        }
    }
}
