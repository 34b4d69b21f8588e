//! Bodies of requests, within limits.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;

use super::error::ApiError;
use super::options::ServerOptions;

/// The bytes of a JSON body.
///
/// Other content types are refused: a page of any site may send those to any server, loopback or not, without asking.
pub async fn read(request: Request, options: &ServerOptions) -> Result<Vec<u8>, ApiError> {
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
    let whole = tokio::time::timeout(options.body_timeout, collect(&parts.headers, body, options));
    whole.await.unwrap_or_else(|_| {
        let message = format!("the body took more than {} s", options.body_timeout.as_secs_f32());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

async fn collect(headers: &HeaderMap, body: Body, options: &ServerOptions) -> Result<Vec<u8>, ApiError> {
    let most = options.max_body;
    let too_large = || {
        let message = format!("the body is larger than {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Whoever sends more than is read may never read the answer, so a little more is.
    if length.is_some_and(|length| length / 4 > most) {
        return Err(too_large());
    }
    // What is only said to come takes no room.
    let mut bytes = Vec::with_capacity(length.unwrap_or(0).min(most).min(1 << 16));
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
            bytes.extend_from_slice(&chunk);
        } else if received / 4 > most {
            return Err(too_large());
        }
    }
    if received > most { Err(too_large()) } else { Ok(bytes) }
}
