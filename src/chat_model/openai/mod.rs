//! A server with the OpenAI protocol as a [`ChatModel`](super::ChatModel).

mod address;
mod answer;
mod body;
mod http;
mod options;
mod record;
mod sse;

use std::fmt;
use std::sync::Arc;

use super::error::Result;
use super::request::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatUsage, Finish};
use crate::chat::{Message, ToolChoice};
use crate::generation::Cancel;
use answer::Answer;
use http::{Client, Data, Ended};

pub use options::{OpenAiOptions, ServerLogprobs, ThinkingField};

/// A model behind an OpenAI-compatible server. Clones share connections and the limit of requests at the same time.
///
/// It streams. Temporary failures (no connection, status 408, 409, 429 and 5xx) are tried again as long as nothing of an
/// answer has been passed on. The time between attempts doubles, unless the server names one. An answer that violates the
/// protocol is an error at once ([`ChatModelError::NotAnAnswer`](super::ChatModelError::NotAnAnswer)).
///
/// What [`ChatRequest::record`](super::ChatRequest::record) asks for is taken from the token ids and log-probabilities that
/// vLLM, SGLang and the crate's own server return with `return_token_ids`; such answers are not streamed. Experts are
/// refused, and kept sets unless every token is chosen among all.
///
/// The `reasoning_content` of messages is sent, `written_ids` are not. Sampling parameters outside the protocol (`top_k`,
/// `min_p`, `repetition_penalty`) are sent under their names in vLLM and SGLang, if they are set. Some servers ignore
/// `tool_choice`: a whole answer without a required call is an error
/// ([`ChatModelError::Tool`](super::ChatModelError::Tool)).
#[derive(Clone)]
pub struct OpenAiChat {
    client: Arc<Client>,
}

impl OpenAiChat {
    /// Returns a model of a server; `/chat/completions` is appended to `base_url`, e.g. `http://localhost:8000/v1`.
    ///
    /// # Errors
    /// [`ChatModelError::Option`](super::ChatModelError::Option) if the scheme is neither `http` nor `https`, the port is
    /// not valid, or an option is outside its range.
    pub fn new(base_url: &str, model: impl Into<String>, options: OpenAiOptions) -> Result<Self> {
        Ok(Self { client: Arc::new(Client::new(base_url, model.into(), options)?) })
    }

    /// One attempt. `passed_on` becomes true once something of the answer has been passed on.
    fn attempt(
        &self,
        request: &ChatRequest,
        body: &str,
        cancel: &Cancel,
        passed_on: &mut bool,
        on_event: &mut dyn FnMut(ChatEvent),
    ) -> std::result::Result<ChatResponse, Ended> {
        let mut answer = Answer::new();
        let finish = self.client.post(body, cancel, &mut |data| {
            let deltas = match data {
                Data::Event(data) => answer.event(data)?,
                Data::LastEvent(data) => answer.last_event(data)?,
                Data::Whole(data) => answer.whole(data)?,
            };
            for delta in deltas {
                *passed_on = true;
                on_event(ChatEvent::Delta(delta));
            }
            Ok(())
        });
        let cancelled = match finish {
            Err(Ended::Cancelled) => true,
            Err(ended) => return Err(ended),
            Ok(()) => false,
        };
        let told = std::mem::take(&mut answer.told);
        let (rest, mut response) = answer.finish(cancelled).map_err(|why| self.client.unanswered(None, why))?;
        if request.record.any() && !cancelled {
            let record = told.record(request, &self.client.options);
            let record = record.map_err(|problem| self.client.unanswered(None, problem.into()))?;
            response.record = Some(Box::new(record));
        }
        rest.into_iter().for_each(|delta| on_event(ChatEvent::Delta(delta)));
        Ok(response)
    }
}

impl ChatModel for OpenAiChat {
    fn name(&self) -> &str {
        &self.client.model
    }

    fn context_length(&self) -> usize {
        self.client.options.context_length
    }

    fn count_tokens(&self, _request: &ChatRequest) -> Result<Option<usize>> {
        Ok(None)
    }

    fn chat(&self, request: ChatRequest, on_event: &mut dyn FnMut(ChatEvent)) -> Result<ChatResponse> {
        request.params.validate(usize::MAX)?;
        record::check(&request, &self.client.options)?;
        request.tool_choice.check_tools(&request.shown_tools())?;
        let body = body::body(&request, &self.client.model, &self.client.options).to_string();
        let cancel = request.cancel.clone().unwrap_or_default();
        let mut told = false;
        for attempt in 0.. {
            match self.attempt(&request, &body, &cancel, &mut told, on_event) {
                Ok(response) => return as_chosen(response, &request.tool_choice),
                Err(Ended::Cancelled) => break,
                Err(Ended::Failed { error, retry_after }) => {
                    let delay = retry_after.map(|named| self.client.delay(attempt, named));
                    match delay.flatten().filter(|_| !told && attempt < self.client.options.retries) {
                        Some(delay) => {
                            tracing::warn!("{error}; trying again in {delay:?}");
                            if http::sleep(delay, &cancel).is_err() {
                                break;
                            }
                        }
                        None => return Err(error),
                    }
                }
            }
        }
        Ok(ChatResponse {
            message: Message::assistant(""),
            text: String::new(),
            finish: Finish::Cancelled,
            usage: ChatUsage::default(),
            dropped: Vec::new(),
            record: None,
            call_error: None,
        })
    }
}

/// The answer, if it makes the call that it had to make. One that was cut off need not have come to it.
fn as_chosen(response: ChatResponse, choice: &ToolChoice) -> Result<ChatResponse> {
    let whole = matches!(response.finish, Finish::Stop | Finish::ToolCalls);
    if whole && matches!(choice, ToolChoice::Required | ToolChoice::Named(_)) {
        choice.check_calls(&response.message.tool_calls)?;
    }
    Ok(response)
}

impl fmt::Debug for OpenAiChat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiChat")
            .field("url", &self.client.address.shown)
            .field("model", &self.client.model)
            .field("options", &self.client.options)
            .finish()
    }
}
