//! The record of an agent's work: JSON lines.
//!
//! One record a line, written whole: `{"schema_version": 1, "run": 0, "seconds": 0.5, "record": {KIND: {…}}}`. The
//! kinds are `begin` (once: model, options, tools, messages), `answer`, `result`, `managed` (the context was managed:
//! the messages after it) and `end`. A last line that was not written to its end counts as not written.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::chat_model::{ChatUsage, Finish};
use super::context::Managed;
use super::error::{AgentError, Result};
use super::options::AgentOptions;
use super::outcome::Stop;
use crate::chat::{Message, Tool};

/// The version of the format.
const SCHEMA_VERSION: u32 = 1;

/// The beginning of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Begin {
    pub model: String,
    pub options: AgentOptions,
    pub tools: Vec<Tool>,
    pub messages: Vec<Message>,
}

/// What happened, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The agent began.
    Begin(Begin),
    /// The model answered.
    Answer { message: Message, finish: Finish, usage: ChatUsage },
    /// A call of the last answer ended.
    Result { call: usize, name: String, content: String, failed: bool },
    /// The context was managed; the messages are those after it.
    Managed { managed: Managed, messages: Vec<Message>, question: Option<String> },
    /// The run ended.
    End { stop: Stop },
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<R = Record> {
    schema_version: u32,
    pub run: usize,
    /// Since the beginning, without the time that nobody worked.
    pub seconds: f64,
    pub record: R,
}

/// A trace that is open for more.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    file: Mutex<File>,
}

impl Trace {
    /// A new file that begins.
    pub fn create(path: &Path, begin: Begin) -> Result<Self> {
        let begin = Record::Begin(begin);
        let text = line(path, 0, 0.0, &begin)?;
        // What can't be read back is refused before any work is done, not when it is to be resumed.
        let read: Line = serde_json::from_str(&text).map_err(|error| problem(path, error))?;
        if read.record != begin {
            return Err(problem(path, "the options or messages can't be recorded exactly"));
        }
        let file = File::create_new(path).map_err(|error| problem(path, error))?;
        let trace = Self { path: path.to_path_buf(), file: Mutex::new(file) };
        trace.append(&text)?;
        Ok(trace)
    }

    /// Opens a trace and reads it; what follows its last whole line is cut off.
    pub fn open(path: &Path) -> Result<(Self, Begin, Vec<Line>)> {
        let io = |error| problem(path, error);
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let (begin, lines) = read(&bytes[..whole]).map_err(|text| problem(path, text))?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        Ok((Self { path: path.to_path_buf(), file: Mutex::new(file) }, begin, lines))
    }

    /// Appends a record.
    pub fn write(&self, run: usize, seconds: f64, record: &Record) -> Result<()> {
        self.append(&line(&self.path, run, seconds, record)?)
    }

    fn append(&self, line: &str) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).and_then(|()| file.flush()).map_err(|error| problem(&self.path, error))
    }
}

/// A record as a line.
fn line(path: &Path, run: usize, seconds: f64, record: &Record) -> Result<String> {
    let line = Line { schema_version: SCHEMA_VERSION, run, seconds, record };
    Ok(serde_json::to_string(&line).map_err(|error| problem(path, error))? + "\n")
}

/// The beginning and the rest of a trace of whole lines.
fn read(bytes: &[u8]) -> std::result::Result<(Begin, Vec<Line>), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut begin = None;
    let mut lines = Vec::new();
    for (at, text) in text.lines().enumerate() {
        let at = at + 1;
        let line: Line = serde_json::from_str(text).map_err(|error| format!("line {at}: {error}"))?;
        if line.schema_version != SCHEMA_VERSION {
            let version = line.schema_version;
            return Err(format!("line {at}: schema_version is {version}, expected {SCHEMA_VERSION}"));
        }
        match (line.record, &begin) {
            (Record::Begin(record), None) => begin = Some(record),
            (Record::Begin(_), Some(_)) => return Err(format!("line {at}: a second beginning")),
            (_, None) => return Err(format!("line {at}: expected the beginning")),
            (record, Some(_)) => lines.push(Line { record, ..line }),
        }
    }
    Ok((begin.ok_or("holds no whole record")?, lines))
}

/// An error of a trace.
pub(super) fn problem(path: &Path, message: impl ToString) -> AgentError {
    AgentError::Trace { path: path.to_path_buf(), message: message.to_string() }
}
