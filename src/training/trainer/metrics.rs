//! The numbers of each step, as JSON lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::training::error::{Result, TrainingError};

/// A file of one JSON object a line, each with a `step`.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file to go on at a step: lines of that step and later ones, and a last line that was not written to its
    /// end, are left out. Makes the file if it is not there.
    ///
    /// # Errors
    /// [`TrainingError::Read`] or [`TrainingError::Write`] with the path; [`TrainingError::Line`] for a line that is no
    /// object with a `step`.
    pub fn open(path: impl Into<PathBuf>, step: u64) -> Result<Self> {
        let path = path.into();
        let write_error = |source| TrainingError::Write { path: path.clone(), source };
        let mut kept = String::new();
        for line in lines(&path)? {
            let (number, text) = line;
            let value: Option<Value> = serde_json::from_str(&text).ok();
            let Some(at) = value.as_ref().and_then(|value| value.get("step")).and_then(Value::as_u64) else {
                let problem = "expected an object with a step".to_string();
                return Err(TrainingError::Line { path, line: number, problem });
            };
            if at < step {
                kept.push_str(&text);
                kept.push('\n');
            }
        }
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let replaced = fs::write(&temporary, kept).and_then(|()| fs::rename(&temporary, &path));
        replaced.map_err(write_error)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(write_error)?;
        Ok(Self { path, file })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`TrainingError::Write`] with the path.
    pub fn write(&mut self, metrics: &impl Serialize) -> Result<()> {
        let write_error = |source| TrainingError::Write { path: self.path.clone(), source };
        let text = serde_json::to_string(metrics).map_err(|error| write_error(error.into()))?;
        self.file.write_all(format!("{text}\n").as_bytes()).map_err(write_error)
    }

    /// Reads all whole lines of a file; none if it is not there.
    ///
    /// # Errors
    /// [`TrainingError::Read`] with the path, [`TrainingError::Line`] with the line that is not of type `T`.
    pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Vec<T>> {
        let path = path.as_ref();
        let read = |(line, text): (usize, String)| {
            serde_json::from_str(&text).map_err(|error| TrainingError::Line {
                path: path.to_path_buf(),
                line,
                problem: error.to_string(),
            })
        };
        lines(path)?.into_iter().map(read).collect()
    }
}

/// The lines of a file that end, with their numbers from 1.
fn lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(TrainingError::Read { path: path.to_path_buf(), source }),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(whole.lines().enumerate().map(|(at, line)| (at + 1, line.to_string())).collect())
}
