//! A model that answers from a script, and tools for it.
#![allow(dead_code)]

use std::sync::{Arc, Mutex};

use deepseek_v32::agent::{AgentEvent, AgentEventKind};
use deepseek_v32::chat::{Delta, Json, Message, Tool, ToolCall};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatUsage, Finish};
use deepseek_v32::environment::Toolbox;

type Script = dyn Fn(usize, &ChatRequest) -> Result<ChatResponse, ChatModelError> + Send + Sync;

/// Answers the `n`-th request by a function of `n` and the request.
pub struct Scripted {
    script: Box<Script>,
    context_length: usize,
    counts: bool,
    next: Mutex<usize>,
    requests: Mutex<Vec<ChatRequest>>,
}

impl Scripted {
    pub fn new(script: impl Fn(usize, &ChatRequest) -> ChatResponse + Send + Sync + 'static) -> Self {
        Self::fallible(move |n, request| Ok(script(n, request)))
    }

    pub fn fallible(
        script: impl Fn(usize, &ChatRequest) -> Result<ChatResponse, ChatModelError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Box::new(script),
            context_length: 1000,
            counts: true,
            next: Mutex::new(0),
            requests: Mutex::new(Vec::new()),
        }
    }

    /// One answer after the other.
    pub fn answers(answers: impl IntoIterator<Item = Message>) -> Self {
        let answers: Vec<Message> = answers.into_iter().collect();
        Self::new(move |n, request| respond(request, answers[n].clone()))
    }

    pub fn with_context(self, context_length: usize) -> Self {
        Self { context_length, ..self }
    }

    pub fn without_counts(self) -> Self {
        Self { counts: false, ..self }
    }

    /// The next request is the `next`-th.
    pub fn at(self, next: usize) -> Self {
        *self.next.lock().unwrap() = next;
        self
    }

    pub fn requests(&self) -> Vec<ChatRequest> {
        self.requests.lock().unwrap().clone()
    }
}

impl ChatModel for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn count_tokens(&self, request: &ChatRequest) -> Result<Option<usize>, ChatModelError> {
        Ok(self.counts.then(|| tokens(&request.messages)))
    }

    fn chat(&self, request: ChatRequest, on_event: &mut dyn FnMut(ChatEvent)) -> Result<ChatResponse, ChatModelError> {
        let n = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next - 1
        };
        self.requests.lock().unwrap().push(request.clone());
        let response = (self.script)(n, &request)?;
        on_event(ChatEvent::Delta(Delta::Content(response.message.content.clone())));
        Ok(response)
    }
}

/// A word is a token; a call is one too.
pub fn tokens(messages: &[Message]) -> usize {
    let words = |text: &str| text.split_whitespace().count();
    let of = |message: &Message| {
        words(&message.content)
            + words(message.reasoning_content.as_deref().unwrap_or_default())
            + message.tool_calls.len()
    };
    messages.iter().map(of).sum()
}

pub fn respond(request: &ChatRequest, message: Message) -> ChatResponse {
    let finish = if message.tool_calls.is_empty() { Finish::Stop } else { Finish::ToolCalls };
    let usage = ChatUsage {
        prompt_tokens: tokens(&request.messages),
        completion_tokens: tokens(std::slice::from_ref(&message)),
        ..ChatUsage::default()
    };
    ChatResponse { message, text: String::new(), finish, usage, dropped: Vec::new(), call_error: None, record: None }
}

/// An answer with calls `(id, name, arguments)`.
pub fn calls(reasoning: &str, calls: &[(&str, &str, &str)]) -> Message {
    let call = |&(id, name, arguments): &(&str, &str, &str)| ToolCall {
        id: Some(id.to_string()),
        name: name.to_string(),
        arguments: arguments.to_string(),
    };
    let mut message = Message::assistant("");
    message.reasoning_content = Some(reasoning.to_string()).filter(|text| !text.is_empty());
    message.tool_calls = calls.iter().map(call).collect();
    message
}

/// A tool with one string parameter.
pub fn tool(name: &str, parameter: &str) -> Tool {
    let schema = format!(
        r#"{{"type": "object", "properties": {{"{parameter}": {{"type": "string"}}}}, "required": ["{parameter}"]}}"#
    );
    Tool::new(name, "A tool.", Json::parse(&schema).unwrap())
}

/// A box with `look`, which says five words of what it is asked for.
pub fn looker() -> Toolbox {
    Toolbox::new()
        .with(tool("look", "at"), |arguments| {
            let at = arguments.get("at").and_then(Json::as_str).unwrap_or("nothing");
            Ok(format!("{at} is there, I see"))
        })
        .unwrap()
}

/// The kinds of events, in short.
pub fn kinds(events: &[AgentEvent]) -> Vec<&'static str> {
    let kind = |event: &AgentEvent| match event.kind {
        AgentEventKind::StepStarted { .. } => "step",
        AgentEventKind::Token(_) => "token",
        AgentEventKind::Delta(_) => "delta",
        AgentEventKind::Answered { .. } => "answered",
        AgentEventKind::Recorded(_) => "recorded",
        AgentEventKind::CallRetried { .. } => "retried",
        AgentEventKind::Call(_) => "call",
        AgentEventKind::Result { .. } => "result",
        AgentEventKind::ContextManaged(_) => "managed",
        AgentEventKind::RecordDropped { .. } => "dropped",
        AgentEventKind::Finished(_) => "finished",
    };
    events.iter().map(kind).collect()
}

pub fn shared(model: Scripted) -> (Arc<Scripted>, Arc<dyn ChatModel>) {
    let model = Arc::new(model);
    (model.clone(), model)
}
