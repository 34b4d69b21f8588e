//! Reasoning and content, and what begins in them.

use super::tag::{LOOKAHEAD, Wrapper, wrapper};
use super::{State, Step, StreamParser, dsml, elements, emit, tokens};
use crate::chat::delta::Delta;
use crate::chat::format::{BAR, Calls, Dsml};
use crate::chat::parse::CallProblem;

/// What begins somewhere in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
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
    /// So many bytes of a misspelt tag and blanks before a block or call.
    Wrapper(usize),
    /// So many bytes of a tag that has no place here.
    Drop(usize),
    /// A tag that the text was cut off in.
    Cut,
}

impl StreamParser {
    /// Reasoning or content.
    pub(super) fn text(&mut self, last: bool) -> Step {
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
                self.pass_mark(mark.len());
                return Step::On;
            }
            if !last && marks.iter().any(|mark| mark.starts_with(rest)) {
                return Step::Wait;
            }
            self.fresh = false;
        }
        let start = self.at;
        let mut from = start;
        while let Some(at) = self.buffer[from..].find(['<', BAR]).map(|at| from + at) {
            match self.marker(at, last) {
                Marker::None => from = at + self.buffer[at..].chars().next().map_or(1, char::len_utf8),
                Marker::Hold => {
                    self.emit_text(self.hold_lines(start, at));
                    return Step::Wait;
                }
                marker => {
                    let begins_call = matches!(marker, Marker::Block(_) | Marker::Wrapper(_) | Marker::Cut);
                    let text_end = match &self.format.calls {
                        Calls::Dsml(dsml) if begins_call => at - breaks_before_block(dsml, &self.buffer[start..at]),
                        _ => at,
                    };
                    self.emit_text(text_end);
                    if begins_call {
                        self.begin_raw(text_end, false);
                    }
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

    /// The text was cut off in reasoning or content: what was held back may be markup, and is then no part of it.
    pub(super) fn cut_text(&mut self) {
        let in_tag = match &self.format.calls {
            Calls::Dsml(dsml) => self.rest().trim_start().starts_with(dsml.open),
            // Each token arrives whole.
            Calls::Tokens(_) | Calls::Elements(_) => false,
        };
        // At the beginning, a think mark may be held back.
        if self.may_call || self.state == State::Reasoning || self.fresh {
            if in_tag && self.may_call {
                self.incomplete = true;
                self.has_begun = true;
                self.call_problem.get_or_insert(CallProblem::CutOff);
                self.drop_text(self.buffer.len());
            }
            self.at = self.buffer.len();
        } else {
            self.emit_text(self.buffer.len());
        }
    }

    /// Where the text before `end` stops, if line breaks that may belong to a block are held back.
    fn hold_lines(&self, start: usize, end: usize) -> usize {
        let Calls::Dsml(dsml) = &self.format.calls else { return end };
        if !self.may_call {
            return end;
        }
        let text = &self.buffer[start..end];
        // It may become a line break.
        let whole = text.strip_suffix('\r').unwrap_or(text);
        start + line_breaks(whole, dsml.before.len())
    }

    /// Emits the text up to `end`.
    fn emit_text(&mut self, end: usize) {
        let text = self.buffer[self.at..end].to_string();
        self.at = end;
        self.write(text);
    }

    /// Writes text of reasoning or content.
    fn write(&mut self, mut text: String) {
        if text.is_empty() {
            return;
        }
        let is_blank = text.trim().is_empty();
        if self.raw.is_some() {
            // There was nothing but stray tags and blanks.
            if is_blank {
                return self.held.push_str(&text);
            }
            self.raw = None;
            text.insert_str(0, &std::mem::take(&mut self.held));
        }
        self.blank &= is_blank;
        self.tell(text);
    }

    fn tell(&mut self, text: String) {
        let content = self.state != State::Reasoning;
        self.tails[usize::from(content)].push(&text);
        emit(&mut self.out, if content { Delta::Content(text) } else { Delta::Reasoning(text) });
    }

    /// Keeps the text before something that was dropped and the text behind it from making up a tag or a control token
    /// together: a space parts them. All text before is written by now, so that how it was split does not matter.
    fn part(&mut self) {
        let mut words = vec![self.format.think, self.format.think_end];
        match &self.format.calls {
            Calls::Dsml(dsml) => words.push(dsml.mark),
            Calls::Elements(elements) => words.extend(elements::all(elements)),
            Calls::Tokens(_) => {}
        }
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
        if self.may_call {
            let found = self.call_marker(rest, reasoning, last);
            let wrapper = match found {
                Marker::None | Marker::Drop(_) => self.wrapper(rest, reasoning, last),
                _ => Marker::None,
            };
            match (found, wrapper) {
                (Marker::None, Marker::None) => {}
                (found, Marker::None) => return found,
                (_, wrapper) => return wrapper,
            }
        }
        let mut partial = |mark: &str| mark.len() > rest.len() && mark.starts_with(rest);
        let in_calls = self.may_call
            && match &self.format.calls {
                Calls::Dsml(dsml) => [dsml.open, dsml.close, dsml.mark].into_iter().any(&mut partial),
                Calls::Tokens(tokens) => tokens::all(tokens).into_iter().any(&mut partial),
                Calls::Elements(elements) => elements::all(elements).into_iter().any(&mut partial),
            };
        let is_partial = in_calls || partial(self.format.eos) || (reasoning && partial(self.format.think_end));
        match (is_partial, last) {
            (false, _) => Marker::None,
            (true, false) => Marker::Hold,
            // The text was cut off within a tag. A `<` or a bar alone may be text.
            (true, true) if in_calls && rest.starts_with('<') && rest.contains(BAR) => Marker::Cut,
            (true, true) => Marker::None,
        }
    }

    /// What of a call or block begins where `rest` does.
    fn call_marker(&self, rest: &str, reasoning: bool, last: bool) -> Marker {
        match &self.format.calls {
            Calls::Dsml(dsml) => dsml::marker(dsml, rest, reasoning, last),
            Calls::Tokens(tokens) => tokens::marker(tokens, rest),
            Calls::Elements(elements) => elements::marker(elements, rest),
        }
    }

    /// Whether a misspelt tag around calls begins where `rest` does, or what is left over of one: a block or a call must
    /// follow it.
    fn wrapper(&self, rest: &str, reasoning: bool, last: bool) -> Marker {
        let wrapper = self.misspelt(rest, reasoning, last);
        if wrapper != Marker::None {
            return wrapper;
        }
        // A bracket before a misspelt tag.
        let Some(after) = rest.strip_prefix('<') else { return Marker::None };
        let behind = after.trim_start_matches(['/', '|', BAR]).trim_start();
        let left_over = rest.len() - behind.len();
        if left_over >= LOOKAHEAD {
            return Marker::None;
        }
        if behind.is_empty() {
            return if last { Marker::None } else { Marker::Hold };
        }
        if !behind.starts_with(['<', BAR]) {
            return Marker::None;
        }
        match self.call_marker(behind, reasoning, last) {
            // Before a tag that is right, it is text.
            Marker::Block(_) => Marker::None,
            Marker::Hold => Marker::Hold,
            _ => match self.misspelt(behind, reasoning, last) {
                Marker::Wrapper(length) => Marker::Wrapper(left_over + length),
                other => other,
            },
        }
    }

    /// Whether a misspelt tag begins where `rest` does, and a block or a call follows it.
    fn misspelt(&self, rest: &str, reasoning: bool, last: bool) -> Marker {
        let length = match wrapper(rest, last) {
            Wrapper::No => return Marker::None,
            Wrapper::Hold => return Marker::Hold,
            Wrapper::Is(length) => length,
        };
        let behind = rest[length..].trim_start();
        let blank = rest.len() - length - behind.len();
        if blank >= LOOKAHEAD {
            return Marker::None;
        }
        let holds = behind.is_empty() || self.call_openers().into_iter().any(|mark| mark.starts_with(behind));
        match self.call_marker(behind, reasoning, last) {
            Marker::Block(_) => Marker::Wrapper(length + blank),
            Marker::Hold => Marker::Hold,
            _ if holds && !last => Marker::Hold,
            _ => Marker::None,
        }
    }

    /// What a block or a call begins with.
    fn call_openers(&self) -> [&'static str; 2] {
        match &self.format.calls {
            Calls::Dsml(dsml) => [dsml.block_open, dsml.invoke_open],
            Calls::Tokens(tokens) => [tokens.calls_begin, tokens.call_begin],
            Calls::Elements(elements) => [elements.call_begin; 2],
        }
    }

    /// Goes past a marker at `at`.
    fn pass(&mut self, marker: Marker) {
        match marker {
            Marker::End => {
                // A reasoning that is still open was cut off.
                self.incomplete |= self.state == State::Reasoning;
                self.end_sentence();
            }
            Marker::Thought => {
                let held = std::mem::take(&mut self.held);
                if !held.is_empty() {
                    self.tell(held);
                }
                self.pass_mark(self.format.think_end.len());
                self.state = State::Content;
                self.fresh = true;
            }
            Marker::Block(length) => {
                self.in_block = length > 0;
                self.at += length;
                self.state = State::Between;
            }
            Marker::Wrapper(length) => {
                self.drop_text(self.at + length);
                self.state = State::Between;
            }
            Marker::Drop(length) => {
                if self.blank {
                    self.begin_raw(self.at, true);
                }
                self.drop_text(self.at + length);
                self.flush_junk();
                self.part();
            }
            Marker::Cut => {
                self.incomplete = true;
                self.has_begun = true;
                self.drop_text(self.buffer.len());
            }
            Marker::Hold | Marker::None => {}
        }
    }
}

/// Where the last line breaks of a text begin, at most `most` of them, CRLF among them.
fn line_breaks(text: &str, most: usize) -> usize {
    let mut rest = text;
    for _ in 0..most {
        let Some(before) = rest.strip_suffix('\n') else { break };
        rest = before.strip_suffix('\r').unwrap_or(before);
    }
    rest.len()
}

/// How many bytes at the end of a text belong to the block behind it: the format's line breaks, or as many where the last
/// is CRLF, which the format never has there.
fn breaks_before_block(dsml: &Dsml, text: &str) -> usize {
    if text.ends_with(dsml.before) {
        dsml.before.len()
    } else if text.ends_with("\r\n") {
        text.len() - line_breaks(text, dsml.before.len())
    } else {
        0
    }
}
