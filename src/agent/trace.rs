//! The record of an agent's work: JSON lines.
//!
//! One record a line, written whole: `{"schema_version": 1, "run": 0, "seconds": 0.5, "record": {KIND: {…}}}`. With
//! `"shared_rows": N`, the routes in the line lack their first `N` rows: these are the first `N` rows of the routes that
//! the same run recorded before.
//!
//! The kinds are `begin` (once: model, options, tools, messages), `answer` (with the [record](generation::Record) that
//! [`AgentOptions::record`] asks for), `retry` (the model was told that its call could not be read), `result`, `managed`
//! (the context was managed: the messages after it), `end` and `limit` (another limit of steps, also after an `end` at
//! the old one). A last line that was not written to its end counts as not written.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::context::Managed;
use super::error::{AgentError, Result};
use super::options::AgentOptions;
use super::outcome::Stop;
use super::routes::LatestRoutes;
use crate::chat::{Message, Tool};
use crate::chat_model::{ChatModelError, ChatUsage, Finish};
use crate::generation::{self, GenerationError};

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

/// One record of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The agent began.
    Begin(Begin),
    /// The model answered.
    Answer {
        message: Message,
        finish: Finish,
        usage: ChatUsage,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<String>,
        /// Its record for training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<generation::Record>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call_error: Option<String>,
    },
    /// The model was told that its call could not be read.
    Retry { content: String },
    /// A call of the last answer ended.
    Result { call: usize, name: String, content: String, failed: bool },
    /// The context was managed; the messages are those after it.
    Managed {
        managed: Managed,
        messages: Vec<Message>,
        question: Option<String>,
        /// The record of the summary for training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<generation::Record>>,
    },
    /// The run ended.
    End { stop: Stop },
    /// The run was given another limit.
    Limit { max_steps: usize },
}

impl Begin {
    /// Whether an agent may resume it.
    pub fn check(&self, model: &str, tools: &[Tool]) -> std::result::Result<(), Fault> {
        if self.model != model {
            return Err(Fault::field("model", format!("is {:?}, but the agent's model is {model:?}", self.model)));
        }
        if self.tools != tools {
            return Err(Fault::field("tools", "was written by an agent with other tools"));
        }
        let params = self.options.params.validate(usize::MAX).map_err(AgentError::from);
        self.options.validate().and(params).map_err(|error| match error {
            AgentError::Option { name, value, expected } => {
                Fault::field(format!("options.{name}"), format!("is {value}: expected {expected}"))
            }
            AgentError::ChatModel(ChatModelError::Generation(GenerationError::Parameter { name, value, expected })) => {
                Fault::field(format!("options.params.{name}"), format!("is {value}: expected {expected}"))
            }
            error => Fault::new(error),
        })
    }
}

impl Record {
    /// Takes what was recorded for training.
    fn take_recorded(&mut self) -> Option<Box<generation::Record>> {
        match self {
            Self::Answer { record, .. } | Self::Managed { record, .. } => record.take(),
            Self::Begin(_) | Self::Retry { .. } | Self::Result { .. } | Self::End { .. } | Self::Limit { .. } => None,
        }
    }
}

impl Line {
    /// Whether its numbers can be.
    fn check(&self) -> std::result::Result<(), Fault> {
        if self.schema_version != SCHEMA_VERSION {
            let problem = format!("is {}, expected {SCHEMA_VERSION}", self.schema_version);
            return Err(Fault::field("schema_version", problem));
        }
        if !self.seconds.is_finite() || self.seconds < 0.0 {
            return Err(Fault::field("seconds", format!("is {}, expected a finite number >= 0", self.seconds)));
        }
        let usage = match &self.record {
            Record::Answer { usage, .. } => Some(("usage", *usage)),
            Record::Managed { managed, .. } => managed.summary_usage.map(|usage| ("managed.summary_usage", usage)),
            Record::Begin(_)
            | Record::Retry { .. }
            | Record::Result { .. }
            | Record::End { .. }
            | Record::Limit { .. } => None,
        };
        match usage.and_then(|(place, usage)| Some((place, usage.meaningless()?))) {
            Some((place, (field, count))) => {
                let problem = format!("is {count}, expected at most {}", ChatUsage::MOST);
                Err(Fault::field(format!("{place}.{field}"), problem))
            }
            None => Ok(()),
        }
    }
}

/// An error in a trace and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    line: Option<usize>,
    field: Option<String>,
    problem: String,
}

impl Fault {
    pub fn new(problem: impl ToString) -> Self {
        Self { line: None, field: None, problem: problem.to_string() }
    }

    pub fn field(field: impl ToString, problem: impl ToString) -> Self {
        Self { field: Some(field.to_string()), ..Self::new(problem) }
    }

    /// The same in a line.
    pub fn at(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The error of a file.
    pub fn of(self, path: &Path) -> AgentError {
        AgentError::Trace { path: path.to_path_buf(), line: self.line, field: self.field, message: self.problem }
    }
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<R = Record> {
    schema_version: u32,
    pub run: usize,
    /// Since the beginning, without the time between processes.
    pub seconds: f64,
    /// Rows at the beginning of the record's routes that are not written: see [`LatestRoutes`].
    #[serde(default, skip_serializing_if = "is_zero")]
    shared_rows: usize,
    pub record: R,
}

/// A trace that is open for more.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    end: Mutex<End>,
}

/// The end of a trace's file.
#[derive(Debug)]
struct End {
    file: File,
    /// Length of the whole lines in bytes; what follows them is cut off before the next line is written.
    length: u64,
    /// Whether the last line lacks its line break.
    open: bool,
    routes: LatestRoutes,
}

/// A trace as it was found.
#[derive(Debug)]
pub(super) struct Opened {
    pub trace: Trace,
    pub begin: Begin,
    pub lines: Vec<Line>,
    /// A last line that was not written to its end.
    pub torn: Option<usize>,
}

impl Trace {
    /// Creates the file and writes its first record.
    pub fn create(path: &Path, begin: Begin) -> Result<Self> {
        let begin = Record::Begin(begin);
        let text = line(path, 0, 0.0, 0, &begin)?;
        // What can't be read back is refused before any work is done, not when it is to be resumed.
        let read: Line = serde_json::from_str(&text).map_err(|error| problem(path, error))?;
        if read.record != begin {
            return Err(problem(path, "the options or messages can't be recorded exactly"));
        }
        let file = File::create_new(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => problem(path, "exists already, and what exists is never overwritten"),
            _ => problem(path, error),
        })?;
        let trace = Self::new(path, End { file, length: 0, open: false, routes: LatestRoutes::default() });
        // An empty file would make the next attempt fail.
        let written = trace.end().append(&text).map_err(|error| problem(path, error));
        written.inspect_err(|_| drop(fs::remove_file(path)))?;
        Ok(trace)
    }

    /// Opens a trace and reads it.
    pub fn open(path: &Path) -> Result<Opened> {
        let io = |error| problem(path, error);
        // What is no regular file may have no end, or wait for a writer.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(problem(path, "is no regular file, and only such can be resumed"));
        }
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (last, whole) = whole_lines(&bytes);
        let (begin, lines, routes) = read(&bytes[..whole], |_, _| ()).map_err(|fault| fault.of(path))?;
        let torn = (whole < bytes.len()).then_some(lines.len() + 2);
        let end = End { file, length: whole as u64, open: whole > last, routes };
        Ok(Opened { trace: Self::new(path, end), begin, lines, torn })
    }

    fn new(path: &Path, end: End) -> Self {
        Self { path: path.to_path_buf(), end: Mutex::new(end) }
    }

    /// Appends a record.
    pub fn write(&self, run: usize, seconds: f64, record: &Record) -> Result<()> {
        let mut end = self.end();
        let shortened = end.routes.without_shared(run, record);
        let (shared_rows, written) = shortened.as_ref().map_or((0, record), |(rows, record)| (*rows, record));
        let line = line(&self.path, run, seconds, shared_rows, written)?;
        end.append(&line).map_err(|error| problem(&self.path, error))?;
        end.routes.remember(run, record);
        Ok(())
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    fn append(&mut self, line: &str) -> std::io::Result<()> {
        if self.file.metadata()?.len() > self.length {
            self.file.set_len(self.length)?;
        }
        let line = if self.open { &format!("\n{line}") } else { line };
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush());
        match written {
            Ok(()) => (self.length, self.open) = (self.length + line.len() as u64, false),
            // Records of other runs must not follow half a record.
            Err(_) => drop(self.file.set_len(self.length)),
        }
        written
    }
}

/// Returns what was recorded for training in a trace ([`AgentOptions::record`]): the records of answers and summaries in
/// the order of its lines, whole, each with the number of its run, from 0. A last line that was not written to its end
/// does not count.
///
/// # Errors
/// [`AgentError::Trace`] if the file can't be read or is no trace.
pub fn read_records(path: impl AsRef<Path>) -> Result<Vec<(usize, generation::Record)>> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| problem(path, error))?;
    let (_, whole) = whole_lines(&bytes);
    let mut records = Vec::new();
    read(&bytes[..whole], |run, record| records.push((run, record))).map_err(|fault| fault.of(path))?;
    Ok(records)
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A record as a line.
fn line(path: &Path, run: usize, seconds: f64, shared_rows: usize, record: &Record) -> Result<String> {
    let line = Line { schema_version: SCHEMA_VERSION, run, seconds, shared_rows, record };
    Ok(serde_json::to_string(&line).map_err(|error| problem(path, error))? + "\n")
}

/// Where the last line of a trace begins, and where its last whole line ends.
fn whole_lines(bytes: &[u8]) -> (usize, usize) {
    let last = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    (last, if is_torn(&bytes[last..]) { last } else { bytes.len() })
}

/// Whether a last line without a line break ends within its record.
fn is_torn(line: &[u8]) -> bool {
    match std::str::from_utf8(line) {
        Ok(text) => serde_json::from_str::<IgnoredAny>(text).is_err_and(|error| error.is_eof()),
        Err(error) => error.error_len().is_none(),
    }
}

/// The beginning and the rest of a trace of whole lines, and its latest routes. What was recorded for training goes to
/// `recorded` with its run's number.
fn read(
    bytes: &[u8],
    mut recorded: impl FnMut(usize, generation::Record),
) -> std::result::Result<(Begin, Vec<Line>, LatestRoutes), Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Fault::new("no UTF-8").at(line)
    })?;
    let mut begin = None;
    let (mut lines, mut routes) = (Vec::new(), LatestRoutes::default());
    for (at, text) in text.lines().enumerate() {
        let at = at + 1;
        let mut line: Line = serde_json::from_str(text).map_err(|error| {
            let text = error.to_string();
            // Of a text of one line, the column is of use.
            let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
            Fault::new(format!("{problem}, column {}", error.column())).at(at)
        })?;
        let restored = line.check().and_then(|()| routes.restore(line.run, line.shared_rows, &mut line.record));
        restored.map_err(|fault| fault.at(at))?;
        if let Some(record) = line.record.take_recorded() {
            record.validate().map_err(|error| match error {
                GenerationError::Record { field, problem } => Fault::field(format!("record.{field}"), problem).at(at),
                error => Fault::new(error).at(at),
            })?;
            recorded(line.run, *record);
        }
        match (line.record, &begin) {
            (Record::Begin(record), None) => begin = Some(record),
            (Record::Begin(_), Some(_)) => return Err(Fault::new("a second beginning").at(at)),
            (_, None) => return Err(Fault::new("expected the beginning").at(at)),
            (record, Some(_)) => lines.push(Line { record, ..line }),
        }
    }
    Ok((begin.ok_or_else(|| Fault::new("holds no whole record"))?, lines, routes))
}

/// An error of a trace's file.
fn problem(path: &Path, message: impl ToString) -> AgentError {
    Fault::new(message).of(path)
}
