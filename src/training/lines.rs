//! Files of one JSON value a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::{Result, TrainingError};
use crate::show::one_line;

/// Calls `each` with the value of every line that is not blank, and its number from 1. A problem that `each` returns is
/// told with file and line.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    mut each: impl FnMut(T) -> std::result::Result<(), String>,
) -> Result<()> {
    let read = |source| TrainingError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(read)?;
    for (at, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line.map_err(read)?;
        let problem = |problem: String| TrainingError::Line {
            path: path.to_path_buf(),
            line: at + 1,
            problem: one_line(&problem).to_string(),
        };
        let text = std::str::from_utf8(&line).map_err(|error| problem(format!("not UTF-8: {error}")))?;
        let text = if at == 0 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        if text.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(text).map_err(|error| problem(error.to_string()))?;
        each(value).map_err(problem)?;
    }
    Ok(())
}
