//! The body of `/v1/completions`.

use super::super::error::ApiError;
use super::super::options::ServerOptions;
use super::fields::{Fields, as_ids, as_list};
use super::sampling::Common;
use crate::chat::Json;

/// Tokens of an answer where neither the request nor the server's options say a number: the protocol's.
const MAX_TOKENS: usize = 16;
/// Most alternatives that are reported beside a token.
const MAX_LOGPROBS: usize = 20;

/// A text to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawPrompt {
    /// Text, in which control tokens are control tokens.
    Text(String),
    /// Ids.
    Ids(Vec<u32>),
}

/// Completions that were asked for.
#[derive(Debug, Clone)]
pub struct CompletionCall {
    /// What it shares with chats.
    pub(in super::super) common: Common,
    /// The texts to go on from.
    pub(in super::super) prompts: Vec<RawPrompt>,
    /// Most tokens of an answer; 0 only with `echo`.
    pub(in super::super) max_tokens: usize,
    /// Report log-probabilities, with this many alternatives.
    pub(in super::super) logprobs: Option<usize>,
    /// Whether the answer begins with the prompt.
    pub(in super::super) echo: bool,
    /// Whether the tokenizer puts its own begin token before a text.
    pub(in super::super) add_special_tokens: bool,
}

impl CompletionCall {
    /// Reads a body and checks all that can be checked without the model.
    ///
    /// # Errors
    /// An error of status 400 that names the field.
    pub fn from_json(body: &[u8], options: &ServerOptions) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        fields.refuse(&[
            ("suffix", "the model can't fill in"),
            ("response_format", "belongs to /v1/chat/completions: a completion is plain text"),
            ("tools", "belongs to /v1/chat/completions: a completion is plain text"),
            ("messages", "belongs to /v1/chat/completions: a completion has a `prompt`"),
        ])?;
        let common = Common::read(&fields, options)?;
        let expected = "a string, a list of strings, token ids or a list of lists of them";
        let prompts = fields.read("prompt", expected, prompts)?;
        let prompts = prompts.ok_or_else(|| ApiError::field("prompt", "is missing"))?;
        if prompts.is_empty() || prompts.len().saturating_mul(common.n) > options.max_choices {
            let problem = format!("expected at most {} answers, prompts times `n`", options.max_choices);
            return Err(ApiError::field("prompt", if prompts.is_empty() { "is empty" } else { problem.as_str() }));
        }
        if fields.whole("best_of", 1, usize::MAX)?.is_some_and(|best| best != common.n) {
            return Err(ApiError::field("best_of", "every answer is given: expected the same as `n`"));
        }
        let echo = fields.bool("echo")?.unwrap_or(false);
        // Some clients send `false`.
        let logprobs = match fields.json("logprobs")? {
            Some(Json::Bool(false)) => None,
            _ => fields.whole("logprobs", 0, MAX_LOGPROBS)?,
        };
        if echo && logprobs.is_some() {
            return Err(ApiError::field("logprobs", "there are none for the prompt: leave out `echo`"));
        }
        let max_tokens = fields.whole("max_tokens", usize::from(!echo), usize::MAX)?;
        Ok(Self {
            common,
            prompts,
            max_tokens: max_tokens.or(options.max_tokens).unwrap_or(MAX_TOKENS),
            logprobs,
            echo,
            add_special_tokens: fields.bool("add_special_tokens")?.unwrap_or(true),
        })
    }
}

fn prompts(json: &Json) -> Option<Vec<RawPrompt>> {
    if let Some(text) = json.as_str() {
        return Some(vec![RawPrompt::Text(text.to_string())]);
    }
    let items = as_list(json)?;
    if let Some(Json::Number(_)) = items.first() {
        return Some(vec![RawPrompt::Ids(as_ids(json)?)]);
    }
    let prompt = |item: &Json| match item.as_str() {
        Some(text) => Some(RawPrompt::Text(text.to_string())),
        None => as_ids(item).map(RawPrompt::Ids),
    };
    items.iter().map(prompt).collect()
}
