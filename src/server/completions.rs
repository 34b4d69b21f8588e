//! `/v1/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request as HttpRequest, State as Extract};
use axum::response::Response;
use tokio::sync::mpsc;

use super::at_least::AtLeast;
use super::error::ApiError;
use super::logprobs::{TextLogprobs, TextOffset, text_of};
use super::reply::{FINGERPRINT, Reply, TextChoice, Usage, json};
use super::request::{CompletionCall, RawPrompt};
use super::state::{Place, State, new_id, now};
use super::stream::{self, Events, Writer};
use super::{blocking, body};
use crate::chat_model::{ChatModel, ChatUsage};
use crate::generation::{self, Constraint, Event, FinishReason, Request, StopConditions, Tokenizer};

/// Completes texts.
pub async fn completions(Extract(state): Extract<Arc<State>>, request: HttpRequest) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let body = body::read(request, &state).await?;
    let client = body.client.clone();
    let (writer, mut place, mut events) = blocking(move || {
        let call = CompletionCall::from_json(&body, &state.options)?;
        state.check_model(call.common.model.as_deref())?;
        begin(&state, &call, arrived)
    })
    .await?;
    if writer.stream {
        events.refused().await.inspect_err(|_| place.failed())?;
        return Ok(stream::response(client, writer, events, place));
    }
    stream::whole(client, collect(writer, place, events)).await
}

/// Waits for all answers.
async fn collect(mut writer: TextWriter, mut place: Place, mut events: Events<Event>) -> Result<String, ApiError> {
    let mut choices: Vec<TextChoice> = writer.answers.iter().enumerate().map(|(i, answer)| answer.begin(i)).collect();
    while !writer.is_done() {
        let (answer, event) = events.next().await.inspect_err(|_| place.failed())?;
        let piece = writer.choice(answer, event, &mut place).inspect_err(|_| place.failed())?;
        choices[answer].text.push_str(&piece.text);
        choices[answer].finish_reason = piece.finish_reason;
    }
    for (choice, answer) in choices.iter_mut().zip(&mut writer.answers) {
        choice.logprobs = writer.logprobs.then(|| std::mem::take(&mut answer.logprobs));
    }
    place.done(&writer.usage);
    Ok(json(&writer.reply(choices, Some(Some((&writer.usage).into())))))
}

/// Hands the answers of a call to the engine.
fn begin(
    state: &Arc<State>,
    call: &CompletionCall,
    arrived: Instant,
) -> Result<(TextWriter, Place, Events<Event>), ApiError> {
    let prompts = call.prompts.iter().map(|prompt| ids(state, prompt, call.add_special_tokens));
    let prompts: Vec<Vec<u32>> = prompts.collect::<Result<_, _>>()?;
    let tokenizer = state.chat.tokenizer();
    call.common.params.validate(tokenizer.vocab_size())?;
    let vocab_size = state.chat.service().vocab_size();
    if let Some(id) = call.stop_ids.iter().find(|id| **id as usize >= vocab_size) {
        let problem = format!("there is no token {id}, the vocabulary has {vocab_size}");
        return Err(ApiError::field("stop_token_ids", problem));
    }
    let own = if call.ignore_eos { &[] } else { state.chat.stop_ids() };
    let ends: Vec<u32> = own.iter().chain(&call.stop_ids).copied().collect();
    let at_least = match call.min_tokens {
        0 => None,
        tokens => {
            let problem = "every token is among those that end an answer: leave out `stop_token_ids`";
            Some(AtLeast::new(tokens, &ends, vocab_size).ok_or_else(|| ApiError::field("min_tokens", problem))?)
        }
    };
    let place = state.admit(prompts.len() * call.common.n, arrived)?;
    let (sender, received) = mpsc::unbounded_channel();
    let mut answers = Vec::new();
    for prompt in prompts {
        for answer in 0..call.common.n {
            let index = answers.len();
            let echo = if call.echo { echoed(call, index, &prompt, tokenizer) } else { String::new() };
            let offset = call.logprobs.map(|_| TextOffset::new(tokenizer, &echo));
            answers.push(Answer { echo, offset, logprobs: TextLogprobs::default(), done: false });
            let sender = sender.clone();
            if call.max_tokens == Some(0) {
                let usage = generation::Usage { prompt_tokens: prompt.len(), ..generation::Usage::default() };
                let (reason, text) = (FinishReason::MaxTokens, String::new());
                let nothing = Event::Finished { reason, text, usage, record: None };
                // The receiver is right here.
                let _ = sender.send((index, Ok(nothing)));
                continue;
            }
            let request = Request {
                params: call.common.params_of(answer),
                stop: StopConditions { ids: ends.clone(), strings: call.common.stop.clone() },
                max_tokens: Some(state.room("prompt", prompt.len(), call.max_tokens, Some(call.default_tokens))?),
                logprobs: call.logprobs,
                cancel: Some(place.cancel.clone()),
                constraint: at_least.clone().map(|least| Box::new(least) as Box<dyn Constraint>),
                ..Request::new(prompt.clone())
            };
            let sink =
                move |event: generation::Result<Event>| sender.send((index, event.map_err(ApiError::from))).is_ok();
            state.chat.service().submit(request, Box::new(sink))?;
        }
    }
    let writer = TextWriter {
        id: new_id("cmpl-"),
        created: now(),
        model: state.chat.name().to_string(),
        tokenizer: tokenizer.clone(),
        n: call.common.n,
        answers,
        ends,
        stream: call.common.stream,
        logprobs: call.logprobs.is_some(),
        include_usage: call.common.include_usage,
        usage: ChatUsage::default(),
    };
    let events = Events::new(received, &place);
    Ok((writer, place, events))
}

/// The ids of a prompt, few enough for the context and all in the vocabulary.
fn ids(state: &State, prompt: &RawPrompt, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let ids = match prompt {
        RawPrompt::Ids(ids) => ids.clone(),
        RawPrompt::Text(text) => {
            let fits = state.chat.tokenizer().check_size(text, state.max_context());
            fits.map_err(|error| ApiError::from(error).with_param("prompt"))?;
            raw_ids(state, text, add_special_tokens)?
        }
    };
    let vocab_size = state.chat.tokenizer().vocab_size();
    if ids.is_empty() {
        return Err(ApiError::field("prompt", "is empty: at least one token is needed"));
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(ApiError::field("prompt", format!("there is no token {id}, the vocabulary has {vocab_size}")));
    }
    state.room("prompt", ids.len(), None, None)?;
    Ok(ids)
}

/// The ids of a text with control tokens; one that begins with the tokenizer's begin token gets no second one.
pub fn raw_ids(state: &State, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let tokenizer = state.chat.tokenizer();
    let begin = text_of(&tokenizer.encode("", true)?, tokenizer);
    let begins = !begin.is_empty() && text.starts_with(&begin);
    Ok(tokenizer.encode(text, add_special_tokens && !begins)?)
}

fn echoed(call: &CompletionCall, index: usize, ids: &[u32], tokenizer: &Tokenizer) -> String {
    match &call.prompts[index / call.common.n] {
        RawPrompt::Text(text) => text.clone(),
        RawPrompt::Ids(_) => text_of(ids, tokenizer),
    }
}

/// Writes completions, in pieces or whole.
struct TextWriter {
    id: String,
    created: u64,
    model: String,
    tokenizer: Tokenizer,
    /// Answers to each prompt.
    n: usize,
    answers: Vec<Answer>,
    /// Token ids that end an answer and are no part of it.
    ends: Vec<u32>,
    stream: bool,
    logprobs: bool,
    include_usage: bool,
    usage: ChatUsage,
}

struct Answer {
    /// The prompt's text, if it is to be repeated.
    echo: String,
    /// Where the next token's text begins, if that is reported.
    offset: Option<TextOffset>,
    logprobs: TextLogprobs,
    done: bool,
}

impl Answer {
    fn begin(&self, index: usize) -> TextChoice {
        TextChoice { index, text: self.echo.clone(), logprobs: None, finish_reason: None }
    }
}

impl TextWriter {
    fn reply(&self, choices: Vec<TextChoice>, usage: Option<Option<Usage>>) -> Reply<'_, TextChoice> {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        let object = "text_completion";
        Reply { id, object, created: self.created, model, system_fingerprint: FINGERPRINT, choices, usage }
    }

    /// What an event adds to an answer.
    fn choice(&mut self, index: usize, event: Event, place: &mut Place) -> Result<TextChoice, ApiError> {
        let answer = &mut self.answers[index];
        let (text, finish_reason) = match event {
            Event::Token(token) => {
                place.token();
                if let Some(offset) = answer.offset.as_mut().filter(|_| !self.ends.contains(&token.id)) {
                    answer.logprobs.push(&token, offset.next(token.id)?, &self.tokenizer);
                }
                (token.text, None)
            }
            Event::Finished { reason, text, usage, .. } => {
                answer.done = true;
                // A prompt counts once, with its first answer.
                if index.is_multiple_of(self.n) {
                    self.usage.prompt_tokens += usage.prompt_tokens;
                    self.usage.cached_tokens += usage.cached_tokens;
                }
                self.usage.completion_tokens += usage.generated_tokens;
                let reason = match reason {
                    FinishReason::StopId(_) | FinishReason::StopString(_) => "stop",
                    FinishReason::MaxTokens | FinishReason::ContextLimit => "length",
                    FinishReason::Cancelled => return Err(ApiError::shutting_down()),
                };
                (text, Some(reason))
            }
        };
        Ok(TextChoice { index, text, logprobs: None, finish_reason })
    }

    fn piece(&self, choice: TextChoice) -> String {
        json(&self.reply(vec![choice], self.include_usage.then_some(None)))
    }
}

impl Writer for TextWriter {
    type Event = Event;

    fn open(&mut self) -> Vec<String> {
        let echoed = self.answers.iter().enumerate().filter(|(_, answer)| !answer.echo.is_empty());
        echoed.map(|(index, answer)| self.piece(answer.begin(index))).collect()
    }

    fn event(&mut self, index: usize, event: Event, place: &mut Place) -> Result<Vec<String>, ApiError> {
        let mut choice = self.choice(index, event, place)?;
        if choice.text.is_empty() && choice.finish_reason.is_none() {
            return Ok(Vec::new());
        }
        let logprobs = std::mem::take(&mut self.answers[index].logprobs);
        choice.logprobs = (!logprobs.is_empty()).then_some(logprobs);
        Ok(vec![self.piece(choice)])
    }

    fn is_done(&self) -> bool {
        self.answers.iter().all(|answer| answer.done)
    }

    fn close(&mut self) -> Vec<String> {
        if !self.include_usage {
            return Vec::new();
        }
        vec![json(&self.reply(Vec::new(), Some(Some((&self.usage).into()))))]
    }

    fn usage(&self) -> ChatUsage {
        self.usage
    }
}
