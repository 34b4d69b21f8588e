//! Updates of the engine to a stream of events, or to one answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::error::ApiError;
use super::state::{Phase, Place};
use crate::chat_model::ChatUsage;

/// How long the head of a stream waits for the engine to refuse the request.
const PATIENCE: Duration = Duration::from_millis(250);

/// Updates of a request's answers, each with the answer's number.
#[derive(Debug)]
pub struct Updates<U> {
    received: UnboundedReceiver<(usize, U)>,
    /// Came while nobody asked.
    early: Option<(usize, U)>,
    phase: watch::Receiver<Phase>,
}

impl<U> Updates<U> {
    pub fn new(received: UnboundedReceiver<(usize, U)>, place: &Place) -> Self {
        Self { received, early: None, phase: place.state.phase.subscribe() }
    }

    /// The next one.
    pub async fn next(&mut self) -> Result<(usize, U), ApiError> {
        if let Some(early) = self.early.take() {
            return Ok(early);
        }
        tokio::select! {
            biased;
            update = self.received.recv() => update.ok_or_else(|| ApiError::internal("the engine has stopped")),
            _ = self.phase.wait_for(|phase| *phase == Phase::Closed) => Err(ApiError::shutting_down()),
        }
    }

    /// Waits a little for the first one, which may be a refusal.
    pub async fn peek(&mut self) -> Result<Option<&U>, ApiError> {
        if let Ok(update) = tokio::time::timeout(PATIENCE, self.next()).await {
            self.early = Some(update?);
        }
        Ok(self.early.as_ref().map(|(_, update)| update))
    }
}

/// Turns updates into the data of events.
pub trait Writer: Send + 'static {
    /// What the engine says.
    type Update: Send + 'static;

    /// What comes first.
    fn open(&mut self) -> Vec<String>;

    /// What an update of an answer brings.
    fn update(&mut self, answer: usize, update: Self::Update, place: &mut Place) -> Result<Vec<String>, ApiError>;

    /// Whether all answers ended.
    fn is_done(&self) -> bool;

    /// What comes last.
    fn close(&mut self) -> Vec<String>;

    /// The counts of all answers.
    fn usage(&self) -> ChatUsage;
}

struct Stream<W: Writer> {
    writer: W,
    updates: Updates<W::Update>,
    place: Place,
    ready: VecDeque<String>,
    ended: bool,
}

impl<W: Writer> Stream<W> {
    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() && !self.ended {
            let update = self.updates.next().await;
            let written = update.and_then(|(answer, update)| self.writer.update(answer, update, &mut self.place));
            match written {
                Ok(data) => self.ready.extend(data),
                Err(error) => {
                    self.ready.push_back(error.to_json());
                    self.place.failed();
                    self.ended = true;
                }
            }
            if !self.ended && self.writer.is_done() {
                self.ready.extend(self.writer.close());
                self.place.done(&self.writer.usage());
                self.ended = true;
            }
            if self.ended {
                self.ready.push_back("[DONE]".to_string());
            }
        }
        self.ready.pop_front()
    }
}

/// The answer to a request that wants a stream.
pub fn response<W: Writer>(mut writer: W, updates: Updates<W::Update>, place: Place) -> Response {
    let keep_alive = KeepAlive::new().interval(place.state.options.keep_alive).text("keep-alive");
    let ready = writer.open().into();
    let stream = Stream { writer, updates, place, ready, ended: false };
    let events = stream::unfold(stream, |mut stream| async move {
        let data = stream.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), stream))
    });
    // Proxies that collect answers would hold the tokens back.
    ([(header::HeaderName::from_static("x-accel-buffering"), "no")], Sse::new(events).keep_alive(keep_alive))
        .into_response()
}
