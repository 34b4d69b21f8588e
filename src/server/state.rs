//! What the handlers share, and the place that a request takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use axum::http::StatusCode;
use tokio::sync::{Semaphore, watch};

use super::body;
use super::error::ApiError;
use super::metrics::Metrics;
use super::options::ServerOptions;
use crate::chat_model::{ChatUsage, LocalChat, call_id};
use crate::generation::Cancel;
use crate::show;

/// Where the server stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Phase {
    /// Answers everything.
    Open,
    /// Finishes what runs.
    Closing,
    /// Gives up what still runs.
    Closed,
}

/// What every handler sees.
#[derive(Debug)]
pub struct State {
    pub chat: LocalChat,
    pub options: ServerOptions,
    pub metrics: Metrics,
    pub phase: watch::Sender<Phase>,
    /// Seconds since 1970 at which the server began.
    pub created: u64,
    /// Whether the server listens on a loopback address; not known with the router alone.
    pub loopback: OnceLock<bool>,
    /// Bytes of bodies that are held, read or waiting to be parsed.
    pub held_bytes: AtomicUsize,
    /// Permits to parse bodies.
    pub parsing: Arc<Semaphore>,
    /// Answers that run or wait.
    answers: AtomicUsize,
}

impl State {
    pub fn new(chat: LocalChat, options: ServerOptions) -> Self {
        Self {
            chat,
            loopback: OnceLock::new(),
            held_bytes: AtomicUsize::new(0),
            parsing: Arc::new(Semaphore::new(body::permits(options.max_body))),
            options,
            metrics: Metrics::default(),
            phase: watch::Sender::new(Phase::Open),
            created: now(),
            answers: AtomicUsize::new(0),
        }
    }

    /// Whether a request names the model that there is.
    pub fn check_model(&self, asked: Option<&str>) -> Result<(), ApiError> {
        use crate::chat_model::ChatModel;
        let name = self.chat.name();
        match asked {
            Some(asked) if asked != name => {
                let message = format!("model: there is no {}, only {name:?}", show::quoted(asked));
                Err(ApiError::new(StatusCode::NOT_FOUND, message).with_param("model").with_code("model_not_found"))
            }
            _ => Ok(()),
        }
    }

    /// Most tokens of prompt and answer together.
    pub fn max_context(&self) -> usize {
        let most = self.chat.service().max_context();
        self.options.max_context.unwrap_or(most).min(most)
    }

    /// Returns the most tokens that an answer to a prompt of `tokens` tokens may have: what the request `asked` for, else
    /// `default`, at most what the context still holds. Many clients send the same large number to every model.
    ///
    /// # Errors
    /// Status 400 with the code `context_length_exceeded` if the prompt fills the context. `field` is the prompt's:
    /// `messages` or `prompt`.
    pub fn room(
        &self,
        field: &str,
        tokens: usize,
        asked: Option<usize>,
        default: Option<usize>,
    ) -> Result<usize, ApiError> {
        let most = self.max_context();
        let of = if field == "messages" { "your messages resulted in" } else { "your prompt has" };
        let Some(room) = most.checked_sub(tokens).filter(|&room| room > 0) else {
            let problem = format!("{of} {tokens} tokens, and an answer needs one more. Shorten the {field}");
            return Err(ApiError::context_length(most, problem).with_param(field));
        };
        Ok(asked.or(default).unwrap_or(room).min(room))
    }

    /// A place for so many answers.
    pub fn admit(self: &Arc<Self>, answers: usize, arrived: Instant) -> Result<Place, ApiError> {
        if *self.phase.borrow() != Phase::Open {
            return Err(ApiError::shutting_down());
        }
        let most = self.options.max_sequences.saturating_add(self.options.max_queue);
        let fits = |taken: usize| (taken == 0 || taken + answers <= most).then_some(taken + answers);
        match self.answers.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Place {
                state: Arc::clone(self),
                answers,
                arrived,
                first_token: false,
                done: false,
                cancel: Cancel::new(),
            }),
            Err(taken) => {
                self.metrics.refused.fetch_add(1, Ordering::Relaxed);
                let message = format!("{taken} answers run or wait already: try again later");
                Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full"))
            }
        }
    }
}

/// The place that a request has while it is answered. Dropping it before the end means that nobody waits any more: its
/// answers are cancelled.
#[derive(Debug)]
pub struct Place {
    pub state: Arc<State>,
    /// Ends the request's answers.
    pub cancel: Cancel,
    answers: usize,
    arrived: Instant,
    first_token: bool,
    done: bool,
}

impl Place {
    /// A token came.
    pub fn token(&mut self) {
        if !std::mem::replace(&mut self.first_token, true) {
            self.state.metrics.first_token.observe(self.arrived.elapsed());
        }
    }

    /// All answers ended.
    pub fn done(&mut self, usage: &ChatUsage) {
        self.done = true;
        let metrics = &self.state.metrics;
        metrics.whole.observe(self.arrived.elapsed());
        for (counter, tokens) in [
            (&metrics.prompt_tokens, usage.prompt_tokens),
            (&metrics.cached_tokens, usage.cached_tokens),
            (&metrics.completion_tokens, usage.completion_tokens),
            (&metrics.reasoning_tokens, usage.reasoning_tokens),
        ] {
            counter.fetch_add(tokens as u64, Ordering::Relaxed);
        }
    }

    /// One of them lost something that the model wrote, or did not.
    pub fn malformed(&self, lost: bool) {
        self.state.metrics.malformed.fetch_add(u64::from(lost), Ordering::Relaxed);
    }

    /// They ended in an error, which was told.
    pub fn failed(&mut self) {
        self.done = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.state.answers.fetch_sub(self.answers, Ordering::AcqRel);
        if !self.done {
            self.state.metrics.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A new id with a prefix and 24 hexadecimal digits.
pub fn new_id(prefix: &str) -> String {
    call_id().replacen("call_", prefix, 1)
}
