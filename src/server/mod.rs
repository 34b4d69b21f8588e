//! An OpenAI-compatible HTTP server on the crate's own engine (feature `server`).
//!
//! [`Server::new`] takes a [`LocalChat`], [`Server::serve`] a listener; [`Server::router`] is for those who have a
//! server already. Requests are batched by the engine, whose thread they never block. A client that leaves ends its
//! answers.
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
//! Fields that nobody knows are not looked at; values that can't be had are refused with status 400 and the field's
//! name. Errors look as the protocol has them: `{"error": {"message", "type", "param", "code"}}`; in a stream that has
//! begun, they come as an event.

mod at_least;
mod body;
mod chat;
mod chat_stream;
mod completions;
mod connection;
mod error;
mod guard;
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
use connection::{AtWork, Connections};
use state::{Phase, State};

pub use error::ApiError;
pub use options::ServerOptions;

/// A server that has not begun yet.
#[derive(Debug, Clone)]
pub struct Server {
    state: Arc<State>,
}

impl Server {
    /// A server on a running engine.
    pub fn new(chat: LocalChat, options: ServerOptions) -> Self {
        Self { state: Arc::new(State::new(chat, options)) }
    }

    /// Its routes, for a server that exists already. Without [`Self::serve`], answers that run are not given up when
    /// the program is to end, and connections on which nothing happens are not ended.
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

    /// Answers until `shutdown` is ready. Then no more connections are taken; answers that run may go on for
    /// [`ServerOptions::grace`], after which they end with an error.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (router, state) = (self.router(), self.state);
        let closing = Arc::clone(&state);
        let signal = async move {
            shutdown.await;
            closing.phase.send_replace(Phase::Closing);
        };
        // Streams are written to at least that often.
        let idle_timeout = state.options.idle_timeout.max(state.options.keep_alive.saturating_mul(2));
        let connections = Connections { listener, idle_timeout };
        let service = router.into_make_service_with_connect_info::<AtWork>();
        let served = async { axum::serve(connections, service).with_graceful_shutdown(signal).await };
        let mut phase = state.phase.subscribe();
        let given_up = async {
            // The sender lives as long as the state.
            let _ = phase.wait_for(|phase| *phase >= Phase::Closing).await;
            tokio::time::sleep(state.options.grace).await;
            state.phase.send_replace(Phase::Closed);
            // Time to tell the clients.
            tokio::time::sleep(LAST_WORDS).await;
            Ok(())
        };
        tokio::select! {
            result = served => result,
            result = given_up => result,
        }
    }
}

/// How long answers that are given up may take to say so.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

/// Work that takes its time, beside the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::internal("the request could not be read")))
}

/// An answer of JSON text.
fn json_response(json: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}
