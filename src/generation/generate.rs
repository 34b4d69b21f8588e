//! Simple ways to one answer, or to a list of them.

use std::collections::{BTreeMap, VecDeque};

use super::engine::Engine;
use super::error::{GenerationError, Result};
use super::request::{Completion, Event, Request, RequestId, Token};
use super::token_model::TokenModel;

impl<M: TokenModel> Engine<M> {
    /// Generates one answer and calls `on_token` with every token as it comes.
    ///
    /// Other requests in the engine run too; their events come with the next [`Engine::step`].
    ///
    /// # Errors
    /// If the request is refused (see [`Engine::add`]), the model fails, or a token cannot be chosen.
    pub fn generate(&mut self, request: Request, mut on_token: impl FnMut(&Token)) -> Result<Completion> {
        let mut stream = self.stream(request)?;
        let mut answer = Partial::default();
        loop {
            for event in stream.step()? {
                if let Ok(Event::Token(token)) = &event {
                    on_token(token);
                }
                if let Some(end) = answer.take(event) {
                    return end;
                }
            }
        }
    }

    /// Generates the answers to many requests together; the results are in the requests' order.
    ///
    /// # Errors
    /// If a request is refused (then none has started) or the model fails. A token that cannot be chosen fails its
    /// own answer only.
    pub fn generate_all(&mut self, requests: Vec<Request>) -> Result<Vec<Result<Completion>>> {
        let mut ids = Vec::with_capacity(requests.len());
        for request in requests {
            match self.add(request) {
                Ok(id) => ids.push(id),
                Err(error) => return Err(self.give_up(&ids, error)),
            }
        }
        let mut open: BTreeMap<_, _> = ids.iter().map(|&id| (id, Partial::default())).collect();
        let mut done = BTreeMap::new();
        let mut others = Vec::new();
        while !open.is_empty() {
            let events = match self.step() {
                Ok(events) => events,
                Err(error) => {
                    self.put_back(others);
                    return Err(self.give_up(&ids, error));
                }
            };
            for (id, event) in events {
                match open.get_mut(&id) {
                    Some(answer) => {
                        if let Some(end) = answer.take(event) {
                            open.remove(&id);
                            done.insert(id, end);
                        }
                    }
                    None => others.push((id, event)),
                }
            }
        }
        self.put_back(others);
        Ok(done.into_values().collect())
    }

    /// An iterator over the events of one request, which runs the engine as it is asked for the next. It ends after
    /// [`Event::Finished`] or an error. Dropping it ends the request.
    ///
    /// Other requests in the engine run too; their events come with the next [`Engine::step`].
    ///
    /// # Errors
    /// If the request is refused (see [`Engine::add`]).
    pub fn stream(&mut self, request: Request) -> Result<EventStream<'_, M>> {
        let request = self.add(request)?;
        Ok(EventStream { engine: self, request, events: VecDeque::new(), ended: false })
    }

    fn give_up(&mut self, requests: &[RequestId], error: GenerationError) -> GenerationError {
        requests.iter().for_each(|&request| self.forget(request));
        error
    }
}

/// The events of one request; see [`Engine::stream`].
#[derive(Debug)]
pub struct EventStream<'a, M: TokenModel> {
    engine: &'a mut Engine<M>,
    request: RequestId,
    events: VecDeque<Result<Event>>,
    ended: bool,
}

impl<M: TokenModel> EventStream<'_, M> {
    /// The request's id.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Runs one step of the engine and returns what happened to the request.
    fn step(&mut self) -> Result<Vec<Result<Event>>> {
        let (own, others): (Vec<_>, Vec<_>) = self.engine.step()?.into_iter().partition(|(of, _)| *of == self.request);
        self.engine.put_back(others);
        Ok(own.into_iter().map(|(_, event)| event).collect())
    }
}

impl<M: TokenModel> Iterator for EventStream<'_, M> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.events.pop_front() {
                Some(event) => {
                    self.ended = !matches!(event, Ok(Event::Token(_)));
                    return Some(event);
                }
                None => match self.step() {
                    Ok(events) => self.events.extend(events),
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
            }
        }
        None
    }
}

impl<M: TokenModel> Drop for EventStream<'_, M> {
    fn drop(&mut self) {
        self.engine.forget(self.request);
    }
}

/// An answer that is not complete yet.
#[derive(Debug, Default)]
struct Partial {
    tokens: Vec<Token>,
    text: String,
}

impl Partial {
    /// Takes an event; returns the answer or its error if that was the last.
    fn take(&mut self, event: Result<Event>) -> Option<Result<Completion>> {
        match event {
            Ok(Event::Token(token)) => {
                self.text.push_str(&token.text);
                self.tokens.push(token);
                None
            }
            Ok(Event::Finished { reason, text, usage, record }) => {
                let (tokens, answer) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.text));
                Some(Ok(Completion { tokens, text: answer + &text, reason, usage, record }))
            }
            Err(error) => Some(Err(error)),
        }
    }
}
