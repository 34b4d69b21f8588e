//! Where a run stands: what its records come to, one after another.

use super::context::Managed;
use super::outcome::Stop;
use super::retry;
use super::trace::{Fault, Record};
use crate::chat::{Message, ToolCall};
use crate::chat_model::{ChatUsage, Finish};
use crate::environment::CallResult;

/// Where a run stands. It changes by [`State::apply`] alone, so that a run that is read back from its trace stands
/// exactly where it stood.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub messages: Vec<Message>,
    /// The last answer, as the model gave it.
    pub answer: Option<Message>,
    /// What it lost.
    pub dropped: Vec<String>,
    /// Why a call of it could not be read.
    pub call_error: Option<String>,
    /// Times in a row that the model was told of such a call.
    pub retries: usize,
    /// How the last answer ended; `None` at the beginning and after the context was managed.
    pub finish: Option<Finish>,
    /// The tokens of the last answer, as `finish`.
    pub last: Option<ChatUsage>,
    /// The results of the last answer's calls.
    results: Vec<Option<CallResult>>,
    /// The question without the summary that was put behind it.
    pub question: Option<String>,
    pub steps: usize,
    pub usage: ChatUsage,
    pub managed: Vec<Managed>,
    pub stop: Option<Stop>,
    /// Most answers.
    pub max_steps: usize,
    /// Time spent before this process.
    pub seconds: f64,
}

impl State {
    pub fn new(messages: Vec<Message>, max_steps: usize) -> Self {
        Self {
            messages,
            answer: None,
            dropped: Vec::new(),
            call_error: None,
            retries: 0,
            finish: None,
            last: None,
            results: Vec::new(),
            question: None,
            steps: 0,
            usage: ChatUsage::default(),
            managed: Vec::new(),
            stop: None,
            max_steps,
            seconds: 0.0,
        }
    }

    /// The calls that have no result yet, with their places.
    pub fn pending(&self) -> Vec<(usize, ToolCall)> {
        let calls = self.answer.iter().flat_map(|answer| &answer.tool_calls);
        let open = self.results.iter().zip(calls).enumerate().filter(|(_, (result, _))| result.is_none());
        open.map(|(at, (_, call))| (at, call.clone())).collect()
    }

    /// Takes a record.
    ///
    /// # Errors
    /// It can't come here.
    pub fn apply(&mut self, record: Record) -> Result<(), Fault> {
        if let Record::Limit { max_steps } = record {
            return if self.takes_limit(max_steps) {
                (self.max_steps, self.stop) = (max_steps, None);
                Ok(())
            } else {
                Err(Fault::new("a new limit after the end"))
            };
        }
        if self.stop.is_some() {
            return Err(Fault::new("a record after the end"));
        }
        let what = match record {
            Record::Answer { .. } => "an answer",
            Record::Managed { .. } => "a managed context",
            Record::Retry { .. } => "a word about a call",
            Record::End { .. } => "the end",
            Record::Begin(_) | Record::Result { .. } | Record::Limit { .. } => "",
        };
        if !what.is_empty() && !self.pending().is_empty() {
            return Err(Fault::new(format!("{what} before the results of the calls")));
        }
        match record {
            Record::Begin(_) | Record::Limit { .. } => return Err(Fault::new("a second beginning")),
            Record::Answer { message, finish, usage, dropped, call_error, record: _ } => {
                if call_error.is_none() || !message.tool_calls.is_empty() {
                    self.retries = 0;
                }
                self.dropped = dropped;
                self.call_error = call_error;
                self.answered(message, finish, usage);
            }
            Record::Retry { content } => {
                if self.call_error.take().is_none() {
                    return Err(Fault::new("a word about a call, but the last answer has none that could not be read"));
                }
                self.retries += 1;
                self.messages.push(Message::user(content));
                self.finish = None;
            }
            Record::Result { call, name, content, failed } => {
                let called = self.answer.as_ref().and_then(|answer| answer.tool_calls.get(call));
                let called = called.map(|call| call.name.clone()).unwrap_or_default();
                match self.results.get_mut(call) {
                    Some(None) if called != name => {
                        return Err(Fault::field("name", format!("is {name:?}, but call {call} is of {called:?}")));
                    }
                    Some(place @ None) => {
                        *place = Some(CallResult { content, failed });
                        self.add_results();
                    }
                    _ => return Err(Fault::field("call", format!("a result of call {call}, which waits for none"))),
                }
            }
            Record::Managed { managed, messages, question, record: _ } => {
                self.steps += usize::from(managed.summary_usage.is_some());
                self.usage += managed.summary_usage.unwrap_or_default();
                self.managed.push(managed);
                self.messages = messages;
                self.question = question;
                self.finish = None;
                self.last = None;
            }
            Record::End { stop } => self.stop = Some(stop),
        }
        Ok(())
    }

    /// Whether a new limit changes anything: a run that ended otherwise than at its old one has ended.
    pub fn takes_limit(&self, max_steps: usize) -> bool {
        match self.stop {
            None => max_steps != self.max_steps,
            Some(Stop::StepLimit) => max_steps > self.steps,
            Some(_) => false,
        }
    }

    fn answered(&mut self, message: Message, finish: Finish, usage: ChatUsage) {
        self.steps += 1;
        self.usage += usage;
        self.last = Some(usage);
        self.finish = Some(finish);
        let whole = matches!(finish, Finish::Stop | Finish::ToolCalls);
        self.results = vec![None; if whole { message.tool_calls.len() } else { 0 }];
        self.answer = Some(message.clone());
        if whole {
            self.messages.push(message);
        } else if let Some(rest) = rest(message) {
            self.messages.push(rest);
        }
    }

    /// Whether the last message is an answer that was cut off.
    pub fn is_cut_off(&self) -> bool {
        let answer = self.answer.clone().filter(|_| matches!(self.finish, Some(Finish::Length | Finish::Cancelled)));
        answer.and_then(rest).is_some_and(|rest| self.messages.last() == Some(&rest))
    }

    /// Once all calls have results, the results join the conversation. The last one also says that another call could not
    /// be read, if one could not.
    fn add_results(&mut self) {
        if self.results.iter().any(Option::is_none) {
            return;
        }
        let calls = self.answer.iter().flat_map(|answer| &answer.tool_calls);
        for (call, result) in calls.zip(std::mem::take(&mut self.results)) {
            let mut message = Message::tool("", result.map(|result| result.content).unwrap_or_default());
            message.tool_call_id = call.id.clone();
            self.messages.push(message);
        }
        // A message of its own would be a user's, or the result of a call that there is not.
        if let (Some(error), Some(last)) = (&self.call_error, self.messages.last_mut()) {
            last.content.push_str(&format!("\n\n{}", retry::unread_call(error)));
        }
    }
}

/// What is kept of an answer that was cut off: calls in it are not made, for the last may lack arguments.
fn rest(mut message: Message) -> Option<Message> {
    if !message.tool_calls.is_empty() {
        message.tool_calls.clear();
        message.written_ids = None;
    }
    let said = !message.content.is_empty() || message.reasoning_content.is_some();
    said.then_some(message)
}
