//! A completion to deltas, as it arrives.
//!
//! [`StreamParser`] is a state machine over text: reasoning, content, and the inside of a tool block (`dsml` for V3.2,
//! `tokens` for earlier versions). It holds back what may turn out to be part of a tag and nothing else, and looks at
//! every byte a bounded number of times, so that any split of a text gives the same events in linear time.
//!
//! What it accepts beyond the format: text and several blocks after the first, calls without a block, blocks without
//! an end, calls while the reasoning is open (they end it), a repeated think mark at the start, other whitespace,
//! attribute order and quotes, self-closing calls, JSON as a call's body, `string` attributes that are missing or
//! wrong, values of `string="false"` that are no JSON (they become strings). A call that is not closed, has text where
//! tags belong, or a parameter twice, is malformed: it never ends, and its text is among what was dropped.

mod attributes;
mod call;
mod dsml;
mod tail;
mod tokens;

use call::Call;
use tail::Tail;

use super::delta::Delta;
use super::encode::Start;
use super::format::{Calls, Format};
use super::message::Tool;
use super::version::Version;

/// The longest whitespace that is looked through to see what follows a tag.
const LOOKAHEAD: usize = 256;
/// The longest name of a tag.
const LONGEST_TAG: usize = 64;

/// Reads a completion as it arrives.
///
/// The deltas of all [`push`](Self::push) calls and of [`finish`](Self::finish), put together by an
/// [`Accumulator`](super::Accumulator), are the message that [`parse`](super::parse) reads from the whole text, however
/// the text was split; the deltas themselves are the same, too, once neighbours of one kind are joined. Content and
/// reasoning never hold tool markup: a stray tag is dropped, and a space takes its place where the text before it could
/// go on as a tag or a control token. Other control tokens that stand in the text as they are, are text. Arguments
/// arrive as fragments, string values while they are written.
#[derive(Debug, Clone)]
pub struct StreamParser {
    format: &'static Format,
    tools: Vec<Tool>,
    /// What has arrived; what lies before `at` is done with.
    buffer: String,
    at: usize,
    /// Up to where the state has searched already.
    scanned: usize,
    state: State,
    /// No text of this section has been seen yet.
    fresh: bool,
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
            buffer: String::new(),
            at: 0,
            scanned: 0,
            state: match start {
                Start::Reasoning => State::Reasoning,
                Start::Content => State::Content,
            },
            fresh: true,
            tails: Default::default(),
            in_block: false,
            calls: 0,
            call: None,
            junk: String::new(),
            dropped: Vec::new(),
            out: Vec::new(),
            incomplete: false,
        }
    }

    /// The same parser, knowing the tools: see [`ParseOptions::tools`](super::ParseOptions::tools).
    pub fn with_tools(mut self, tools: &[Tool]) -> Self {
        self.tools = tools.to_vec();
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
        self.run(true);
        if matches!(self.state, State::Reasoning) || self.in_block || self.call.is_some() {
            self.incomplete = true;
        }
        self.abort();
        self.flush_junk();
        self.state = State::Done;
        std::mem::take(&mut self.out)
    }

    /// Whether the finished text ends in the middle of something: in the reasoning, in a tool block, in a tag.
    pub fn incomplete(&self) -> bool {
        self.incomplete
    }

    /// What is neither in the deltas of complete calls and text nor part of the format, so far.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// Takes what was dropped so far.
    pub fn take_dropped(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dropped)
    }

    fn run(&mut self, last: bool) {
        loop {
            let step = match self.state {
                State::Reasoning | State::Content => self.text(last),
                State::Between => match &self.format.calls {
                    Calls::Dsml(dsml) => self.between(dsml, last),
                    Calls::Tokens(tokens) => self.between_tokens(tokens, last),
                },
                State::Header => match &self.format.calls {
                    Calls::Dsml(dsml) => self.header(dsml, last),
                    Calls::Tokens(tokens) => self.token_header(tokens, last),
                },
                State::Arguments => match &self.format.calls {
                    Calls::Tokens(tokens) => self.token_arguments(tokens, last),
                    Calls::Dsml(_) => Step::Wait,
                },
                State::Body | State::JsonBody | State::Parameter | State::Value => match &self.format.calls {
                    Calls::Dsml(dsml) => self.inside_call(dsml, last),
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
        // What is done with goes, once it is the larger part: each byte is moved a bounded number of times.
        if self.at == self.buffer.len() {
            self.buffer.clear();
        } else if self.at > self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
        } else {
            return;
        }
        self.scanned = self.scanned.saturating_sub(self.at);
        self.at = 0;
    }

    /// The text from `at` on.
    fn rest(&self) -> &str {
        &self.buffer[self.at..]
    }

    /// Reasoning or content.
    fn text(&mut self, last: bool) -> Step {
        if self.fresh && !self.rest().is_empty() {
            let marks = match self.state {
                State::Reasoning => &[self.format.think][..],
                _ => &[self.format.think, self.format.think_end][..],
            };
            let rest = self.rest();
            if let Some(mark) = marks.iter().find(|mark| rest.starts_with(**mark)) {
                let mark = *mark;
                if mark == self.format.think {
                    self.state = State::Reasoning;
                    self.part();
                }
                self.at += mark.len();
                return Step::On;
            }
            if !last && marks.iter().any(|mark| mark.starts_with(rest)) {
                return Step::Wait;
            }
            self.fresh = false;
        }
        let start = self.at;
        let mut from = start;
        while let Some(at) = self.buffer[from..].find(['<', '｜']).map(|at| from + at) {
            match self.marker(at, last) {
                Marker::None => from = at + self.buffer[at..].chars().next().map_or(1, char::len_utf8),
                Marker::Hold => {
                    self.emit_text(self.hold_lines(start, at));
                    return Step::Wait;
                }
                marker => {
                    let text_end = match (&self.format.calls, marker) {
                        (Calls::Dsml(dsml), Marker::Block(_) | Marker::Cut)
                            if self.buffer[start..at].ends_with(dsml.before) =>
                        {
                            at - dsml.before.len()
                        }
                        _ => at,
                    };
                    self.emit_text(text_end);
                    self.at = at;
                    self.pass(marker);
                    return Step::On;
                }
            }
        }
        let end = self.buffer.len();
        self.emit_text(if last { end } else { self.hold_lines(start, end) });
        Step::Wait
    }

    /// Where the text before `end` stops, if line breaks that may belong to a block are held back.
    fn hold_lines(&self, start: usize, end: usize) -> usize {
        let Calls::Dsml(dsml) = &self.format.calls else { return end };
        let breaks = self.buffer[start..end].bytes().rev().take(dsml.before.len()).take_while(|&b| b == b'\n').count();
        end - breaks
    }

    /// Emits the text up to `end`.
    fn emit_text(&mut self, end: usize) {
        let text = self.buffer[self.at..end].to_string();
        self.at = end;
        self.write(text);
    }

    /// Writes text of reasoning or content.
    fn write(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        let content = self.state != State::Reasoning;
        self.tails[usize::from(content)].push(&text);
        emit(&mut self.out, if content { Delta::Content(text) } else { Delta::Reasoning(text) });
    }

    /// Keeps the text before something that was dropped and the text behind it from making up a tag or a control token
    /// together: a space parts them. All text before is written by now, so that how it was split does not matter.
    fn part(&mut self) {
        let mark = match &self.format.calls {
            Calls::Dsml(dsml) => dsml.mark,
            Calls::Tokens(_) => "",
        };
        let words = [mark, self.format.think, self.format.think_end];
        if self.tails[usize::from(self.state != State::Reasoning)].opens_token(&words) {
            self.write(" ".to_string());
        }
    }

    /// What begins at `at` of a text, where there is a `<` or `｜`.
    fn marker(&self, at: usize, last: bool) -> Marker {
        let rest = &self.buffer[at..];
        if rest.starts_with(self.format.eos) {
            return Marker::End;
        }
        let reasoning = self.state == State::Reasoning;
        if reasoning && rest.starts_with(self.format.think_end) {
            return Marker::Thought;
        }
        let found = match &self.format.calls {
            Calls::Dsml(dsml) => dsml::marker(dsml, rest, reasoning, last),
            Calls::Tokens(tokens) => tokens::marker(tokens, rest),
        };
        if found != Marker::None {
            return found;
        }
        let mut partial = |mark: &str| mark.len() > rest.len() && mark.starts_with(rest);
        let marks = [self.format.eos, self.format.think_end];
        let in_calls = match &self.format.calls {
            Calls::Dsml(dsml) => [dsml.open, dsml.close, dsml.mark].into_iter().any(&mut partial),
            Calls::Tokens(tokens) => tokens::all(tokens).into_iter().any(&mut partial),
        };
        let is_partial = in_calls || partial(marks[0]) || (reasoning && partial(marks[1]));
        match (is_partial, last) {
            (false, _) => Marker::None,
            (true, false) => Marker::Hold,
            // The text was cut off within a tag. A `<` or a bar alone may be text.
            (true, true) if rest.starts_with("<｜") || rest.starts_with("</｜") => Marker::Cut,
            (true, true) => Marker::None,
        }
    }

    /// Goes past a marker at `at`.
    fn pass(&mut self, marker: Marker) {
        match marker {
            Marker::End => {
                // A reasoning that is still open was cut off.
                self.incomplete |= self.state == State::Reasoning;
                self.at += self.format.eos.len();
                self.state = State::Done;
            }
            Marker::Thought => {
                self.at += self.format.think_end.len();
                self.state = State::Content;
                self.fresh = true;
            }
            Marker::Block(length) => {
                self.in_block = length > 0;
                self.at += length;
                self.state = State::Between;
            }
            Marker::Drop(length) => {
                self.drop_text(self.at + length);
                self.flush_junk();
                self.part();
            }
            Marker::Cut => {
                self.incomplete = true;
                self.drop_text(self.buffer.len());
            }
            Marker::Hold | Marker::None => {}
        }
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
    fn abort(&mut self) {
        if let Some(call) = self.call.take() {
            self.junk.push_str(&call.raw);
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
        self.advance(end);
        self.scanned = self.at;
        self.state = State::Header;
    }

    /// The call has a name.
    fn name_call(&mut self, name: String) {
        if let Some(call) = &mut self.call {
            call.index = self.calls;
            self.calls += 1;
            call.unwraps = call::unwraps(&self.tools, &name);
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
        }
        self.state = State::Between;
    }
}

/// What begins somewhere in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    /// Text.
    None,
    /// What has arrived does not tell.
    Hold,
    /// The end-of-sentence token.
    End,
    /// The end of the reasoning.
    Thought,
    /// A tool block, whose opening tag has so many bytes; none if it begins with a call.
    Block(usize),
    /// So many bytes of a tag that has no place here.
    Drop(usize),
    /// A tag that the text was cut off in.
    Cut,
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

/// The tag that begins with `prefix`, where `rest` begins.
enum Tag<'a> {
    /// Another text.
    No,
    /// What has arrived does not tell.
    Hold,
    /// A tag of this name; prefix and name have so many bytes.
    Is(&'a str, usize),
}

fn tag<'a>(rest: &'a str, prefix: &str, last: bool) -> Tag<'a> {
    let Some(after) = rest.strip_prefix(prefix) else {
        return if !last && prefix.starts_with(rest) { Tag::Hold } else { Tag::No };
    };
    let length = after.bytes().take(LONGEST_TAG).take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if length == after.len() && !last {
        return Tag::Hold;
    }
    Tag::Is(&after[..length], prefix.len() + length)
}

/// The text behind a tag's `>`, if it has one, and whitespace; `None` if more text is needed to tell.
fn behind_tag(rest: &str, last: bool) -> Option<&str> {
    if rest.is_empty() && !last {
        return None;
    }
    let rest = rest.strip_prefix('>').unwrap_or(rest);
    let after = rest.trim_start();
    let blank = rest.len() - after.len();
    if after.is_empty() && !last && blank < LOOKAHEAD {
        return None;
    }
    // Longer whitespace is text.
    Some(if blank < LOOKAHEAD { after } else { rest })
}
