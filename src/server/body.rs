//! Bodies of requests, within limits.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::Client;
use super::error::ApiError;
use super::state::{Phase, State};

/// How many of the largest bodies are held at once, read or waiting to be parsed.
const HELD: usize = 16;
/// Bodies up to this size, in bytes, are parsed without waiting for larger ones.
const SMALL: usize = 64 << 10;
/// Bytes of a body for each permit to parse.
const UNIT: usize = 1 << 10;

/// Permits to parse bodies, of which the largest has `max_body` bytes and takes them all.
pub fn permits(max_body: usize) -> usize {
    (max_body / UNIT).clamp(1, tokio::sync::Semaphore::MAX_PERMITS.min(u32::MAX as usize))
}

/// The body of a request. Its bytes count as held, and its parsing as under way, until it is dropped.
#[derive(Debug)]
pub struct Body {
    held: Held,
    /// Who sent it.
    pub client: Client,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.held.bytes
    }
}

/// Bytes that are counted.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    state: Arc<State>,
}

impl Held {
    /// Adds bytes; refuses them if too many are held in all.
    fn extend(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let most = HELD.saturating_mul(self.state.options.max_body);
        let before = self.state.held_bytes.fetch_add(chunk.len(), Ordering::AcqRel);
        self.bytes.extend_from_slice(chunk);
        if before.saturating_add(chunk.len()) <= most {
            return Ok(());
        }
        let message = format!("bodies of other requests take {before} bytes of {most}: try again later");
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("busy"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.held_bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
    }
}

/// Reads a JSON body, and waits until it may be parsed.
///
/// Other content types are refused: a page of any site may send those to any server, loopback or not, without asking.
pub async fn read(request: Request, state: &Arc<State>) -> Result<Body, ApiError> {
    let client = Client::of(&request);
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        let message = format!("the body's Content-Type is {kind:?}, expected \"application/json\"");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING).filter(|&encoding| encoding != "identity") {
        let message = format!("the body's Content-Encoding is {encoding:?}, expected none");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let limit = state.options.body_timeout;
    let mut phase = state.phase.subscribe();
    let held = tokio::select! {
        biased;
        held = tokio::time::timeout(limit, collect(&parts.headers, body, state)) => held.unwrap_or_else(|_| {
            let message = format!("the body took more than {} s", limit.as_secs_f32());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
        })?,
        // The rest of it is not waited for.
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => return Err(ApiError::shutting_down()),
    };
    let permit = if held.bytes.len() <= SMALL {
        None
    } else {
        let units = held.bytes.len().div_ceil(UNIT).min(permits(state.options.max_body));
        // It is never closed.
        Arc::clone(&state.parsing).acquire_many_owned(units as u32).await.ok()
    };
    Ok(Body { held, client, _permit: permit })
}

async fn collect(headers: &HeaderMap, body: HttpBody, state: &Arc<State>) -> Result<Held, ApiError> {
    let options = &state.options;
    let most = options.max_body;
    let too_large = || {
        let message = format!("the body is larger than {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_code("too_large")
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Whoever sends more than is read may never read the answer, so a little more is.
    if length.is_some_and(|length| length / 4 > most) {
        return Err(too_large());
    }
    // Nothing is reserved for what is only said to come.
    let bytes = Vec::with_capacity(length.unwrap_or(0).min(most).min(1 << 16));
    let mut held = Held { bytes, state: Arc::clone(state) };
    let mut received = 0usize;
    let mut stream = body.into_data_stream();
    loop {
        let chunk = match tokio::time::timeout(options.read_timeout, stream.next()).await {
            Err(_) => {
                let message = format!("nothing of the body came for {} s", options.read_timeout.as_secs_f32());
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(ApiError::bad(format!("the body broke off: {error}"))),
            Ok(Some(Ok(chunk))) => chunk,
        };
        received = received.saturating_add(chunk.len());
        if received <= most {
            held.extend(&chunk)?;
        } else if received / 4 > most {
            return Err(too_large());
        }
    }
    if received > most { Err(too_large()) } else { Ok(held) }
}
