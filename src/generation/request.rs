//! What the engine takes and what it gives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::constraint::Constraint;
use super::params::SamplingParams;
use super::record::{Record, RecordOptions};
use super::sampler::Logprobs;
use super::stop::{FinishReason, StopConditions};
use super::tokenizer::SpecialTokens;

/// Names a request inside its engine; later requests have larger ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// Ends a sequence from any thread; the engine looks at it in every step. Clones share the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns it on, for good.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is on.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A prompt and how to continue it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The prompt's token ids, at least one.
    pub prompt_ids: Vec<u32>,
    /// How tokens are chosen.
    pub params: SamplingParams,
    /// What ends the answer.
    pub stop: StopConditions,
    /// Most tokens of the answer, at least 1. Default: as many as the model's context holds.
    pub max_tokens: Option<usize>,
    /// Report log-probabilities, with this many of the most probable tokens, at most the vocabulary. Default: none.
    pub logprobs: Option<usize>,
    /// Report the set of tokens that `top_k`, `top_p`, `min_p` and `logit_bias` kept. Default: no.
    pub kept: bool,
    /// What to record of the answer, for training. Default: nothing.
    pub record: RecordOptions,
    /// Which special tokens come out as text. Default: drop them.
    pub special_tokens: SpecialTokens,
    /// A switch that ends the answer. Default: none.
    pub cancel: Option<Cancel>,
    /// A grammar that the answer must follow. Default: none.
    pub constraint: Option<Box<dyn Constraint>>,
}

impl Request {
    /// A greedy request without stop conditions.
    pub fn new(prompt_ids: impl Into<Vec<u32>>) -> Self {
        Self { prompt_ids: prompt_ids.into(), ..Self::default() }
    }
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id. Ids are never held back: they include the stop id and the tokens of a stop string.
    pub id: u32,
    /// The text that can be given out with it (empty without a tokenizer): what a cut character or a possible stop
    /// string holds back comes with a later token or at the end.
    pub text: String,
    /// Its log-probabilities, if asked for.
    pub logprobs: Option<Logprobs>,
    /// The tokens it was chosen among, ascending, if asked for; `None` also means that nothing was left out.
    pub kept: Option<Vec<u32>>,
}

/// Counts of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were in the cache already, from an earlier request that began alike.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Tokens drafted by the MTP layer and verified.
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
}

/// What happened to a request. The engine, its service and its streams give `Result<Event>`: the first error or
/// [`Self::Finished`] is the last that comes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A token was generated.
    Token(Token),
    /// The request ended.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Text that was held back until now.
        text: String,
        /// Its counts.
        usage: Usage,
        /// What was recorded, if the request asked for anything.
        record: Option<Box<Record>>,
    },
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The generated tokens.
    pub tokens: Vec<Token>,
    /// The whole text (empty without a tokenizer).
    pub text: String,
    /// Why it ended.
    pub reason: FinishReason,
    /// Its counts.
    pub usage: Usage,
    /// What was recorded, if the request asked for anything.
    pub record: Option<Box<Record>>,
}

impl Completion {
    /// The generated ids.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}
