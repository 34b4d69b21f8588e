//! The endpoints that generate nothing: models, tokens, health, metrics, the page.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State as Extract};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use super::completions::raw_ids;
use super::error::ApiError;
use super::logprobs::text_of;
use super::request::{DetokenizeCall, TokenizeCall, TokenizeWhat};
use super::state::{Phase, State, new_id};
use super::{blocking, body, chat, json_response};
use crate::chat_model::ChatModel;

/// The chat page; its script, and a nonce for each visit, are put in.
const PAGE: &str = include_str!("page/page.html");
/// What the page decides, and what it draws.
const SCRIPT: &str = concat!(include_str!("page/logic.js"), include_str!("page/page.js"));

/// `/v1/models`.
pub async fn models(Extract(state): Extract<Arc<State>>) -> Response {
    json_response(json!({"object": "list", "data": [model(&state)]}).to_string())
}

/// `/v1/models/{id}`.
pub async fn one_model(
    Extract(state): Extract<Arc<State>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::bad(format!("the model's name: {}", error.body_text())))?;
    state.check_model(Some(&id))?;
    Ok(json_response(model(&state).to_string()))
}

fn model(state: &State) -> Value {
    json!({
        "id": state.chat.name(),
        "object": "model",
        "created": state.created,
        "owned_by": "deepseek-v32",
        "max_model_len": state.max_context(),
        "chat_format": state.chat.version().name(),
        "thinking": state.options.thinking,
    })
}

/// `/health`.
pub async fn health(Extract(state): Extract<Arc<State>>) -> Result<Response, ApiError> {
    if *state.phase.borrow() != Phase::Open {
        return Err(ApiError::shutting_down());
    }
    Ok(json_response(json!({"status": "ok"}).to_string()))
}

/// `/metrics`.
pub async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let text = state.metrics.text(&state.chat.service().load());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// `/tokenize`.
pub async fn tokenize(Extract(state): Extract<Arc<State>>, request: Request) -> Result<Response, ApiError> {
    let body = body::read(request, &state).await?;
    blocking(move || {
        let call = TokenizeCall::from_json(&body, &state.options)?;
        let ids = match &call.what {
            TokenizeWhat::Text(text, add) => raw_ids(&state, text, *add)?,
            TokenizeWhat::Chat(call) => chat::prompt(&state, call)?.ids,
        };
        let mut reply = json!({"count": ids.len(), "max_model_len": state.max_context(), "tokens": ids});
        if call.strings {
            let shown = ids.iter().map(|&id| text_of(&[id], state.chat.tokenizer()));
            reply["token_strs"] = shown.collect();
        }
        Ok(json_response(reply.to_string()))
    })
    .await
}

/// `/detokenize`.
pub async fn detokenize(Extract(state): Extract<Arc<State>>, request: Request) -> Result<Response, ApiError> {
    let body = body::read(request, &state).await?;
    blocking(move || {
        let tokens = DetokenizeCall::from_json(&body)?.tokens;
        let unknown = tokens.iter().find(|id| state.chat.tokenizer().id_to_token(**id).is_none());
        if let Some(id) = unknown {
            return Err(ApiError::field("tokens", format!("there is no token {id}")));
        }
        Ok(json_response(json!({"prompt": text_of(&tokens, state.chat.tokenizer())}).to_string()))
    })
    .await
}

/// `/`.
pub async fn page() -> Response {
    let nonce = new_id("");
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer".to_string()),
        (header::CACHE_CONTROL, "no-store".to_string()),
        (HeaderName::from_static("x-frame-options"), "DENY".to_string()),
    ];
    (headers, Html(PAGE.replace("{{nonce}}", &nonce).replacen("{{script}}", SCRIPT, 1))).into_response()
}

/// Any other path.
pub async fn not_found(request: Request) -> ApiError {
    let message = format!("there is no {}", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, message).with_code("unknown_url")
}

/// A path with another method.
pub async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not answer {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
