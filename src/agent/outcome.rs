//! Events and outcome of an agent's work.

use serde::{Deserialize, Serialize};

use super::context::Managed;
use crate::chat::{Delta, Message, ToolCall};
use crate::chat_model::{ChatUsage, Finish};
use crate::environment::CallResult;
use crate::generation::{Record, Token};

/// Why an agent stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model answered without a call.
    Answer,
    /// `max_steps` answers.
    StepLimit,
    /// `max_tokens` tokens, or an answer longer than `max_answer_tokens`.
    TokenLimit,
    /// `max_time` is over.
    TimeLimit,
    /// The run was cancelled.
    Cancelled,
    /// The context is full, and nothing in it may go.
    ContextFull,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentEvent {
    /// Which of the parallel runs, from 0.
    pub run: usize,
    /// Answers of the model before it.
    pub step: usize,
    /// What.
    pub kind: AgentEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEventKind {
    /// The model is asked.
    StepStarted {
        /// Tokens of the prompt, if the model can tell.
        prompt_tokens: Option<usize>,
    },
    /// The model wrote a token; the deltas that it completes follow.
    Token(Token),
    /// A piece of the answer.
    Delta(Delta),
    /// The answer is whole.
    Answered {
        /// The answer.
        message: Message,
        /// Why it ended.
        finish: Finish,
        /// Its tokens.
        usage: ChatUsage,
        /// What was taken for markup and is in no call: [`ChatResponse::dropped`](crate::chat_model::ChatResponse::dropped).
        dropped: Vec<String>,
        /// Why a call could not be read: [`ChatResponse::call_error`](crate::chat_model::ChatResponse::call_error).
        call_error: Option<String>,
    },
    /// No call of the answer could be read. The model was told why, in a message of its conversation, and is asked again.
    CallRetried {
        /// Why.
        error: String,
        /// Which time in a row this is, from 1; at most [`AgentOptions::max_call_retries`](super::AgentOptions).
        retry: usize,
    },
    /// What was recorded of an answer, which follows, or of a summary, if [`AgentOptions::record`](super::AgentOptions)
    /// asks for anything.
    Recorded(Box<Record>),
    /// A tool is called. The calls of one answer may run at the same time.
    Call(ToolCall),
    /// A call has ended.
    Result {
        /// The call.
        call: ToolCall,
        /// What it came to.
        result: CallResult,
    },
    /// The context was managed.
    ContextManaged(Managed),
    /// The last record of a trace that is resumed was not written to its end: it does not count and is written over.
    RecordDropped {
        /// Its line, from 1.
        line: usize,
    },
    /// The run has ended.
    Finished(Stop),
}

/// What an agent's work came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The last answer: the final one, if `stop` is [`Stop::Answer`]. `None` if the model was never asked.
    pub message: Option<Message>,
    /// What of that answer was taken for markup and is in no call:
    /// [`ChatResponse::dropped`](crate::chat_model::ChatResponse::dropped).
    pub dropped: Vec<String>,
    /// Why a call of that answer could not be read: of the last answer if the model came to no better one in
    /// [`AgentOptions::max_call_retries`](super::AgentOptions).
    pub call_error: Option<String>,
    /// Why it stopped.
    pub stop: Stop,
    /// Answers of the model in all, with those of discarded steps, summaries and all parallel runs.
    pub steps: usize,
    /// Their tokens.
    pub usage: ChatUsage,
    /// The conversation as the model would see it now. To go on, append a user message and run again.
    pub messages: Vec<Message>,
    /// When and how the context was managed.
    pub managed: Vec<Managed>,
    /// Which run this is the outcome of.
    pub run: usize,
    /// What each of the parallel runs cost; one, if there are none.
    pub runs: Vec<RunReport>,
}

/// What one of the parallel runs cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Why it stopped; `None` if it failed.
    pub stop: Option<Stop>,
    /// Why it failed.
    pub error: Option<String>,
    /// Answers of the model.
    pub steps: usize,
    /// Their tokens.
    pub usage: ChatUsage,
}

impl std::ops::AddAssign for ChatUsage {
    fn add_assign(&mut self, other: Self) {
        // What servers count need not be true.
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
    }
}

impl ChatUsage {
    /// Tokens of prompt and answer together.
    pub fn total(&self) -> usize {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}
