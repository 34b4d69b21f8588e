//! One run of an agent: ask the model, carry out its calls, and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::Agent;
use super::context::{self, ContextManagement, Managed};
use super::error::Result;
use super::options::AgentOptions;
use super::outcome::{AgentEvent, AgentEventKind, Stop};
use super::retry;
use super::state::State;
use super::trace::{Record, Trace};
use crate::chat::{Message, ToolChoice};
use crate::chat_model::{ChatEvent, ChatRequest, ChatResponse, ChatUsage, Finish};
use crate::generation::{self, Cancel};

/// How often the time limit is checked while the model or a tool runs.
const TICK: Duration = Duration::from_millis(10);

/// A run in progress.
pub(super) struct Run<'a> {
    pub agent: &'a Agent,
    pub options: &'a AgentOptions,
    pub run: usize,
    pub state: State,
    pub trace: Option<&'a Trace>,
    pub on_event: &'a mut dyn FnMut(AgentEvent),
    pub started: Instant,
    /// A record that is written before the next one: what nothing comes of is not written.
    pub unwritten: Option<Record>,
}

/// Tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    Tokens(usize),
    /// More than the context holds.
    TooMany,
    /// The model can't count tokens.
    Unknown,
}

/// The model's summary of its work.
#[derive(Debug, Default)]
struct Summary {
    /// `None` if the model wrote none.
    text: Option<String>,
    /// Its tokens, if the model was asked.
    usage: Option<ChatUsage>,
    /// Its record for training.
    record: Option<Box<generation::Record>>,
}

impl Count {
    fn tokens(self) -> Option<usize> {
        match self {
            Self::Tokens(tokens) => Some(tokens),
            Self::TooMany | Self::Unknown => None,
        }
    }
}

/// Ends the watch over an answer when the answer ends, in a panic, too.
struct Over<'a> {
    done: &'a AtomicBool,
    watch: &'a Thread,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        self.watch.unpark();
    }
}

impl Run<'_> {
    /// Works until the run has ended.
    pub fn finish(&mut self) -> Result<()> {
        while self.state.stop.is_none() {
            match self.step() {
                Ok(None) => {}
                Ok(Some(stop)) => self.record(Record::End { stop })?,
                Err(error) => return Err(error),
            }
        }
        if let Some(stop) = self.state.stop {
            self.emit(AgentEventKind::Finished(stop));
        }
        Ok(())
    }

    /// Does the next thing; says when there is none.
    fn step(&mut self) -> Result<Option<Stop>> {
        if !self.state.pending().is_empty() {
            return self.call_tools().map(|()| None);
        }
        let context_length = self.agent.model.context_length();
        let mut full = false;
        match (self.state.finish, self.state.last) {
            (Some(Finish::Stop | Finish::ToolCalls), _) if !self.called() => {
                // The last step is not spent on a retry.
                let may_retry = self.state.retries < self.options.max_call_retries
                    && self.state.steps < self.state.max_steps
                    && self.interrupted().is_none();
                return match self.state.call_error.clone().filter(|_| may_retry) {
                    Some(error) => self.retry(error).map(|()| None),
                    None => Ok(Some(Stop::Answer)),
                };
            }
            (Some(Finish::Cancelled), _) => {
                return Ok(Some(if self.out_of_time() { Stop::TimeLimit } else { Stop::Cancelled }));
            }
            (Some(Finish::Length), Some(usage)) if usage.total() >= context_length => full = true,
            (Some(Finish::Length), _) => return Ok(Some(Stop::TokenLimit)),
            _ => {}
        }
        if let Some(stop) = self.interrupted() {
            return Ok(Some(stop));
        }
        if self.state.steps >= self.state.max_steps {
            return Ok(Some(Stop::StepLimit));
        }
        let mut request = self.request();
        let count = if full { Count::TooMany } else { self.count(&request)? };
        // Where the model can't count, the tokens of its last answer are taken for those of the conversation.
        let tokens = count.tokens().or(self.state.last.map(|usage| usage.total())).unwrap_or(0);
        full |= count == Count::TooMany || tokens >= context_length;
        if full || tokens as f64 > self.options.context_threshold * context_length as f64 {
            if self.manage(tokens)? {
                return Ok(None);
            }
            if full {
                return Ok(Some(Stop::ContextFull));
            }
        }
        match self.tokens_left(count) {
            Ok(max_tokens) => request.max_tokens = max_tokens,
            Err(stop) => return Ok(Some(stop)),
        }
        self.emit(AgentEventKind::StepStarted { prompt_tokens: count.tokens() });
        let Some(response) = self.ask(request, true)? else {
            return Ok(if self.manage(tokens)? { None } else { Some(Stop::ContextFull) });
        };
        let ChatResponse { message, finish, usage, dropped, call_error, record, text: _ } = response;
        let (answer, lost, error) = (message.clone(), dropped.clone(), call_error.clone());
        self.record(Record::Answer { message: answer, finish, usage, dropped: lost, call_error: error, record })?;
        self.emit(AgentEventKind::Answered { message, finish, usage, dropped, call_error });
        Ok(None)
    }

    /// Tells the model why its call could not be read, so that it can write it again.
    fn retry(&mut self, error: String) -> Result<()> {
        self.record(Record::Retry { content: retry::note(&error) })?;
        self.emit(AgentEventKind::CallRetried { error, retry: self.state.retries });
        Ok(())
    }

    /// Whether the last answer had calls.
    fn called(&self) -> bool {
        self.state.answer.as_ref().is_some_and(|answer| !answer.tool_calls.is_empty())
    }

    /// The next request.
    fn request(&self) -> ChatRequest {
        ChatRequest {
            tools: self.agent.tools.tools(),
            thinking: self.options.thinking,
            params: self.options.params_of(self.run, self.state.steps),
            max_tokens: self.options.max_answer_tokens,
            record: self.options.record,
            ..ChatRequest::new(self.state.messages.clone())
        }
    }

    /// Tokens of a request's prompt.
    fn count(&self, request: &ChatRequest) -> Result<Count> {
        match self.agent.model.count_tokens(request) {
            Ok(tokens) => Ok(tokens.map_or(Count::Unknown, Count::Tokens)),
            Err(error) if error.is_context_full() => Ok(Count::TooMany),
            Err(error) => Err(error.into()),
        }
    }

    /// Most tokens of the next answer; an error if there are none left.
    fn tokens_left(&self, prompt: Count) -> std::result::Result<Option<usize>, Stop> {
        let Some(most) = self.options.max_tokens else { return Ok(self.options.max_answer_tokens) };
        let spent = self.state.usage.total().saturating_add(prompt.tokens().unwrap_or(0));
        let left = most.checked_sub(spent).filter(|left| *left > 0).ok_or(Stop::TokenLimit)?;
        Ok(Some(self.options.max_answer_tokens.map_or(left, |most| most.min(left))))
    }

    /// Asks the model; the time limit ends the answer. `None` if the conversation does not fit its context.
    fn ask(&mut self, mut request: ChatRequest, tell: bool) -> Result<Option<ChatResponse>> {
        let (run, step) = (self.run, self.state.steps);
        let on_event = &mut *self.on_event;
        let mut pass_on = |event| {
            if tell {
                let kind = match event {
                    ChatEvent::Token { token, .. } => AgentEventKind::Token(token),
                    ChatEvent::Delta(delta) => AgentEventKind::Delta(delta),
                };
                on_event(AgentEvent { run, step, kind });
            }
        };
        let model = &self.agent.model;
        let given = match self.options.max_time {
            None => {
                request.cancel = Some(self.agent.cancel.clone());
                model.chat(request, &mut pass_on)
            }
            Some(max_time) => {
                let before = Duration::try_from_secs_f64(self.state.seconds.max(0.0)).unwrap_or(Duration::MAX);
                let deadline = self.started.checked_add(max_time.saturating_sub(before));
                let cancel = Cancel::new();
                request.cancel = Some(cancel.clone());
                let done = AtomicBool::new(false);
                thread::scope(|scope| {
                    let watch = scope.spawn(|| {
                        while !done.load(Ordering::Acquire) {
                            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                            if late || self.agent.cancel.is_cancelled() {
                                return cancel.cancel();
                            }
                            thread::park_timeout(TICK);
                        }
                    });
                    let _over = Over { done: &done, watch: watch.thread() };
                    model.chat(request, &mut pass_on)
                })
            }
        };
        match given {
            Ok(response) => Ok(Some(response)),
            Err(error) if error.is_context_full() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Carries out the calls that have no result yet. Each result is recorded as it comes.
    fn call_tools(&mut self) -> Result<()> {
        let pending = self.state.pending();
        if let Some(stop) = self.interrupted() {
            // Every call has a result, so that the conversation stays whole.
            let why = if stop == Stop::TimeLimit { "time is over" } else { "the run was cancelled" };
            for (at, call) in pending {
                let content = format!("Error: {} was not called, because {why}", call.name);
                self.record(Record::Result { call: at, name: call.name, content, failed: true })?;
            }
            return Ok(());
        }
        let calls: Vec<_> = pending.iter().map(|(_, call)| call.clone()).collect();
        calls.iter().for_each(|call| self.emit(AgentEventKind::Call(call.clone())));
        let agent = self.agent;
        let mut written = Ok(());
        agent.tools.call_all(&calls, |i, result| {
            let (at, call) = &pending[i];
            let (name, content) = (call.name.clone(), result.content.clone());
            let record = Record::Result { call: *at, name, content, failed: result.failed };
            if written.is_ok() {
                written = self.record(record);
            }
            self.emit(AgentEventKind::Result { call: call.clone(), result: result.clone() });
        });
        written
    }

    /// Shortens the conversation; `false` if nothing may be discarded.
    fn manage(&mut self, tokens_before: usize) -> Result<bool> {
        let mut strategy = self.options.context;
        let mut messages = self.state.messages.clone();
        let mut discarded_steps = context::to_discard(strategy, context::steps(&messages).len());
        if discarded_steps == 0 {
            return Ok(false);
        }
        let mut made = Summary::default();
        if self.state.is_cut_off() {
            messages.pop();
        }
        if strategy == ContextManagement::Summary {
            made = self.summarise(&messages)?;
            if self.interrupted().is_some() {
                // Nothing goes for half a summary.
                (made.text, discarded_steps) = (None, 0);
            } else if made.text.is_none() {
                strategy = ContextManagement::DiscardAll;
            }
        }
        let Summary { text: mut summary, usage: summary_usage, record } = made;
        let discarded = context::discard(&messages, discarded_steps);
        let (mut messages, mut question) = (discarded.clone(), self.state.question.clone());
        if let Some(summary) = &summary {
            question = Some(context::add_summary(&mut messages, question, summary));
        }
        let mut tokens_after = self.tokens_of(&messages)?;
        if summary.is_some() && tokens_after.is_some_and(|after| tokens_before > 0 && after >= tokens_before) {
            // A summary that makes nothing shorter would be written again and again.
            (strategy, summary) = (ContextManagement::DiscardAll, None);
            (messages, question) = (discarded, self.state.question.clone());
            tokens_after = self.tokens_of(&messages)?;
        }
        let step = self.state.steps;
        let managed = Managed { strategy, step, tokens_before, tokens_after, discarded_steps, summary, summary_usage };
        self.record(Record::Managed { managed: managed.clone(), messages, question, record })?;
        self.emit(AgentEventKind::ContextManaged(managed));
        Ok(true)
    }

    /// Tokens of the next prompt with these messages, if the model can count them and they fit.
    fn tokens_of(&self, messages: &[Message]) -> Result<Option<usize>> {
        Ok(self.count(&ChatRequest { messages: messages.to_vec(), ..self.request() })?.tokens())
    }

    /// The model's summary of a conversation; empty if there is no space for it.
    fn summarise(&mut self, messages: &[Message]) -> Result<Summary> {
        let mut request = ChatRequest { tools: Vec::new(), tool_choice: ToolChoice::None, ..self.request() };
        request.messages = messages.to_vec();
        request.messages.push(Message::user(context::SUMMARY_REQUEST));
        let count = self.count(&request)?;
        let Ok(max_tokens) = self.tokens_left(count) else { return Ok(Summary::default()) };
        request.max_tokens = max_tokens;
        if count == Count::TooMany {
            return Ok(Summary::default());
        }
        let Some(response) = self.ask(request, false)? else { return Ok(Summary::default()) };
        let text = Some(response.message.content).filter(|summary| !summary.trim().is_empty());
        Ok(Summary { text, usage: Some(response.usage), record: response.record })
    }

    /// Whether to stop at once.
    fn interrupted(&self) -> Option<Stop> {
        if self.agent.cancel.is_cancelled() {
            Some(Stop::Cancelled)
        } else {
            self.out_of_time().then_some(Stop::TimeLimit)
        }
    }

    fn out_of_time(&self) -> bool {
        self.options.max_time.is_some_and(|max| self.seconds() >= max.as_secs_f64())
            && !self.agent.cancel.is_cancelled()
    }

    /// Time spent, in all processes.
    fn seconds(&self) -> f64 {
        self.state.seconds + self.started.elapsed().as_secs_f64()
    }

    /// Writes a record, applies it to the state and reports what was recorded of the model's answer.
    fn record(&mut self, record: Record) -> Result<()> {
        if let Some(trace) = self.trace {
            if let Some(first) = self.unwritten.take() {
                trace.write(self.run, self.seconds(), &first)?;
            }
            trace.write(self.run, self.seconds(), &record)?;
        }
        let recorded = match &record {
            Record::Answer { record, .. } | Record::Managed { record, .. } => record.clone(),
            _ => None,
        };
        let applied = self.state.apply(record);
        debug_assert_eq!(applied, Ok(()));
        if let Some(recorded) = recorded {
            self.emit(AgentEventKind::Recorded(recorded));
        }
        Ok(())
    }

    fn emit(&mut self, kind: AgentEventKind) {
        (self.on_event)(AgentEvent { run: self.run, step: self.state.steps, kind });
    }
}
