//! What the endpoints answer.

use serde::Serialize;

use super::logprobs::{ChatLogprobs, TextLogprobs};
use crate::chat::ToolCall;
use crate::chat_model::{ChatUsage, Finish};

/// A whole answer or a piece of one.
#[derive(Debug, Serialize)]
pub struct Reply<'a, C> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    pub system_fingerprint: &'static str,
    pub choices: Vec<C>,
    /// `Some(None)` is `null`: the counts come with a later piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// Says which version of the crate answered.
pub const FINGERPRINT: &str = concat!("deepseek-v32-", env!("CARGO_PKG_VERSION"));

/// Counts of tokens.
#[derive(Debug, Serialize)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

#[derive(Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: usize,
}

impl From<&ChatUsage> for Usage {
    fn from(usage: &ChatUsage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens: usage.reasoning_tokens },
        }
    }
}

/// One answer of a chat.
#[derive(Debug, Serialize)]
pub struct ChatChoice {
    pub index: usize,
    pub message: MessageReply,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: &'static str,
    /// The ids of the prompt and of the answer, with the token that ended it, if they were asked for.
    #[serde(flatten)]
    pub ids: Option<TokenIds>,
    /// Why a call could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_error: Option<String>,
    /// What was taken for markup and is in no call: [`ChatResponse::dropped`](crate::chat_model::ChatResponse::dropped).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct TokenIds {
    pub prompt_token_ids: Vec<u32>,
    pub token_ids: Vec<u32>,
}

#[derive(Debug, Serialize)]
pub struct MessageReply {
    pub role: &'static str,
    /// `null` beside calls if nothing was said.
    pub content: Option<String>,
    pub refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A piece of an answer of a chat.
#[derive(Debug, Default, Serialize)]
pub struct ChatPiece {
    pub index: usize,
    pub delta: DeltaReply,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: Option<&'static str>,
    /// Why a call could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_error: Option<String>,
    /// What was taken for markup and is in no call: [`ChatResponse::dropped`](crate::chat_model::ChatResponse::dropped).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct DeltaReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[CallPiece; 1]>,
}

/// A piece of a call: its id and name, or a fragment of its arguments.
#[derive(Debug, Serialize)]
pub struct CallPiece {
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub function: FunctionPiece,
}

#[derive(Debug, Serialize)]
pub struct FunctionPiece {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
}

/// A raw completion, or a piece of one.
#[derive(Debug, Serialize)]
pub struct TextChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<TextLogprobs>,
    pub finish_reason: Option<&'static str>,
}

/// The protocol's word for an end; `None` if it is none that a client is told.
pub fn finish_reason(finish: Finish) -> Option<&'static str> {
    match finish {
        Finish::Stop => Some("stop"),
        Finish::ToolCalls => Some("tool_calls"),
        Finish::Length => Some("length"),
        Finish::Cancelled => None,
    }
}

/// JSON text of a reply; it has no values that JSON has not.
pub fn json(reply: &impl Serialize) -> String {
    serde_json::to_string(reply).unwrap_or_default()
}
