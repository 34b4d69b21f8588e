//! How a server is spoken to.

use std::fmt;
use std::time::Duration;

use crate::chat::Json;
use crate::chat_model::error::{ChatModelError, Result};

/// The request field that switches thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThinkingField {
    /// `chat_template_kwargs: {"thinking": …}`: vLLM, SGLang.
    TemplateKwargs,
    /// `thinking: {"type": "enabled" | "disabled"}`: DeepSeek's API.
    Type,
    /// Both.
    #[default]
    Both,
    /// None: for servers that refuse fields they don't know.
    Omit,
}

/// What a server's log-probabilities are those of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerLogprobs {
    /// The model, at temperature 1 over the whole vocabulary, as the protocol has it.
    #[default]
    Model,
    /// The distribution that a token was drawn from: after temperature and truncation (vLLM with
    /// `--logprobs-mode processed_logprobs`).
    Choice,
}

/// How a server is spoken to.
#[derive(Clone)]
pub struct OpenAiOptions {
    /// Sent as a bearer token. Default: none.
    pub api_key: Option<String>,
    /// Most tokens of prompt and answer together; the server is not asked. Default 131,072.
    pub context_length: usize,
    /// Longest time to get a connection. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest time that the server says nothing, also before its first word. Default 5 min.
    pub idle_timeout: Duration,
    /// Longest time of one attempt. Default 1 h.
    pub whole_timeout: Duration,
    /// How often an attempt that failed is repeated. Default 4.
    pub retries: usize,
    /// The time before the first repetition; it doubles each time, and up to half of it is left to chance. Default 500 ms.
    pub backoff: Duration,
    /// The longest time before a repetition; a server that names a longer one is not asked again. Default 60 s.
    pub max_backoff: Duration,
    /// Most requests at the same time, at least 1. Default 16.
    pub max_concurrent: usize,
    /// Whether the answer is streamed. Default: yes.
    pub stream: bool,
    /// The request field that switches thinking.
    pub thinking_field: ThinkingField,
    /// Whether earlier reasoning is sent, as `reasoning_content`. Default: yes.
    pub send_reasoning: bool,
    /// What the server's log-probabilities are those of. Only records of answers read them.
    pub logprobs: ServerLogprobs,
    /// The version of the server's weights, for records of its answers. Default 0.
    pub weights_version: u64,
    /// Further fields of the request; they replace those of the same name. Default: none.
    pub extra: Vec<(String, Json)>,
}

impl Default for OpenAiOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            context_length: 131_072,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            whole_timeout: Duration::from_secs(3600),
            retries: 4,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
            max_concurrent: 16,
            stream: true,
            thinking_field: ThinkingField::default(),
            send_reasoning: true,
            logprobs: ServerLogprobs::default(),
            weights_version: 0,
            extra: Vec::new(),
        }
    }
}

impl OpenAiOptions {
    /// Checks every range.
    pub(super) fn validate(&self) -> Result<()> {
        let zero = |name, is_zero: bool| {
            let value = "0".to_string();
            if is_zero { Err(ChatModelError::Option { name, value, expected: "more than 0" }) } else { Ok(()) }
        };
        zero("context_length", self.context_length == 0)?;
        zero("max_concurrent", self.max_concurrent == 0)?;
        zero("connect_timeout", self.connect_timeout.is_zero())?;
        zero("idle_timeout", self.idle_timeout.is_zero())?;
        zero("whole_timeout", self.whole_timeout.is_zero())
    }
}

/// Without the key.
impl fmt::Debug for OpenAiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiOptions")
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("context_length", &self.context_length)
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("whole_timeout", &self.whole_timeout)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("max_backoff", &self.max_backoff)
            .field("max_concurrent", &self.max_concurrent)
            .field("stream", &self.stream)
            .field("thinking_field", &self.thinking_field)
            .field("send_reasoning", &self.send_reasoning)
            .field("logprobs", &self.logprobs)
            .field("weights_version", &self.weights_version)
            .field("extra", &self.extra)
            .finish()
    }
}
