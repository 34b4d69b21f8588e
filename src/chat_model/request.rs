//! What an agent or a server asks of a model that chats.

use serde::{Deserialize, Serialize};

use super::error::Result;
use crate::chat::{Delta, Json, Message, Tool, ToolChoice};
use crate::generation::{Cancel, Record, RecordOptions, SamplingParams, Token};

/// A conversation and how to go on from it.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Tools for the whole conversation; they join those of the first system message, which is made if there is
    /// none.
    pub tools: Vec<Tool>,
    /// Whether and which tools may or must be called. Default: as the model likes. The crate's own engine holds the
    /// names of tools and parameters to those offered, whatever this says; if no tool is, nothing is read as a call.
    pub tool_choice: ToolChoice,
    /// Whether one answer may call several tools. Default: yes.
    pub parallel_tool_calls: bool,
    /// Whether the deltas of a call come while it is written. Default: no; they come once the call is complete, so that
    /// the deltas of an answer are always those of its message. Otherwise a call that is cut off or malformed begins
    /// among the deltas, has no [`Delta::ToolCallEnd`], and is not in the message. Remote models do as they like.
    pub stream_calls: bool,
    /// The form of the content, as in the protocol: `{"type": "json_schema", "json_schema": {…}}` and the like.
    pub response_format: Option<Json>,
    /// Whether the model thinks before it speaks. Default: yes.
    pub thinking: bool,
    /// How tokens are chosen. Default: greedy.
    pub params: SamplingParams,
    /// Most tokens of the answer. Default: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer where its content comes to one; reasoning and calls may hold them.
    pub stop: Vec<String>,
    /// Report log-probabilities, with this many of the most probable tokens.
    pub logprobs: Option<usize>,
    /// What to record of the answer, for training. Remote models refuse what their servers cannot tell. Default: nothing.
    pub record: RecordOptions,
    /// A switch that ends the answer.
    pub cancel: Option<Cancel>,
}

impl ChatRequest {
    /// A request with the defaults.
    pub fn new(messages: impl Into<Vec<Message>>) -> Self {
        Self {
            messages: messages.into(),
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            stream_calls: false,
            response_format: None,
            thinking: true,
            params: SamplingParams::default(),
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            record: RecordOptions::default(),
            cancel: None,
        }
    }

    /// The tools that the model is told about: those of messages and those of the request, or none.
    pub(crate) fn shown_tools(&self) -> Vec<Tool> {
        let of_messages = self.messages.iter().flat_map(|message| self.tool_choice.shown(&message.tools));
        of_messages.chain(self.tool_choice.shown(&self.tools)).cloned().collect()
    }

    /// Where a part of the tool of a name stands in the request, in the protocol's words.
    pub(crate) fn field_of_tool(&self, name: &str, part: &str) -> String {
        match self.tools.iter().rposition(|tool| tool.name() == name) {
            Some(at) => format!("tools[{at}].function.{part}"),
            // Tools of messages are the crate's own way, and who brings messages into shape moves them.
            None => "messages".to_string(),
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// The model ended it to have tools called.
    ToolCalls,
    /// The context or `max_tokens` ran out.
    Length,
    /// The request was cancelled.
    Cancelled,
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were in the cache already.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Those of them that were reasoning, its end mark included.
    pub reasoning_tokens: usize,
}

impl ChatUsage {
    /// The most tokens that a count can mean: more is a mistake.
    pub(crate) const MOST: usize = if usize::BITS < 64 { 1 << 30 } else { 1 << 48 };

    /// The first count that means nothing, with its field.
    pub(crate) fn meaningless(&self) -> Option<(&'static str, usize)> {
        let counts = [
            ("prompt_tokens", self.prompt_tokens),
            ("cached_tokens", self.cached_tokens),
            ("completion_tokens", self.completion_tokens),
            ("reasoning_tokens", self.reasoning_tokens),
        ];
        counts.into_iter().find(|(_, count)| *count > Self::MOST)
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatResponse {
    /// What was said; its calls have ids.
    pub message: Message,
    /// The text as the model wrote it, after the prompt's think mark; empty if the model is remote.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Its tokens.
    pub usage: ChatUsage,
    /// What was taken for markup and is in no call, in its order: malformed and unfinished calls, stray and misspelt tags,
    /// text behind calls; blank stretches and the tags of whole blocks are left out. If no call could be read, and there are
    /// any of these from the first call or block on, all text from there on is one entry, which is also the end of the
    /// content if the answer was not cut off. Empty if the model is remote.
    pub dropped: Vec<String>,
    /// What was recorded, if the request asked for anything.
    pub record: Option<Box<Record>>,
    /// Why a call could not be read, of the first that could not, in words for the model or a client. If none could be
    /// read and the answer was not cut off, the message's content ends with their text, as it was written. The same is
    /// said of an answer that holds tags of calls alone.
    pub call_error: Option<String>,
}

/// Something that happened while an answer was written.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// A token was generated; the deltas that it completes follow. Remote models do not tell.
    Token {
        /// The token.
        token: Token,
        /// Whether it is reasoning, as [`ChatUsage::reasoning_tokens`] counts: the end mark of the reasoning is, the
        /// token that begins the content is not.
        reasoning: bool,
    },
    /// A piece of the message.
    Delta(Delta),
}

/// A model that chats: the crate's own engine, or a server.
pub trait ChatModel: Send + Sync {
    /// The model's name.
    fn name(&self) -> &str;

    /// Most tokens of prompt and answer together.
    fn context_length(&self) -> usize;

    /// Tokens that the prompt of a request takes; `None` if the model can't tell before it answers.
    ///
    /// # Errors
    /// If the request can't be put into a prompt.
    fn count_tokens(&self, request: &ChatRequest) -> Result<Option<usize>>;

    /// Answers, telling `on_event` of everything on the way.
    ///
    /// # Errors
    /// If the request is refused, or the model fails.
    fn chat(&self, request: ChatRequest, on_event: &mut dyn FnMut(ChatEvent)) -> Result<ChatResponse>;
}
