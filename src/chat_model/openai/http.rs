//! Requests over HTTP: connections, timeouts, and which failures may pass.

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::io::Read;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::HeaderMap;

use super::address::Address;
use super::answer::{Unanswered, error_text};
use super::options::OpenAiOptions;
use super::sse::Events;
use crate::chat_model::error::{ChatModelError, Result};
use crate::generation::{Cancel, GenerationError};

/// How often a wait looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);
/// The longest answer that is not streamed, and the longest error that is read.
const MAX_BODY: usize = 64 << 20;
/// How much of an error that is no JSON is quoted.
const QUOTED: usize = 300;

/// A server.
pub(super) struct Client {
    pub address: Address,
    pub model: String,
    pub options: OpenAiOptions,
    agent: ureq::Agent,
    slots: Slots,
}

/// How an attempt ended without an answer.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was cancelled.
    Cancelled,
    /// It failed.
    Failed {
        error: ChatModelError,
        /// Whether another attempt may succeed; inside, the time before it that the server named.
        retry_after: Option<Option<Duration>>,
    },
}

/// A server's answer.
pub(super) enum Data<'a> {
    /// The data of an event.
    Event(&'a str),
    /// The data of the last event, whose end is missing.
    LastEvent(&'a str),
    /// All of it.
    Whole(&'a str),
}

/// Takes what a server answers.
type OnData<'a> = dyn FnMut(Data<'_>) -> std::result::Result<(), Unanswered> + 'a;

/// A message of the thread of a request.
enum Said {
    /// Status, whether the body is a stream of events, and the time that the server wants to be left alone.
    Head {
        status: u16,
        events: bool,
        retry_after: Option<Duration>,
    },
    Bytes(Vec<u8>),
    End,
    Failed {
        message: String,
        may_pass: bool,
    },
}

impl Client {
    pub fn new(base_url: &str, model: String, options: OpenAiOptions) -> Result<Self> {
        options.validate()?;
        let address = Address::new(base_url)?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(options.connect_timeout))
            .timeout_per_read(Some(options.idle_timeout))
            .timeout_global(Some(options.whole_timeout))
            .max_idle_connections_per_host(options.max_concurrent)
            .build();
        Ok(Self {
            address,
            model,
            agent: ureq::Agent::new_with_config(config),
            slots: Slots::new(options.max_concurrent),
            options,
        })
    }

    /// Sends a request and passes on the data of its answer's events, or the whole answer if it is not streamed.
    pub fn post(&self, body: &str, cancel: &Cancel, on_data: &mut OnData<'_>) -> std::result::Result<(), Ended> {
        let _slot = self.slots.take(cancel)?;
        let (said, heard) = mpsc::channel();
        let (agent, url, body) = (self.agent.clone(), self.address.url.clone(), body.to_string());
        let key = self.options.api_key.clone();
        let work = move || send(&agent, &url, key.as_deref(), &body, &said);
        // The thread outlives a request that is given up, until the server says something or a timeout comes.
        thread::Builder::new()
            .name("http".to_string())
            .spawn(work)
            .map_err(|error| Ended::Failed { error: GenerationError::Thread(error).into(), retry_after: None })?;
        self.receive(&heard, cancel, on_data)
    }

    fn receive(
        &self,
        heard: &Receiver<Said>,
        cancel: &Cancel,
        on_data: &mut OnData<'_>,
    ) -> std::result::Result<(), Ended> {
        let (status, events, retry_after) = match next(heard, cancel)? {
            Said::Head { status, events, retry_after } => (status, events, retry_after),
            Said::Failed { message, may_pass } => return Err(self.failed(None, message, may_pass.then_some(None))),
            Said::Bytes(_) | Said::End => return Err(self.broken()),
        };
        let ok = (200..300).contains(&status);
        let mut parser = Events::default();
        let mut whole = Vec::new();
        let unanswered = |why| self.unanswered(Some(status), why);
        let mut on_event = |data: &str| on_data(Data::Event(data));
        loop {
            match next(heard, cancel)? {
                Said::Bytes(bytes) if ok && events => parser.push(&bytes, &mut on_event).map_err(unanswered)?,
                Said::Bytes(bytes) if whole.len() + bytes.len() <= MAX_BODY => whole.extend_from_slice(&bytes),
                Said::Bytes(_) => {
                    let message = format!("an answer of more than {MAX_BODY} bytes");
                    return Err(self.failed(Some(status), message, None));
                }
                Said::End => break,
                Said::Failed { .. } if !ok => break,
                Said::Failed { message, may_pass } => {
                    return Err(self.failed(Some(status), message, may_pass.then_some(None)));
                }
                Said::Head { .. } => {}
            }
        }
        if ok && events {
            return parser.finish(&mut |data: &str| on_data(Data::LastEvent(data))).map_err(unanswered);
        }
        if ok {
            let text = String::from_utf8(whole).map_err(|error| unanswered(format!("no UTF-8: {error}").into()))?;
            return on_data(Data::Whole(&text)).map_err(unanswered);
        }
        let may_pass = matches!(status, 408 | 409 | 429 | 500..=599);
        Err(self.failed(Some(status), message(status, &whole), may_pass.then_some(retry_after)))
    }

    fn failed(&self, status: Option<u16>, message: String, retry_after: Option<Option<Duration>>) -> Ended {
        Ended::Failed {
            error: ChatModelError::Remote { url: self.address.shown.clone(), status, message },
            retry_after,
        }
    }

    /// The end of an attempt whose status promised an answer. A connection that ended too early may hold next time.
    pub fn unanswered(&self, status: Option<u16>, why: Unanswered) -> Ended {
        match why {
            Unanswered::Failed(message) => self.failed(status, message, None),
            Unanswered::NotAnAnswer(problem) => {
                let url = self.address.shown.clone();
                Ended::Failed { error: ChatModelError::NotAnAnswer { url, problem }, retry_after: None }
            }
            Unanswered::Broken => self.broken(),
        }
    }

    /// A connection that ended before the answer did.
    fn broken(&self) -> Ended {
        self.failed(None, "the connection ended before the answer did".to_string(), Some(None))
    }

    /// The time before the next attempt; `None` if the server wants too long a one.
    pub fn delay(&self, attempt: usize, named: Option<Duration>) -> Option<Duration> {
        let most = self.options.max_backoff;
        if let Some(named) = named {
            return Some(named).filter(|named| *named <= most);
        }
        let doubled = 1u32.checked_shl(u32::try_from(attempt).unwrap_or(u32::MAX)).unwrap_or(u32::MAX);
        let delay = self.options.backoff.saturating_mul(doubled).min(most);
        // Each state has random keys of the system's.
        let chance = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
        Some(delay.mul_f64(1.0 - chance / 2.0))
    }
}

/// Waits, unless it is cancelled.
pub(super) fn sleep(time: Duration, cancel: &Cancel) -> std::result::Result<(), Ended> {
    let start = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err(Ended::Cancelled);
        }
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(TICK));
    }
}

/// The thread's next message.
fn next(heard: &Receiver<Said>, cancel: &Cancel) -> std::result::Result<Said, Ended> {
    loop {
        if cancel.is_cancelled() {
            return Err(Ended::Cancelled);
        }
        match heard.recv_timeout(TICK) {
            Ok(said) => return Ok(said),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Said::End),
        }
    }
}

/// The thread of a request. It ends when the receiver is dropped.
fn send(agent: &ureq::Agent, url: &str, key: Option<&str>, body: &str, said: &Sender<Said>) {
    let mut request = agent
        .post(url)
        .header("Content-Type", "application/json")
        .header("Accept", "text/event-stream, application/json");
    if let Some(key) = key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let failed =
        |message: &dyn Display, may_pass| drop(said.send(Said::Failed { message: message.to_string(), may_pass }));
    let response = match request.send(body) {
        Ok(response) => response,
        Err(error) => return failed(&error, passes(&error)),
    };
    let headers = response.headers();
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let events = kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
    let head = Said::Head { status: response.status().as_u16(), events, retry_after: retry_after(headers) };
    if said.send(head).is_err() {
        return;
    }
    let mut reader = response.into_body().into_reader();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let done = match reader.read(&mut buffer) {
            Ok(0) => said.send(Said::End).map(|()| true),
            Ok(n) => said.send(Said::Bytes(buffer[..n].to_vec())).map(|()| false),
            Err(error) => return failed(&error, true),
        };
        if done.unwrap_or(true) {
            return;
        }
    }
}

/// Whether a failure without an answer may pass.
fn passes(error: &ureq::Error) -> bool {
    use ureq::Error;
    matches!(
        error,
        Error::Io(_) | Error::Timeout(_) | Error::ConnectionFailed | Error::HostNotFound | Error::Protocol(_)
    )
}

/// The time that a server wants to be left alone: `retry-after-ms`, or `Retry-After` in seconds. Dates are not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1e3).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The text of a server's error, on one line.
fn message(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_str::<Value>(&text) {
        Ok(value) => error_text(value.get("error").unwrap_or(&value)),
        Err(_) => text.chars().take(QUOTED).collect(),
    };
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if said.is_empty() { format!("status {status}") } else { format!("status {status}: {said}") }
}

/// How many requests may run at the same time.
struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place among them, until it is dropped.
struct Slot<'a>(&'a Slots);

impl Slots {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }

    fn take(&self, cancel: &Cancel) -> std::result::Result<Slot<'_>, Ended> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            if cancel.is_cancelled() {
                return Err(Ended::Cancelled);
            }
            free = self.freed.wait_timeout(free, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Ok(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
