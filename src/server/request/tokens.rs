//! The bodies of `/tokenize` and `/detokenize`.

use super::super::error::ApiError;
use super::super::options::ServerOptions;
use super::chat::ChatCall;
use super::fields::{Fields, ids_of, wrong_text};

/// What is to be put into ids.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // there is only one at a time
pub enum TokenizeWhat {
    /// A text; whether the tokenizer puts its own begin token before it.
    Text(String, bool),
    /// A conversation, as a chat would have it.
    Chat(ChatCall),
}

/// Ids that were asked for.
#[derive(Debug, Clone)]
pub struct TokenizeCall {
    /// Of what.
    pub(in super::super) what: TokenizeWhat,
    /// Whether the tokens are shown as text, too.
    pub(in super::super) strings: bool,
}

impl TokenizeCall {
    /// Reads a body: `{"prompt": …}`, or the body of a chat.
    ///
    /// # Errors
    /// An error of status 400 that names the field.
    pub fn from_json(body: &[u8], options: &ServerOptions) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        let what = match fields.text("prompt")? {
            Some(text) => TokenizeWhat::Text(text, fields.bool("add_special_tokens")?.unwrap_or(true)),
            None if fields.has("messages") => TokenizeWhat::Chat(ChatCall::from_json(body, options)?),
            None => return Err(ApiError::field("prompt", "is missing: expected `prompt` or `messages`")),
        };
        Ok(Self { what, strings: fields.bool("return_token_strs")?.unwrap_or(false) })
    }
}

/// Text that was asked for.
#[derive(Debug, Clone)]
pub struct DetokenizeCall {
    /// Of which ids.
    pub(in super::super) tokens: Vec<u32>,
}

impl DetokenizeCall {
    /// Reads a body: `{"tokens": […]}`.
    ///
    /// # Errors
    /// An error of status 400 that names the field.
    pub fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        let raw = fields.raw("tokens").ok_or_else(|| ApiError::field("tokens", "is missing"))?;
        let tokens = ids_of(raw).ok_or_else(|| wrong_text("tokens", "a list of token ids", raw))?;
        Ok(Self { tokens })
    }
}
