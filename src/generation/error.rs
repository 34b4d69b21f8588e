//! What can go wrong while generating.

use std::path::PathBuf;

use super::tokenizer::RanksProblem;
use crate::grammar::SchemaOf;
use crate::show::{one_line, one_line_path};

/// An error of the generation layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    // ---- what the caller asked for
    /// A parameter is outside its range.
    #[error("{name} is {}: expected {expected}", one_line(value))]
    Parameter {
        /// The field's name.
        name: &'static str,
        /// The value given.
        value: String,
        /// The values allowed.
        expected: &'static str,
    },
    /// A token id that the model's vocabulary does not have.
    #[error("{place} holds token id {id}, but the model's vocabulary has {vocab_size} entries")]
    TokenId {
        /// The position of the id, e.g. `prompt_ids[3]`.
        place: String,
        /// The id.
        id: u32,
        /// The model's `vocab_size`.
        vocab_size: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,
    /// A prompt that leaves no position for a new token.
    #[error("the prompt has {tokens} tokens, but the model's context holds {max_context} and one must stay free")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The model's context length.
        max_context: usize,
    },
    /// A prompt with more bytes than the tokens of a whole context can have.
    #[error(
        "the prompt has {bytes} bytes, but the model's context holds {max_context} tokens, which are {most} bytes at most"
    )]
    PromptTooLarge {
        /// Bytes of the prompt.
        bytes: usize,
        /// Bytes of the longest token, as often as the context holds tokens.
        most: usize,
        /// The model's context length.
        max_context: usize,
    },
    /// A request that does not fit the cache even alone.
    #[error(
        "the request may need {needed} cached tokens, but max_cached_tokens is {max_cached_tokens}: \
         shorten the prompt or lower max_tokens"
    )]
    NeverFits {
        /// Cached tokens the request may need, in whole pages.
        needed: usize,
        /// The engine's bound.
        max_cached_tokens: usize,
    },
    /// Stop strings were given to an engine without a tokenizer.
    #[error("stop strings need a tokenizer: build the engine with `with_tokenizer`")]
    StopStringsWithoutTokenizer,
    /// Speculative decoding was asked of a model without an MTP layer.
    #[error("speculative decoding needs an MTP layer, and this model has none (num_nextn_predict_layers is 0)")]
    NoMtp,

    /// Routes were requested from a model that does not report them.
    #[error("record.routes: this model does not tell the experts that its tokens are sent to")]
    NoRoutes,
    /// A record that contradicts itself, or of another version.
    #[error("{field} {problem}")]
    Record {
        /// The field.
        field: &'static str,
        /// What it is and what it must be.
        problem: String,
    },

    // ---- the engine's thread
    /// The system gave no thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The engine's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
    /// A step of the engine failed, and with it every request that it ran.
    #[error("the engine failed: {0}")]
    Step(String),
    /// The engine's thread panicked, which ended every request. Later ones get [`Self::Stopped`].
    #[error("the engine's thread panicked: {}", one_line(_0))]
    Panicked(String),
    /// The weights can't be swapped: requests are in the engine, the model is of another kind or can't swap them.
    #[error("the weights cannot be swapped: {0}")]
    Swap(String),

    // ---- what the model answered
    /// A logit that is NaN or +inf.
    #[error("the model's logit of token {id} is {value}")]
    Logit {
        /// The token.
        id: usize,
        /// The logit.
        value: f32,
    },
    /// No token is left to choose: every logit is -inf after `logit_bias` and the constraint.
    #[error("no token can be chosen: all {vocab_size} logits are -inf")]
    NoCandidate {
        /// Number of logits.
        vocab_size: usize,
    },
    /// The model's output has another size than it must have.
    #[error("the model's {what} has the wrong size: expected {expected}, got {got}")]
    ModelOutput {
        /// Which output.
        what: &'static str,
        /// The size it must have.
        expected: String,
        /// The size it has.
        got: String,
    },
    /// The device has no memory left for what a step needs. The step was undone: a smaller request, or the same one when
    /// others have ended, may work.
    #[error("the device is out of memory: {}", one_line(_0))]
    OutOfMemory(String),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(candle_core::Error),

    /// A grammar that cannot be held to.
    #[error("the grammar cannot be held to: {0}")]
    Grammar(String),
    /// A schema that cannot be held to.
    #[error("{of}: {problem}")]
    Schema {
        /// Whose schema.
        of: SchemaOf,
        /// Why.
        problem: String,
    },
    /// A constraint failed.
    #[error("the constraint failed: {0}")]
    Constraint(String),

    // ---- the tokenizer
    /// A tokenizer's file could not be read.
    #[error("cannot read {}: {source}", one_line_path(path))]
    TokenizerRead {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not a tokenizer's.
    #[error("{}: not a tokenizer: {}", one_line_path(path), one_line(message))]
    TokenizerFormat {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// `tiktoken.model` is malformed.
    #[error("{}: {problem}", one_line_path(path))]
    TokenizerRanks {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: RanksProblem,
    },
    /// The tokenizer has ids that the model has not.
    #[error(
        "{}: the tokenizer's vocabulary has {tokenizer} entries, more than the model's vocab_size {model}",
        one_line_path(path)
    )]
    TokenizerVocabulary {
        /// The file.
        path: PathBuf,
        /// The tokenizer's largest id + 1.
        tokenizer: usize,
        /// The model's `vocab_size`.
        model: usize,
    },
    /// A text could not be encoded, or ids could not be decoded.
    #[error("{}: the tokenizer failed: {}", one_line_path(path), one_line(message))]
    Tokenizer {
        /// The file it came from.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// `std::result::Result` with [`GenerationError`].
pub type Result<T> = std::result::Result<T, GenerationError>;

impl From<candle_core::Error> for GenerationError {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        match text.contains("OUT_OF_MEMORY") || text.contains("out of memory") {
            true => Self::OutOfMemory(text),
            false => Self::Candle(error),
        }
    }
}
