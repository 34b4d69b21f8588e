//! Events of the engine to a stream of server-sent events, or to one answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::connection::Client;
use super::error::ApiError;
use super::json_response;
use super::state::{Phase, Place};
use crate::chat_model::ChatUsage;

/// How long the head of a stream waits for the engine to refuse the request.
const PATIENCE: Duration = Duration::from_millis(250);

/// What is sent of an answer: its number among those of the request, and the event or the error that ends all.
pub type Told<E> = (usize, Result<E, ApiError>);

/// What happens to a request's answers.
#[derive(Debug)]
pub struct Events<E> {
    received: UnboundedReceiver<Told<E>>,
    /// Came before it was asked for.
    early: Option<(usize, E)>,
    phase: watch::Receiver<Phase>,
}

impl<E> Events<E> {
    pub fn new(received: UnboundedReceiver<Told<E>>, place: &Place) -> Self {
        Self { received, early: None, phase: place.state.phase.subscribe() }
    }

    /// The next one, with the number of its answer.
    pub async fn next(&mut self) -> Result<(usize, E), ApiError> {
        if let Some(early) = self.early.take() {
            return Ok(early);
        }
        tokio::select! {
            biased;
            told = self.received.recv() => {
                let (answer, event) = told.ok_or_else(|| ApiError::internal("the engine has stopped"))?;
                Ok((answer, event?))
            }
            _ = self.phase.wait_for(|phase| *phase == Phase::Closed) => Err(ApiError::shutting_down()),
        }
    }

    /// Waits a little for the first one, which stays the next.
    ///
    /// # Errors
    /// If the request was refused instead.
    pub async fn refused(&mut self) -> Result<(), ApiError> {
        if let Ok(first) = tokio::time::timeout(PATIENCE, self.next()).await {
            self.early = Some(first?);
        }
        Ok(())
    }
}

/// Turns events of the engine into the data of server-sent events.
pub trait Writer: Send + 'static {
    /// What happens to an answer.
    type Event: Send + 'static;

    /// What comes first.
    fn open(&mut self) -> Vec<String>;

    /// What an event of an answer brings.
    fn event(&mut self, answer: usize, event: Self::Event, place: &mut Place) -> Result<Vec<String>, ApiError>;

    /// Whether all answers ended.
    fn is_done(&self) -> bool;

    /// What comes last.
    fn close(&mut self) -> Vec<String>;

    /// The counts of all answers.
    fn usage(&self) -> ChatUsage;
}

struct Stream<W: Writer> {
    writer: W,
    events: Events<W::Event>,
    place: Place,
    ready: VecDeque<String>,
    ended: bool,
}

impl<W: Writer> Stream<W> {
    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() && !self.ended {
            let event = self.events.next().await;
            match event.and_then(|(answer, event)| self.writer.event(answer, event, &mut self.place)) {
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

/// How often something is written to a client that has ended its side: if it has left, its system says so then.
const PROBE: Duration = Duration::from_millis(500);

/// Tells when something is to be written to a client that may have left.
struct Probe {
    client: Client,
    half_closed: bool,
}

impl Probe {
    fn new(client: Client) -> Self {
        Self { client, half_closed: false }
    }

    /// Waits for the next time.
    async fn due(&mut self) {
        if self.half_closed {
            tokio::time::sleep(PROBE).await;
        } else {
            self.client.half_closed().await;
            self.half_closed = true;
        }
    }
}

/// The answer to a request that wants a stream.
pub fn response<W: Writer>(client: Client, mut writer: W, events: Events<W::Event>, place: Place) -> Response {
    let keep_alive = KeepAlive::new().interval(place.state.options.keep_alive).text("keep-alive");
    let ready = writer.open().into();
    let stream = Stream { writer, events, place, ready, ended: false };
    let data = stream::unfold((stream, Probe::new(client)), |(mut stream, mut probe)| async move {
        let event = tokio::select! {
            biased;
            data = stream.next() => sse::Event::default().data(data?),
            () = probe.due() => sse::Event::default().comment("half-closed"),
        };
        Some((Ok::<_, Infallible>(event), (stream, probe)))
    });
    // Proxies that collect answers would hold the tokens back.
    ([(header::HeaderName::from_static("x-accel-buffering"), "no")], Sse::new(data).keep_alive(keep_alive))
        .into_response()
}

/// The answer to a request that wants it whole, once it is there.
///
/// A client that ends its side in the meantime gets the head of the answer and blank lines until then, as they are the
/// only way to learn whether it still reads: if not, the answer is given up. An error then comes with status 200.
pub async fn whole(
    client: Client,
    answer: impl Future<Output = Result<String, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let mut answer = Box::pin(answer);
    let mut probe = Probe::new(client);
    tokio::select! {
        biased;
        answer = &mut answer => return answer.map(json_response),
        () = probe.due() => {}
    }
    // What is almost done comes as ever.
    if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut answer).await {
        return answer.map(json_response);
    }
    let lines = stream::unfold((Some(answer), probe), |(answer, mut probe)| async move {
        let mut answer = answer?;
        let (text, rest) = tokio::select! {
            biased;
            done = &mut answer => (done.unwrap_or_else(|error| error.to_json()), None),
            () = probe.due() => ("\n".to_string(), Some(answer)),
        };
        Some((Ok::<_, Infallible>(text), (rest, probe)))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}
