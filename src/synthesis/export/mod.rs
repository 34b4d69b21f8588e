//! Writes tasks as folders that Python runs with nothing installed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::json;

use super::category::Opened;
use super::error::{Result, SynthesisError};
use super::record::{EnvironmentRecord, TaskRecord};
use super::store::write_whole;
use crate::environment::tables::hash;

const AUDIT: &str = include_str!("audit.py");

/// Calls `see` with every record of a file of JSON lines.
///
/// # Errors
/// The file can't be read, or a line is no such record.
pub fn each_record<T: DeserializeOwned>(path: &Path, mut see: impl FnMut(T) -> Result<()>) -> Result<()> {
    let reader = BufReader::new(File::open(path).map_err(SynthesisError::file(path))?);
    for (at, line) in reader.lines().enumerate() {
        let line = line.map_err(SynthesisError::file(path))?;
        let record = serde_json::from_str(&line).map_err(|error| SynthesisError::Content {
            path: path.to_path_buf(),
            problem: format!("line {}: {error}", at + 1),
        })?;
        see(record)?;
    }
    Ok(())
}

/// Writes up to `sample` tasks of a run's folder, drawn by `seed`, to folders of `to`, with `audit.py` beside them.
/// Returns how many there are.
///
/// A task's folder has `task.json`, `environment.json`, `tools.py`, `solution.py`, `verify.py` and `answers.json`.
///
/// # Errors
/// A file can't be read or written, or holds something else.
pub fn export_python(from: &Path, sample: usize, seed: u64, to: &Path) -> Result<usize> {
    let mut drawn: BTreeMap<String, TaskRecord> = BTreeMap::new();
    each_record(&from.join("tasks.jsonl"), |task: TaskRecord| {
        drawn.insert(hash(format!("{seed}/{}", task.id).as_bytes()), task);
        if drawn.len() > sample {
            drawn.pop_last();
        }
        Ok(())
    })?;
    let mut tasks: BTreeMap<String, Vec<TaskRecord>> = BTreeMap::new();
    let count = drawn.len();
    drawn.into_values().for_each(|task| tasks.entry(task.environment.clone()).or_default().push(task));
    fs::create_dir_all(to).map_err(SynthesisError::file(to))?;
    write_whole(&to.join("audit.py"), AUDIT.as_bytes())?;
    each_record(&from.join("envs.jsonl"), |environment: EnvironmentRecord| {
        let Some(tasks) = tasks.remove(&environment.id) else { return Ok(()) };
        let opened = environment.content.open()?;
        tasks.iter().try_for_each(|task| write_task(&*opened, task, to))
    })?;
    if let Some(environment) = tasks.keys().next() {
        let problem = format!("there is no environment {environment}");
        return Err(SynthesisError::Content { path: from.join("envs.jsonl"), problem });
    }
    Ok(count)
}

fn write_task(opened: &dyn Opened, task: &TaskRecord, to: &Path) -> Result<()> {
    let folder = to.join(&task.id);
    fs::create_dir_all(&folder).map_err(SynthesisError::file(&folder))?;
    let about = json!({
        "id": task.id, "prompt": task.prompt, "tools": opened.tools(), "category": task.category,
        "family": task.family, "level": task.level, "split": task.split, "difficulty": task.difficulty,
    });
    let answers = json!({"gold": task.gold, "alternatives": task.alternatives, "wrong": task.wrong});
    let mut files = opened.python(task)?;
    files.extend([("task.json", format!("{about:#}\n")), ("answers.json", format!("{answers:#}\n"))]);
    files.iter().try_for_each(|(name, text)| write_whole(&folder.join(name), text.as_bytes()))
}
