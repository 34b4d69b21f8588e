//! The tasks of a specialist.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use deepseek_v32::chat::{Json, Message, Tool};
use deepseek_v32::environment::{Environment, Ledger, ToolFailure, Verdict};
use deepseek_v32::error::one_line_path;
use serde::Deserialize;

/// Tasks of a file, or of the built-in environment.
pub fn read(tasks: &str, seed: u64) -> Result<Vec<Box<dyn Environment>>> {
    if let Some(count) = tasks.strip_prefix("ledger:") {
        let count: u64 = count.parse().with_context(|| format!("--tasks {tasks}: expected ledger:N"))?;
        let task = |i: u64| Box::new(Ledger::new(seed.wrapping_add(i), 1 + (i % 3) as usize)) as Box<dyn Environment>;
        ensure!(count > 0, "--tasks {tasks}: expected at least one task");
        return Ok((0..count).map(task).collect());
    }
    let path = Path::new(tasks);
    let text = super::common::read_text(path)?;
    let mut all: Vec<Box<dyn Environment>> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{}", one_line_path(path), number + 1);
        let mut question: Question = serde_json::from_str(line).with_context(place)?;
        if question.id.is_empty() {
            question.id = format!("{tasks}:{}", number + 1);
        }
        all.push(Box::new(question));
    }
    ensure!(!all.is_empty(), "{}: no task", one_line_path(path));
    Ok(all)
}

/// A question with one right answer and no tools.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    id: String,
    #[serde(default = "general")]
    domain: String,
    prompt: String,
    answer: String,
    /// Whether the answer may stand within a text.
    #[serde(default)]
    contains: bool,
}

fn general() -> String {
    "general".to_string()
}

impl Environment for Question {
    fn id(&self) -> &str {
        &self.id
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn reset(&mut self) -> Vec<Message> {
        vec![Message::user(self.prompt.clone())]
    }

    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }

    fn step(&mut self, tool: &str, _: &Json) -> std::result::Result<String, ToolFailure> {
        Err(ToolFailure::from(format!("there is no tool {tool}")))
    }

    fn verify(&self, answer: Option<&Message>) -> Verdict {
        let (found, wanted) = (answer.map_or("", |answer| answer.content.trim()), self.answer.trim());
        match found == wanted || self.contains && found.contains(wanted) {
            true => Verdict::solved(),
            false => Verdict::failed("another answer was expected"),
        }
    }

    fn fork(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }
}
