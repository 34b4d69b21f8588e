//! What is done to every request: the host, the key, the origin, counts and headers.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connection::AtWork;
use super::error::ApiError;
use super::host;
use super::state::{State, new_id};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Counts and logs a request, gives its answer an id and lets other origins read it, if they may.
pub async fn outer(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (_worker, answer) = request.extensions().get().map(AtWork::begin).unzip();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let method = request.method().clone();
    let preflight = method == Method::OPTIONS
        && state.options.cors.is_some()
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match host::check(&request, &state) {
        Err(error) => error.into_response(),
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&new_id("req_")) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(origin) = state.options.cors.as_deref().and_then(|origin| HeaderValue::from_str(origin).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
        if preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, authorization"));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    let status = response.status().as_u16();
    state.metrics.answered(&route, status);
    tracing::info!(%method, route, status, seconds = began.elapsed().as_secs_f64(), "answered");
    match answer {
        Some(answer) => response.map(|body| answer.with(body)),
        None => response,
    }
}

/// Lets nobody pass without the key, if there is one.
pub async fn key(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let Some(key) = &state.options.api_key else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = given.and_then(|given| match given.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(key.trim_ascii()),
        _ => None,
    });
    match bearer {
        Some(given) if same(given, key.as_bytes()) => next.run(request).await,
        given => {
            let message = match given {
                Some(_) => "the API key is wrong",
                None => "an API key is needed: send the header `Authorization: Bearer KEY`",
            };
            ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key").into_response()
        }
    }
}

/// Whether two keys are the same, in a time that depends on the given one's length only.
fn same(given: &[u8], key: &[u8]) -> bool {
    let mut difference = usize::from(given.len() != key.len());
    for (at, byte) in given.iter().enumerate() {
        let other = if key.is_empty() { 0 } else { key[at % key.len()] };
        difference |= usize::from(byte ^ other);
    }
    std::hint::black_box(difference) == 0
}
