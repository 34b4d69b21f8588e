//! An OpenAI-compatible HTTP server on the crate's own engine (feature `server`).
//!
//! [`Server::new`] takes a [`LocalChat`], [`Server::serve`] a listener. [`Server::router`] is for programs that have a
//! server already. Requests are batched by the engine, whose thread they never block. When a client leaves, its answers
//! end.
//!
//! | | |
//! |---|---|
//! | `POST /v1/chat/completions` | chats, whole or as a stream, with tools, reasoning, log-probabilities |
//! | `POST /v1/completions` | raw completions of texts or ids |
//! | `GET /v1/models`, `/v1/models/{id}` | the one model |
//! | `POST /tokenize`, `/detokenize` | texts or chats to ids, ids to text |
//! | `GET /health`, `/metrics` | for machines; need no key |
//! | `GET /` | a page to chat with the model |
//!
//! Unknown fields are ignored, and so are fields that change no answer. A field with a wrong value, or one that would
//! change the answer and is not served, is refused with status 400 and its name. Errors have the protocol's shape,
//! `{"error": {"message", "type", "param", "code"}}`, and one line of at most 1000 characters; in a stream that has begun,
//! they come as an event.
//!
//! Memory is bounded: a body has at most [`ServerOptions::max_body`] bytes and 131072 JSON values, its tools 1 MiB
//! (status 413); bodies above 64 KiB are parsed one after another, up to `max_body` bytes at once; beyond 16 times
//! `max_body` bytes of bodies that are read at once, a request gets status 503.

mod at_least;
mod body;
mod chat;
mod chat_stream;
mod completions;
mod connection;
mod error;
mod guard;
mod host;
mod logprobs;
mod metrics;
mod options;
mod plain;
mod refusal;
mod reply;
pub mod request;
mod state;
mod stream;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::chat_model::LocalChat;
use state::{Phase, State};

pub use error::ApiError;
pub use options::ServerOptions;

/// A server that does not listen yet.
#[derive(Debug, Clone)]
pub struct Server {
    state: Arc<State>,
}

impl Server {
    /// Returns a server on a running engine.
    pub fn new(chat: LocalChat, options: ServerOptions) -> Self {
        Self { state: Arc::new(State::new(chat, options)) }
    }

    /// Returns its routes, for a server that exists already. Without [`Self::serve`], answers that run are not given up
    /// when the program is to end, connections on which nothing happens are not ended, and any `Host` is served.
    pub fn router(&self) -> Router {
        let state = &self.state;
        let guarded = Router::new()
            .route("/v1/chat/completions", post(chat::completions))
            .route("/v1/completions", post(completions::completions))
            .route("/v1/models", get(plain::models))
            .route("/v1/models/{*id}", get(plain::one_model))
            .route("/tokenize", post(plain::tokenize))
            .route("/detokenize", post(plain::detokenize))
            .route_layer(from_fn_with_state(Arc::clone(state), guard::key));
        Router::new()
            .route("/", get(plain::page))
            .route("/health", get(plain::health))
            .route("/metrics", get(plain::metrics))
            .merge(guarded)
            .fallback(plain::not_found)
            .method_not_allowed_fallback(plain::wrong_method)
            .layer(from_fn_with_state(Arc::clone(state), guard::outer))
            .with_state(Arc::clone(state))
    }

    /// Answers until `shutdown` is ready. Then no more connections are taken, and connections that wait for no answer
    /// end, also those with half a request. Answers that run may take [`ServerOptions::grace`] more, after which they end
    /// with an error.
    ///
    /// Only HTTP/1 is spoken. On a loopback address, only requests whose `Host` is `localhost`, a loopback address or one
    /// of [`ServerOptions::allowed_hosts`] are served.
    ///
    /// # Errors
    /// If the listener has no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (router, state) = (self.router(), self.state);
        // Streams are written to at least that often.
        let idle_timeout = state.options.idle_timeout.max(state.options.keep_alive.saturating_mul(2));
        // Set once: a server that serves twice listens at two places.
        let _ = state.loopback.set(listener.local_addr()?.ip().to_canonical().is_loopback());
        let served = connection::serve(listener, router, idle_timeout, state.phase.subscribe());
        let given_up = async {
            shutdown.await;
            state.phase.send_replace(Phase::Closing);
            tokio::time::sleep(state.options.grace).await;
            state.phase.send_replace(Phase::Closed);
            // Time to tell the clients.
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = served => {}
            () = given_up => {}
        }
        Ok(())
    }
}

/// How long connections stay open to tell clients that their answers were given up.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs work that takes long on a thread apart from those that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::internal("the request could not be read")))
}

/// Returns a response of JSON text.
fn json_response(json: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}
