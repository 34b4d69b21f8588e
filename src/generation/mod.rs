//! Text generation: token ids in, token ids out.
//!
//! - [`Engine`] runs many requests in one batch, with chunked prefill and speculative decoding by the MTP layer;
//!   [`Engine::generate`] is the blocking way to one answer, [`Engine::stream`] the iterator.
//! - [`Sampler`] chooses a token from logits by [`SamplingParams`].
//! - [`StopConditions`] end an answer at token ids or strings.
//! - [`Tokenizer`] and [`Detokenizer`] turn text to ids and back, the latter as ids come.
//! - [`TokenModel`] is what the engine asks of a model; [`LocalModel`] is the crate's own.
//! - [`Service`] runs an engine on its own thread, for callers on many threads.
//! - [`Constraint`] is a grammar that an answer must follow; with feature `constrain`, `GrammarCompiler` makes one
//!   from a [`Grammar`](crate::grammar::Grammar).
//!
//! The engine knows nothing of chats: ids are the truth, and the text it gives is a view of them.

mod byte_level;
mod caught;
#[cfg(feature = "constrain")]
mod constrain;
mod constraint;
mod detokenizer;
mod draw;
mod engine;
mod error;
mod generate;
mod guarded;
mod largest;
mod local;
mod memory;
mod options;
mod params;
mod record;
mod request;
mod sampler;
mod service;
mod stop;
mod token_model;
mod tokenizer;

#[cfg(feature = "constrain")]
pub use constrain::GrammarCompiler;
pub use constraint::{Constraint, TokenSet};
pub use detokenizer::Detokenizer;
pub use draw::{Draw, Drawn, LogitChange, draw};
pub use engine::Engine;
pub use error::{GenerationError, Result};
pub use generate::EventStream;
pub use largest::{Largest, largest};
pub use local::LocalModel;
pub use memory::MemoryPlan;
pub use options::{EngineOptions, Stats};
pub use params::SamplingParams;
pub use record::{RECORD_VERSION, Record, RecordOptions, RouteShape, Routes};
pub use request::{Cancel, Completion, Event, Request, RequestId, Token, Usage};
pub use sampler::{Distribution, Logprobs, Report, Sampled, Sampler};
pub use service::{Load, Service, Sink};
pub use stop::{FinishReason, StopConditions, StopMatcher};
pub use token_model::{Pages, TokenModel};
pub use tokenizer::{RanksProblem, SpecialTokens, Tokenizer};
