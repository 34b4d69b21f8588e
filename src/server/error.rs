//! Errors in the protocol's shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::chat::{ChatError, GrammarError};
use crate::chat_model::ChatModelError;
use crate::generation::GenerationError;
use crate::grammar::SchemaOf;
use crate::show;

/// Most characters of an error's message, whatever the request holds.
const MAX_MESSAGE: usize = 1000;
/// Most characters of the name of the field that is wrong.
const MAX_PARAM: usize = 200;

/// An answer that is an error. As JSON: `{"error": {"message", "type", "param", "code"}}`.
///
/// Its message is one line of at most 1000 characters: a longer one loses its middle, so that a value of the request
/// is never repeated at length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl ApiError {
    /// An error with a status. Every error is made here, and its message cut.
    pub(super) fn new(status: StatusCode, message: impl AsRef<str>) -> Self {
        Self { status, message: show::ends(message.as_ref(), MAX_MESSAGE), param: None, code: None }
    }

    /// A request that cannot be understood or carried out.
    pub(super) fn bad(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that has a wrong value; the message begins with the field's name.
    pub(super) fn field(name: impl AsRef<str>, problem: impl std::fmt::Display) -> Self {
        let name = name.as_ref();
        Self::bad(format!("{name}: {problem}")).with_param(name)
    }

    /// A field, or the body where there is none, that has more than is read.
    pub(super) fn large(name: &str, problem: impl std::fmt::Display) -> Self {
        let error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("{name}: {problem}")).with_code("too_large");
        if name == "body" { error } else { error.with_param(name) }
    }

    /// The fault is the server's.
    pub(super) fn internal(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A request that exceeds a context of so many tokens. Clients look for these words to know that a conversation
    /// must become shorter.
    pub(super) fn context_length(most: usize, problem: impl std::fmt::Display) -> Self {
        let message = format!("This model's maximum context length is {most} tokens. However, {problem}.");
        Self::bad(message).with_code("context_length_exceeded")
    }

    /// The server is about to end.
    pub(super) fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down").with_code("shutting_down")
    }

    pub(super) fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) fn with_param(mut self, param: impl AsRef<str>) -> Self {
        self.param = Some(show::ends(param.as_ref(), MAX_PARAM));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The field of the request that is wrong, if it is one.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The protocol's word for the kind of error.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body.
    pub fn to_json(&self) -> String {
        let (message, param) = (self.message.as_str(), self.param.as_deref());
        let body = Body { error: Inner { message, kind: self.kind(), param, code: self.code } };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], self.to_json()).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                if self.status == StatusCode::SERVICE_UNAVAILABLE {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of a body may be on its way: it is not waited for.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let message = error.to_string();
        match error {
            GenerationError::Parameter { name, .. } => {
                // The protocol's name of the same thing.
                let name = if name == "stop.strings" { "stop" } else { name };
                Self::bad(message).with_param(name)
            }
            GenerationError::TokenId { place, .. } => {
                let prompt = place.starts_with("prompt_ids");
                Self::bad(message).with_param(if prompt { "prompt".to_string() } else { place })
            }
            GenerationError::PromptTooLong { tokens, max_context } => Self::context_length(
                max_context,
                format!("your prompt has {tokens} tokens, and an answer needs one more"),
            ),
            GenerationError::PromptTooLarge { bytes, most, max_context } => {
                let problem = format!("your prompt has {bytes} bytes, and so many tokens are {most} bytes at most");
                Self::context_length(max_context, problem)
            }
            GenerationError::NeverFits { needed, max_cached_tokens } => {
                let problem = format!(
                    "the request may need {needed} cached tokens, and this server caches no more than that: shorten the \
                     prompt or lower max_tokens"
                );
                Self::context_length(max_cached_tokens, problem)
            }
            GenerationError::EmptyPrompt
            | GenerationError::StopStringsWithoutTokenizer
            | GenerationError::Grammar(_)
            | GenerationError::Constraint(_) => Self::bad(message),
            GenerationError::Schema { of, problem } => {
                GrammarError::Schema { of, pointer: String::new(), problem }.into()
            }
            GenerationError::Stopped => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            _ => Self::internal(message),
        }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        match &error {
            ChatError::Field { message, field, problem } => {
                Self::field(format!("messages[{message}].{field}"), problem)
            }
            _ => Self::bad(error.to_string()),
        }
    }
}

impl From<GrammarError> for ApiError {
    fn from(error: GrammarError) -> Self {
        let field = match error {
            GrammarError::NoTools | GrammarError::UnknownTool(_) => "tool_choice",
            GrammarError::ResponseFormat(_) | GrammarError::Schema { of: SchemaOf::ResponseFormat, .. } => {
                "response_format"
            }
            _ => "tools",
        };
        Self::bad(error.to_string()).with_param(field)
    }
}

impl From<ChatModelError> for ApiError {
    fn from(error: ChatModelError) -> Self {
        match error {
            ChatModelError::Chat(error) => error.into(),
            ChatModelError::Generation(error) => error.into(),
            ChatModelError::Grammar(error) => error.into(),
            ChatModelError::Template(_) => Self::bad(error.to_string()).with_param("messages"),
            ChatModelError::NoChatFormat { .. } => Self::bad(error.to_string()),
            ChatModelError::Tool(_) => Self::bad(error.to_string()).with_param("tool_choice"),
            ChatModelError::ControlToken { .. } => Self::bad(error.to_string()).with_param("messages"),
            ChatModelError::Unsupported { ref field, .. } => {
                let param = field.clone();
                let refused = Self::bad(error.to_string());
                param.map_or(refused.clone(), |param| refused.with_param(param))
            }
            error => Self::internal(error.to_string()),
        }
    }
}
