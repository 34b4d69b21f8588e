//! The body of `/v1/completions`.

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::super::options::ServerOptions;
use super::fields::{Fields, as_ids, ids_of, list, text_of, wrong_text};
use super::sampling::Common;
use super::unserved;
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
    /// Most tokens of an answer, if the request says; 0 only with `echo`.
    pub(in super::super) max_tokens: Option<usize>,
    /// Most tokens of an answer if the request does not say.
    pub(in super::super) default_tokens: usize,
    /// Fewest tokens of an answer: what would end it before is not chosen.
    pub(in super::super) min_tokens: usize,
    /// Token ids that end an answer, beside the model's own.
    pub(in super::super) stop_ids: Vec<u32>,
    /// Whether the model's own end tokens do not end an answer.
    pub(in super::super) ignore_eos: bool,
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
        unserved::check_completion(&fields)?;
        if let Some(format) = fields.json("response_format")? {
            if format.get("type").and_then(Json::as_str) != Some("text") {
                let problem = "belongs to /v1/chat/completions: a completion is plain text";
                return Err(ApiError::field("response_format", problem));
            }
            unserved::check_format(&format, &[])?;
        }
        let common = Common::read(&fields, options)?;
        let expected = "a string, a list of strings, token ids or a list of lists of them";
        let raw = fields.raw("prompt").ok_or_else(|| ApiError::field("prompt", "is missing"))?;
        let prompts = prompts(raw).ok_or_else(|| wrong_text("prompt", expected, raw))?;
        if prompts.is_empty() || prompts.len().saturating_mul(common.n) > options.max_choices {
            let problem = format!("expected at most {} answers, prompts times `n`", options.max_choices);
            return Err(ApiError::field("prompt", if prompts.is_empty() { "is empty" } else { problem.as_str() }));
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
        let default_tokens = options.max_tokens.unwrap_or(MAX_TOKENS);
        let min_tokens = fields.whole("min_tokens", 0, max_tokens.unwrap_or(default_tokens))?.unwrap_or(0);
        if min_tokens > 0 && !common.stop.is_empty() {
            return Err(ApiError::field(
                "min_tokens",
                "stop strings end an answer whenever they come: leave out `stop`",
            ));
        }
        Ok(Self {
            common,
            prompts,
            max_tokens,
            default_tokens,
            min_tokens,
            stop_ids: fields.read("stop_token_ids", "a list of token ids", as_ids)?.unwrap_or_default(),
            ignore_eos: fields.bool("ignore_eos")?.unwrap_or(false),
            logprobs,
            echo,
            add_special_tokens: fields.bool("add_special_tokens")?.unwrap_or(true),
        })
    }
}

/// The prompts of a field; `None` if it is none of them.
fn prompts(raw: &RawValue) -> Option<Vec<RawPrompt>> {
    let text = |raw| text_of(raw).map(|text| RawPrompt::Text(text.into_owned()));
    if let Some(text) = text(raw) {
        return Some(vec![text]);
    }
    let first = raw.get().strip_prefix('[')?.trim_start();
    if first.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Some(vec![RawPrompt::Ids(ids_of(raw)?)]);
    }
    list(raw)?.into_iter().map(|item| text(item).or_else(|| ids_of(item).map(RawPrompt::Ids))).collect()
}
