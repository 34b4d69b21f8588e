//! `/v1/chat/completions`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State as Extract};
use axum::response::Response;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::error::ApiError;
use super::logprobs::ChatLogprobs;
use super::refusal::refusal;
use super::reply::{ChatChoice, FINGERPRINT, MessageReply, Reply, TokenIds, Usage, finish_reason, json};
use super::request::ChatCall;
use super::state::{Place, State, new_id, now};
use super::stream::{self, Events, Told};
use super::{blocking, body, chat_stream::ChatWriter};
use crate::chat::{Delta, Start};
use crate::chat_model::{ChatEvent, ChatModel, ChatPrompt, ChatResponse, ChatSink, ChatUsage, Finish};
use crate::generation::{Token, Tokenizer};

/// Answers a chat.
pub async fn completions(Extract(state): Extract<Arc<State>>, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let body = body::read(request, &state).await?;
    let client = body.client.clone();
    let (call, prompt, mut place, mut events) = blocking(move || {
        let call = ChatCall::from_json(&body, &state.options)?;
        state.check_model(call.common.model.as_deref())?;
        begin(&state, call, arrived)
    })
    .await?;
    let head = Head::new(&place.state);
    if call.common.stream {
        events.refused().await.inspect_err(|_| place.failed())?;
        let writer = ChatWriter::new(head, call.common.n, call.common.include_usage);
        return Ok(stream::response(client, writer, events, place));
    }
    stream::whole(client, async move { collect(events, place, &head, &call, &prompt.ids).await }).await
}

/// What all pieces of an answer have in common.
pub struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer and are no part of it.
    pub end_ids: Vec<u32>,
}

impl Head {
    fn new(state: &State) -> Self {
        let chat = &state.chat;
        Self {
            id: new_id("chatcmpl-"),
            created: now(),
            model: chat.name().to_string(),
            tokenizer: chat.tokenizer().clone(),
            end_ids: chat.stop_ids().iter().chain(chat.turn_ids()).copied().collect(),
        }
    }

    pub fn reply<C>(&self, object: &'static str, choices: Vec<C>, usage: Option<Option<Usage>>) -> Reply<'_, C> {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        Reply { id, object, created: self.created, model, system_fingerprint: FINGERPRINT, choices, usage }
    }

    /// Notes a token's log-probability.
    pub fn note(&self, token: &Token, reasoning: bool, logprobs: &mut ChatLogprobs) {
        if !self.end_ids.contains(&token.id) {
            logprobs.push(token, reasoning, &self.tokenizer);
        }
    }
}

/// The prompt of a call.
pub fn prompt(state: &State, call: &ChatCall) -> Result<ChatPrompt, ApiError> {
    let mut prompt = state.chat.prompt(&call.request).map_err(|error| refusal(error, call))?;
    if call.continues && state.chat.template().is_some() {
        let problem = "an answer is continued in the formats v3, v3.1 and v3.2 only";
        return Err(ApiError::field("continue_final_message", problem));
    }
    if call.continues {
        // The last message goes on where it was closed.
        if prompt.ids.last().is_some_and(|id| state.chat.stop_ids().contains(id)) {
            prompt.ids.pop();
        }
        let open = prompt.text.strip_suffix(state.chat.version().eos()).map(str::len);
        prompt.text.truncate(open.unwrap_or(prompt.text.len()));
        prompt.start = Start::Content;
    }
    Ok(prompt)
}

/// What happens to an answer: an event, or its end.
pub type AnswerEvent = ControlFlow<ChatResponse, ChatEvent>;

/// Hands the answers of a call to the engine.
fn begin(
    state: &Arc<State>,
    mut call: ChatCall,
    arrived: Instant,
) -> Result<(ChatCall, ChatPrompt, Place, Events<AnswerEvent>), ApiError> {
    let prompt = prompt(state, &call)?;
    let room = state.room("messages", prompt.ids.len(), call.request.max_tokens, state.options.max_tokens)?;
    call.request.max_tokens = Some(room);
    call.request.params.validate(state.chat.tokenizer().vocab_size())?;
    let mut place = state.admit(call.common.n, arrived)?;
    // The prompt has the rest already.
    call.request.messages.retain(|message| !message.tools.is_empty());
    call.request.cancel = Some(place.cancel.clone());
    let (sender, received) = mpsc::unbounded_channel();
    for answer in 0..call.common.n {
        let mut request = call.request.clone();
        request.params = call.common.params_of(answer);
        let sink = sink(answer, sender.clone(), call.request.parallel_tool_calls);
        state.chat.submit_prompt(&prompt, request, sink).map_err(|error| {
            place.failed();
            refusal(error, &call)
        })?;
    }
    let events = Events::new(received, &place);
    Ok((call, prompt, place, events))
}

/// Sends on what happens to an answer. Where only one call is wanted, the answer ends with it.
fn sink(answer: usize, sender: UnboundedSender<Told<AnswerEvent>>, parallel: bool) -> ChatSink {
    let mut cut = false;
    Box::new(move |mut event| {
        match &mut event {
            Ok(ControlFlow::Continue(_)) if cut => return false,
            Ok(ControlFlow::Continue(ChatEvent::Delta(Delta::ToolCallEnd { .. }))) => cut = !parallel,
            Ok(ControlFlow::Break(response)) if cut => {
                response.message.tool_calls.truncate(1);
                response.finish = Finish::ToolCalls;
            }
            _ => {}
        }
        sender.send((answer, event.map_err(ApiError::from))).is_ok() && !cut
    })
}

/// Waits for all answers.
async fn collect(
    mut events: Events<AnswerEvent>,
    mut place: Place,
    head: &Head,
    call: &ChatCall,
    prompt_ids: &[u32],
) -> Result<String, ApiError> {
    let n = call.common.n;
    let mut logprobs = vec![ChatLogprobs::default(); n];
    let mut ids: Vec<Vec<u32>> = vec![Vec::new(); n];
    let mut choices: Vec<Option<ChatChoice>> = (0..n).map(|_| None).collect();
    let mut usage = ChatUsage::default();
    while choices.iter().any(Option::is_none) {
        let (answer, event) = events.next().await.inspect_err(|_| place.failed())?;
        match event {
            ControlFlow::Continue(ChatEvent::Token { token, reasoning }) => {
                place.token();
                if call.token_ids {
                    // Every id has its log-probability, that of the end, too.
                    logprobs[answer].push(&token, reasoning, &head.tokenizer);
                    ids[answer].push(token.id);
                } else {
                    head.note(&token, reasoning, &mut logprobs[answer]);
                }
            }
            // The response has them all.
            ControlFlow::Continue(ChatEvent::Delta(_)) => {}
            ControlFlow::Break(response) => {
                add(&mut usage, &response.usage);
                place.malformed(is_malformed(&response));
                let logprobs = call.request.logprobs.map(|_| std::mem::take(&mut logprobs[answer]));
                let mut choice = choice(answer, response, logprobs).inspect_err(|_| place.failed())?;
                choice.ids = call.token_ids.then(|| TokenIds {
                    prompt_token_ids: prompt_ids.to_vec(),
                    token_ids: std::mem::take(&mut ids[answer]),
                });
                choices[answer] = Some(choice);
            }
        }
    }
    place.done(&usage);
    let choices = choices.into_iter().flatten().collect();
    Ok(json(&head.reply("chat.completion", choices, Some(Some((&usage).into())))))
}

/// Whether the model ended an answer with a call that cannot be read.
pub fn is_malformed(response: &ChatResponse) -> bool {
    response.call_error.is_some() && matches!(response.finish, Finish::Stop | Finish::ToolCalls)
}

fn choice(index: usize, response: ChatResponse, logprobs: Option<ChatLogprobs>) -> Result<ChatChoice, ApiError> {
    let finish_reason = finish_reason(response.finish).ok_or_else(ApiError::shutting_down)?;
    let message = response.message;
    let silent = message.content.is_empty() && !message.tool_calls.is_empty();
    let message = MessageReply {
        role: "assistant",
        content: (!silent).then_some(message.content),
        refusal: None,
        reasoning_content: message.reasoning_content,
        tool_calls: message.tool_calls,
    };
    let (tool_call_error, dropped) = (response.call_error, response.dropped);
    Ok(ChatChoice { index, message, logprobs, finish_reason, ids: None, tool_call_error, dropped })
}

/// Adds an answer's counts to those of the request, whose prompt counts once.
pub fn add(usage: &mut ChatUsage, answer: &ChatUsage) {
    usage.prompt_tokens = answer.prompt_tokens;
    usage.cached_tokens = usage.cached_tokens.max(answer.cached_tokens);
    usage.completion_tokens += answer.completion_tokens;
    usage.reasoning_tokens += answer.reasoning_tokens;
}
