//! A completion to deltas, as it arrives.
//!
//! [`StreamParser`] is a state machine over text: reasoning, content, and the inside of a tool block (`dsml` for V3.2,
//! `tokens` for earlier versions and Kimi-K2, `elements` for GLM-5). It holds back what may turn out to be part of a tag and nothing else, and looks at
//! every byte a bounded number of times, so that any split of a text gives the same events in linear time.
//!
//! What it accepts beyond the format: text and several blocks after the first, calls without a block, blocks without
//! an end, calls while the reasoning is open (they end it), a repeated think mark at the start, other whitespace,
//! attribute order and quotes, self-closing calls, JSON as a call's body, `string` attributes that are missing or
//! wrong, values of `string="false"` that are no JSON (they become strings), misspelt tags around calls. A call that is
//! not closed, has text where tags belong, or a parameter twice, is malformed: it never ends, its text is among what was
//! dropped, and [`StreamParser::call_problem`] says why.
//!
//! If no call can be read and no text precedes the markup, all of it is [`StreamParser::unread`]: an answer of tags alone
//! is not an empty one. Blanks behind a stray tag wait for text, which makes them content.
//!
//! Where no tool was offered, nothing is a call, and all markup of calls is text.

mod attributes;
mod call;
mod dsml;
mod elements;
mod tag;
mod tail;
mod text;
mod tokens;

use call::Call;
use tail::Tail;

use super::delta::Delta;
use super::encode::Start;
use super::format::{Calls, Format};
use super::message::{Message, Tool};
use super::parse::{CallProblem, Parsed};
use super::version::Version;

/// Reads a completion as it arrives.
///
/// The deltas of all [`push`](Self::push) calls and of [`finish`](Self::finish), put together by an
/// [`Accumulator`](super::Accumulator), are the message that [`parse`](super::parse) reads from the whole text, however
/// the text was split; the deltas themselves are the same, too, once neighbours of one kind are joined. Unless it is
/// known that no tool was offered, content and reasoning never hold tool markup: a stray tag is dropped, and a space
/// takes its place where the text before it could go on as a tag or a control token. Other control tokens that stand in
/// the text as they are, are text. Arguments arrive as fragments, string values while they are written.
#[derive(Debug, Clone)]
pub struct StreamParser {
    format: &'static Format,
    tools: Vec<Tool>,
    /// Whether there can be calls: not if no tool was offered.
    may_call: bool,
    /// What has arrived; what lies before `at` is done with.
    buffer: String,
    at: usize,
    /// Up to where the state has searched already.
    scanned: usize,
    state: State,
    /// No text of this section has been seen yet.
    fresh: bool,
    /// This section has no text but blanks so far.
    blank: bool,
    /// Blanks behind a stray tag in a blank section: text if more text follows.
    held: String,
    /// The ends of reasoning and content.
    tails: [Tail; 2],
    /// Inside a tool block.
    in_block: bool,
    /// The calls begun so far.
    calls: usize,
    call: Option<Call>,
    /// Text being dropped.
    junk: String,
    dropped: Vec<String>,
    out: Vec<Delta>,
    incomplete: bool,
    /// How the text ended.
    ending: Ending,
    /// All text from the first call or block on, or from a stray tag that no text precedes, up to `raw_end` of the
    /// buffer, while no call has been read.
    raw: Option<String>,
    raw_end: usize,
    /// It holds stray tags only.
    raw_is_stray: bool,
    /// How much was dropped before it.
    dropped_before_raw: usize,
    /// A call or a tag has been begun.
    has_begun: bool,
    /// A call has been read.
    has_read: bool,
    call_problem: Option<CallProblem>,
}

/// How a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ending {
    /// Not known: it was cut off if it ends within a call or a tag and has no end-of-sentence token.
    #[default]
    Unknown,
    /// The model ended it.
    Stopped,
    /// It was cut off: the most tokens were reached, or it was cancelled. What may be the beginning of markup is then
    /// neither content nor reasoning, so that an answer that is cut later says all that one says that is cut earlier.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reasoning,
    Content,
    /// In or behind a block, outside of calls.
    Between,
    /// Behind the opening of a call.
    Header,
    /// Inside a call, between parameters.
    Body,
    /// Inside a call whose body is JSON.
    JsonBody,
    /// Behind the opening of a parameter.
    Parameter,
    /// Inside a parameter's value.
    Value,
    /// Inside the arguments of a call of V3 or V3.1.
    Arguments,
    /// Behind the end-of-sentence token.
    Done,
}

/// What a step of the machine found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Go on.
    On,
    /// Nothing more to do with the text that has arrived.
    Wait,
}

impl StreamParser {
    /// A parser of a completion that begins in the state [`Prompt::start`](super::Prompt::start).
    pub fn new(version: Version, start: Start) -> Self {
        Self {
            format: version.format(),
            tools: Vec::new(),
            may_call: true,
            buffer: String::new(),
            at: 0,
            scanned: 0,
            state: match start {
                Start::Reasoning => State::Reasoning,
                Start::Content => State::Content,
            },
            fresh: true,
            blank: true,
            held: String::new(),
            tails: Default::default(),
            in_block: false,
            calls: 0,
            call: None,
            junk: String::new(),
            dropped: Vec::new(),
            out: Vec::new(),
            incomplete: false,
            ending: Ending::Unknown,
            raw: None,
            raw_end: 0,
            raw_is_stray: false,
            dropped_before_raw: 0,
            has_begun: false,
            has_read: false,
            call_problem: None,
        }
    }

    /// The same parser, knowing the tools of the request; none were offered if there are none, and then nothing is read
    /// as a call: see [`ParseOptions::tools`](super::ParseOptions::tools).
    pub fn with_tools(mut self, tools: &[Tool]) -> Self {
        self.tools = tools.to_vec();
        self.may_call = !tools.is_empty();
        self
    }

    /// Takes more text and returns what it brings.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.buffer.push_str(text);
        self.run(false);
        std::mem::take(&mut self.out)
    }

    /// Ends the text and returns what was held back. What is pushed later is dropped.
    pub fn finish(&mut self) -> Vec<Delta> {
        self.finish_as(Ending::Unknown)
    }

    /// The same, knowing how the text ended.
    pub fn finish_as(&mut self, ending: Ending) -> Vec<Delta> {
        if self.ending == Ending::Unknown {
            self.ending = ending;
        }
        let was_done = self.state == State::Done;
        let in_text = matches!(self.state, State::Reasoning | State::Content);
        if ending == Ending::Cut && in_text {
            self.cut_text();
        } else {
            self.run(true);
        }
        if matches!(self.state, State::Reasoning) || self.in_block || self.call.is_some() {
            self.incomplete = true;
        }
        self.abort(CallProblem::CutOff);
        self.flush_junk();
        self.keep_raw();
        if self.raw.is_some() {
            let problem = match (self.raw_is_stray, self.incomplete && self.has_begun) {
                (true, _) => CallProblem::Stray,
                (false, true) => CallProblem::CutOff,
                (false, false) => CallProblem::NoCall,
            };
            self.call_problem.get_or_insert(problem);
        }
        if !was_done && let Some(raw) = &mut self.raw {
            // Within a value it is not taken for the end.
            if let Some(length) = raw.strip_suffix(self.format.eos).map(str::len) {
                raw.truncate(length);
                self.ending = Ending::Stopped;
            }
            self.drop_raw();
        }
        self.state = State::Done;
        let is_cut = self.ending == Ending::Unknown && self.incomplete && self.has_begun;
        if self.ending == Ending::Cut || is_cut {
            self.raw = None;
        }
        std::mem::take(&mut self.out)
    }

    /// Whether the finished text ends in the middle of something: in the reasoning, in a tool block, in a tag.
    pub fn incomplete(&self) -> bool {
        self.incomplete
    }

    /// What was taken for markup and is in no call, so far, in its order: malformed and unfinished calls, stray and misspelt
    /// tags, text behind calls. Blank stretches and the tags of whole blocks are left out. If a text without a call that
    /// could be read has any of these from the first call or block on, all text from there on is one entry, once it is
    /// finished; it is also what is [`unread`](Self::unread).
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// Takes what was dropped so far.
    pub fn take_dropped(&mut self) -> Vec<String> {
        self.dropped_before_raw = 0;
        std::mem::take(&mut self.dropped)
    }

    /// Why a call could not be read: of the first that could not, so far.
    pub fn call_problem(&self) -> Option<CallProblem> {
        self.call_problem
    }

    /// Once the text is finished: all of it from the first call or block on, or from a stray tag that no text precedes, as
    /// it was written, without think marks and the end-of-sentence token. `None` if there is no such markup, a call could
    /// be read, more text follows stray tags, or the text was cut off in a call or a tag.
    pub fn unread(&self) -> Option<&str> {
        self.raw.as_deref().filter(|_| self.state == State::Done)
    }

    /// What a finished text says, given its message.
    pub fn parsed(self, message: Message) -> Parsed {
        let Self { incomplete, dropped, call_problem, raw: unread, .. } = self;
        Parsed { message, incomplete, dropped, call_problem, unread }
    }

    fn run(&mut self, last: bool) {
        loop {
            let step = match self.state {
                State::Reasoning | State::Content => self.text(last),
                State::Between => match &self.format.calls {
                    Calls::Dsml(dsml) => self.between(dsml, last),
                    Calls::Tokens(tokens) => self.between_tokens(tokens, last),
                    Calls::Elements(elements) => self.between_elements(elements, last),
                },
                State::Header => match &self.format.calls {
                    Calls::Dsml(dsml) => self.header(dsml, last),
                    Calls::Tokens(tokens) => self.token_header(tokens, last),
                    Calls::Elements(elements) => self.element_header(elements, last),
                },
                State::Arguments => match &self.format.calls {
                    Calls::Tokens(tokens) => self.token_arguments(tokens, last),
                    Calls::Dsml(_) | Calls::Elements(_) => Step::Wait,
                },
                State::Body | State::JsonBody | State::Parameter | State::Value => match &self.format.calls {
                    Calls::Dsml(dsml) => self.inside_call(dsml, last),
                    Calls::Elements(elements) => self.inside_element(elements, last),
                    Calls::Tokens(_) => Step::Wait,
                },
                State::Done => {
                    self.drop_text(self.buffer.len());
                    Step::Wait
                }
            };
            if step == Step::Wait {
                break;
            }
        }
        self.keep_raw();
        // What is done with goes, once it is the larger part: each byte is moved a bounded number of times.
        if self.at == self.buffer.len() {
            self.buffer.clear();
        } else if self.at > self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
        } else {
            return;
        }
        self.scanned = self.scanned.saturating_sub(self.at);
        self.raw_end = self.raw_end.saturating_sub(self.at);
        self.at = 0;
    }

    /// From `from` on, text is that of calls, until one is read, or of a stray tag, until more text follows.
    fn begin_raw(&mut self, from: usize, is_stray: bool) {
        if self.has_read {
            return;
        }
        self.raw_is_stray = is_stray && (self.raw_is_stray || self.raw.is_none());
        if self.raw.is_none() {
            self.raw = Some(String::new());
            self.raw_end = from;
            self.dropped_before_raw = self.dropped.len();
        }
    }

    /// Keeps the text of calls up to here.
    fn keep_raw(&mut self) {
        if let Some(raw) = self.raw.as_mut().filter(|_| self.state != State::Done) {
            raw.push_str(&self.buffer[self.raw_end..self.at]);
            self.raw_end = self.at;
        }
    }

    /// Tells what was dropped of the text of calls as it was written, in one piece. Of a whole block without anything in it,
    /// nothing was.
    fn drop_raw(&mut self) {
        if let Some(raw) = self.raw.as_ref().filter(|_| self.incomplete || self.dropped.len() > self.dropped_before_raw)
        {
            self.dropped.truncate(self.dropped_before_raw);
            self.dropped.push(raw.clone());
        }
    }

    /// Goes past the end-of-sentence token, which stands here.
    fn end_sentence(&mut self) {
        self.keep_raw();
        self.drop_raw();
        self.at += self.format.eos.len();
        self.state = State::Done;
        self.ending = Ending::Stopped;
    }

    /// Goes past a think mark, which begins a section.
    fn pass_mark(&mut self, length: usize) {
        self.keep_raw();
        self.at += length;
        self.raw_end = self.at;
        self.blank = true;
    }

    /// The text from `at` on.
    fn rest(&self) -> &str {
        &self.buffer[self.at..]
    }

    /// Drops the text up to `end`.
    fn drop_text(&mut self, end: usize) {
        self.junk.push_str(&self.buffer[self.at..end]);
        self.at = end;
    }

    /// Ends a stretch of dropped text.
    fn flush_junk(&mut self) {
        let junk = std::mem::take(&mut self.junk);
        if !junk.trim().is_empty() {
            self.dropped.push(junk);
        }
    }

    /// Gives up the call in progress: all its text is dropped.
    fn abort(&mut self, problem: CallProblem) {
        if let Some(call) = self.call.take() {
            self.junk.push_str(&call.raw);
            self.call_problem.get_or_insert(problem);
        }
        self.state = State::Between;
    }

    /// Moves to `end`, within a call.
    fn advance(&mut self, end: usize) {
        if let Some(call) = &mut self.call {
            call.raw.push_str(&self.buffer[self.at..end]);
        }
        self.at = end;
    }

    /// Begins a call whose opening tag ends at `end`; its name follows.
    fn open_call(&mut self, end: usize) {
        self.flush_junk();
        self.call = Some(Call::default());
        self.has_begun = true;
        self.advance(end);
        self.scanned = self.at;
        self.state = State::Header;
    }

    /// The call has a name.
    /// Gives the call in progress its name and goes on to `next`, or drops the call if that is no name.
    fn name_call(&mut self, name: String, next: State) {
        let is_offered = self.tools.is_empty() || self.tools.iter().any(|tool| tool.name() == name);
        if !is_offered && !may_be_name(&name) {
            return self.abort(CallProblem::Name);
        }
        self.state = next;
        if let Some(call) = &mut self.call {
            call.index = self.calls;
            self.calls += 1;
            call.unwraps = call::unwraps(&self.tools, &name);
            call.name.clone_from(&name);
            emit(&mut self.out, Delta::ToolCallStart { index: call.index, name });
        }
    }

    /// Emits more of the arguments of the call in progress.
    fn emit_arguments(&mut self, fragment: String) {
        if let Some(call) = &self.call
            && !fragment.is_empty()
        {
            emit(&mut self.out, Delta::ToolCallArguments { index: call.index, fragment });
        }
    }

    /// The call is complete.
    fn end_call(&mut self) {
        if let Some(call) = self.call.take() {
            emit(&mut self.out, Delta::ToolCallEnd { index: call.index });
            self.has_read = true;
            self.raw = None;
            self.held.clear();
        }
        self.state = State::Between;
    }
}

/// Appends a delta, as part of the last one if that is of the same kind.
fn emit(out: &mut Vec<Delta>, delta: Delta) {
    match (out.last_mut(), delta) {
        (Some(Delta::Reasoning(text)), Delta::Reasoning(more)) | (Some(Delta::Content(text)), Delta::Content(more)) => {
            text.push_str(&more);
        }
        (
            Some(Delta::ToolCallArguments { index, fragment }),
            Delta::ToolCallArguments { index: same, fragment: more },
        ) if *index == same => fragment.push_str(&more),
        (_, delta) => out.push(delta),
    }
}

/// Whether a text can be the name of a tool that was not offered: markup and JSON cannot.
fn may_be_name(text: &str) -> bool {
    !text.starts_with(['{', '"']) && !text.contains(|c: char| c.is_control() || matches!(c, '<' | '>'))
}
