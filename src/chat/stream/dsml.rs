//! The inside of a DSML block.

use super::attributes::{attribute, attributes};
use super::tag::{LOOKAHEAD, Tag, behind_tag, tag};
use super::text::Marker;
use super::{State, Step, StreamParser};
use crate::chat::format::Dsml;
use crate::chat::json::Json;
use crate::chat::parse::CallProblem;
use crate::chat::python;

/// The names of DSML's tags.
impl Dsml {
    /// Whether a tag of this name is the block: V3.2's, or what a later version calls it.
    fn is_block(&self, name: &str) -> bool {
        name == &self.block_open[self.open.len()..] || name == "tool_calls"
    }

    fn is_invoke(&self, name: &str) -> bool {
        name == &self.invoke_open[self.open.len()..]
    }

    fn is_parameter(&self, name: &str) -> bool {
        name == &self.parameter_open[self.open.len()..]
    }
}

/// What DSML begins in reasoning or content, where there is a `<` or `｜`.
///
/// A tag that a sentence merely mentions is not a block: the block's tag is followed by a line break or a tag, the
/// call's by an attribute; in the reasoning, where models plan their calls, a call must follow. Tags that are mentioned
/// or stray are dropped.
pub(super) fn marker(dsml: &Dsml, rest: &str, reasoning: bool, last: bool) -> Marker {
    let stray = |length: usize| match rest[length..].starts_with('>') {
        false if length == rest.len() => Marker::Cut,
        closed => Marker::Drop(length + usize::from(closed)),
    };
    match tag(rest, dsml.open, last) {
        Tag::Is(name, length) if dsml.is_block(name) => {
            let after = &rest[length..];
            let block = Marker::Block(length + usize::from(after.starts_with('>')));
            if !reasoning && after.starts_with(">\n") {
                return block;
            }
            let Some(behind) = behind_tag(after, last) else { return Marker::Hold };
            if behind.is_empty() {
                return block;
            }
            match tag(behind, dsml.open, last) {
                Tag::Is(name, _) if dsml.is_invoke(name) || !reasoning => return block,
                Tag::Is(..) => return stray(length),
                // It may still be a tag, or be nothing.
                Tag::Hold => return Marker::Hold,
                Tag::No => {}
            }
            match tag(behind, dsml.close, last) {
                Tag::Is(..) if !reasoning => block,
                Tag::Hold => Marker::Hold,
                _ if last && dsml.open.starts_with(behind) => block,
                _ => stray(length),
            }
        }
        Tag::Is(name, length) if dsml.is_invoke(name) => {
            let after = &rest[length..];
            let attributes = after.trim_start();
            let blank = after.len() - attributes.len();
            if attributes.is_empty() && blank < LOOKAHEAD {
                return if last { Marker::Block(0) } else { Marker::Hold };
            }
            if blank >= LOOKAHEAD || blank == 0 {
                return if !reasoning && after.starts_with('>') { Marker::Block(0) } else { stray(length) };
            }
            // An attribute, not another word.
            match tag(attributes, "", last) {
                Tag::Is(key, length_of_key) if !key.is_empty() => {
                    let value = attributes[length_of_key..].trim_start();
                    match value.is_empty() && attributes.len() - length_of_key < LOOKAHEAD {
                        true if !last => Marker::Hold,
                        cut if cut || value.starts_with('=') => Marker::Block(0),
                        _ => stray(length),
                    }
                }
                Tag::Hold => Marker::Hold,
                _ => stray(length),
            }
        }
        Tag::Is(name, _) if dsml.is_parameter(name) && !reasoning => Marker::Block(0),
        Tag::Is(_, length) => stray(length),
        Tag::Hold if rest.starts_with(dsml.open) => Marker::Hold,
        _ => match tag(rest, dsml.close, last) {
            Tag::Is(_, length) => stray(length),
            Tag::Hold if rest.starts_with(dsml.close) => Marker::Hold,
            _ if rest.starts_with(dsml.mark) => Marker::Drop(dsml.mark.len()),
            _ => Marker::None,
        },
    }
}

/// Whether a closing tag within a value closes it.
#[derive(Debug, PartialEq, Eq)]
enum Closing {
    Yes,
    /// It is part of the value.
    No,
    Hold,
}

/// Whether a parameter's closing tag, `behind` which is this text, closes its value: then a parameter, the call's end,
/// or the end of everything follows. A value may hold tags itself; one that holds the call's end as well is not closed
/// where yet another end follows.
fn closes(dsml: &Dsml, behind: &str, eos: &str, last: bool) -> Closing {
    let Some(behind) = behind_tag(behind, last) else { return Closing::Hold };
    if behind.is_empty() || behind.starts_with(eos) {
        return Closing::Yes;
    }
    match tag(behind, dsml.open, last) {
        Tag::Is(name, _) => {
            return if dsml.is_parameter(name) || dsml.is_invoke(name) { Closing::Yes } else { Closing::No };
        }
        Tag::Hold => return Closing::Hold,
        Tag::No => {}
    }
    match tag(behind, dsml.close, last) {
        Tag::Is(name, length) if dsml.is_invoke(name) => {
            let Some(behind) = behind_tag(&behind[length..], last) else { return Closing::Hold };
            match tag(behind, dsml.close, last) {
                Tag::Is(name, _) if dsml.is_parameter(name) || dsml.is_invoke(name) => Closing::No,
                Tag::Hold if !behind.is_empty() => Closing::Hold,
                _ => Closing::Yes,
            }
        }
        Tag::Is(name, _) if dsml.is_block(name) => Closing::Yes,
        Tag::Hold => Closing::Hold,
        _ if !last && eos.starts_with(behind) => Closing::Hold,
        _ => Closing::No,
    }
}

/// What `closing` says, given whether the text ends here; [`Closing::Hold`] if only what is missing would say that a tag
/// closes something.
fn at_end(last: bool, closing: impl Fn(bool) -> Closing) -> Closing {
    match closing(last) {
        Closing::No if last => closing(false),
        closing => closing,
    }
}

/// Whether a call's closing tag within a value, `behind` which is this text, shows that the value was never closed:
/// another call or the block's end follows.
fn unclosed(dsml: &Dsml, behind: &str, last: bool) -> Closing {
    let Some(behind) = behind_tag(behind, last) else { return Closing::Hold };
    match (tag(behind, dsml.open, last), tag(behind, dsml.close, last)) {
        (Tag::Is(name, _), _) if dsml.is_invoke(name) => Closing::Yes,
        (_, Tag::Is(name, _)) if dsml.is_block(name) => Closing::Yes,
        (Tag::Hold, _) | (_, Tag::Hold) if !behind.is_empty() => Closing::Hold,
        _ => Closing::No,
    }
}

impl StreamParser {
    /// In or behind a block, outside of calls: all text is dropped.
    pub(super) fn between(&mut self, dsml: &Dsml, last: bool) -> Step {
        let Some(at) = self.rest().find('<').map(|at| self.at + at) else {
            self.drop_text(self.buffer.len());
            return Step::Wait;
        };
        self.drop_text(at);
        let rest = self.rest();
        if rest.starts_with(self.format.eos) {
            self.flush_junk();
            // The block's end is missing.
            self.incomplete |= self.in_block;
            self.end_sentence();
            return Step::On;
        }
        let closing = |length: usize| length + usize::from(rest[length..].starts_with('>'));
        match (tag(rest, dsml.open, last), tag(rest, dsml.close, last)) {
            (Tag::Is(name, length), _) if dsml.is_invoke(name) => self.open_call(at + length),
            (Tag::Is(name, length), _) if dsml.is_block(name) => {
                self.at = at + closing(length);
                self.in_block = true;
                self.flush_junk();
            }
            (_, Tag::Is(name, length)) if dsml.is_block(name) => {
                self.at = at + closing(length);
                self.in_block = false;
                self.flush_junk();
            }
            (Tag::Hold, _) | (_, Tag::Hold) => return Step::Wait,
            _ if !last && self.format.eos.starts_with(rest) => return Step::Wait,
            _ => {
                self.has_begun |= last && !rest.contains('>');
                self.drop_text(at + 1);
            }
        }
        Step::On
    }

    /// Behind the opening of a call: its name, up to a `>` behind a quote which a tag, JSON or the end follows.
    pub(super) fn header(&mut self, dsml: &Dsml, last: bool) -> Step {
        let mut from = self.scanned.max(self.at);
        while let Some(at) = self.buffer[from..].find(['<', '>']).map(|at| from + at) {
            let (before, rest) = (&self.buffer[self.at..at], &self.buffer[at..]);
            if rest.starts_with('<') {
                match self.starts_tag(dsml, rest, last) {
                    Closing::No => {}
                    Closing::Hold => return self.wait(at),
                    Closing::Yes => {
                        let problem = if rest.starts_with(self.format.eos) {
                            CallProblem::CutOff
                        } else if before.contains("\">") || before.contains("'>") {
                            // The tag ended, and what follows it is no tag of the block.
                            CallProblem::Body
                        } else {
                            CallProblem::NoName
                        };
                        self.advance(at);
                        self.abort(problem);
                        return Step::On;
                    }
                }
            } else {
                let attributes = before.strip_suffix('/').unwrap_or(before);
                if attributes.trim_end().ends_with(['"', '\'']) {
                    let Some(behind) = behind_tag(rest, last) else { return self.wait(at) };
                    match self.starts_tag(dsml, behind, last) {
                        Closing::No if behind.is_empty() || behind.starts_with('{') => {
                            return self.named(at, attributes.len() < before.len());
                        }
                        Closing::No => {}
                        Closing::Hold => return self.wait(at),
                        Closing::Yes => return self.named(at, attributes.len() < before.len()),
                    }
                }
            }
            from = at + 1;
        }
        self.wait_or_abort(last)
    }

    /// Whether a tag of the block or the end of the text begins here.
    fn starts_tag(&self, dsml: &Dsml, rest: &str, last: bool) -> Closing {
        let marks = [dsml.open, dsml.close, self.format.eos];
        if marks.iter().any(|mark| rest.starts_with(mark)) {
            Closing::Yes
        } else if !last && marks.iter().any(|mark| mark.starts_with(rest)) {
            Closing::Hold
        } else {
            Closing::No
        }
    }

    /// Waits for more text, to look at it from `at` on.
    fn wait(&mut self, at: usize) -> Step {
        self.scanned = at;
        Step::Wait
    }

    /// All that arrived has been looked at without finding the end of something.
    fn wait_or_abort(&mut self, last: bool) -> Step {
        if last {
            self.incomplete = true;
            self.advance(self.buffer.len());
            self.abort(CallProblem::CutOff);
        }
        self.wait(self.buffer.len())
    }

    /// The call's opening tag ends at `at`.
    fn named(&mut self, at: usize, self_closing: bool) -> Step {
        let header = &self.buffer[self.at..at];
        let header = if self_closing { &header[..header.len() - 1] } else { header };
        // A name may hold anything, quotes too; it is not the name of a tool if only a part of it is.
        let whole = header.trim_start().strip_prefix("name=\"").and_then(|rest| rest.trim_end().strip_suffix('"'));
        let attributes = attributes(header);
        let part = attributes.as_ref().and_then(|attributes| attribute(attributes, "name"));
        let known = |name: &str| self.tools.iter().any(|tool| tool.name() == name);
        let name = match (whole, part) {
            (Some(whole), Some(part)) if !known(whole) && known(part) => Some(part),
            (whole, part) => whole.or(part),
        };
        let name = name.map(str::to_string);
        self.advance(at + 1);
        match name {
            Some(name) => {
                self.name_call(name, State::Body);
                if self_closing && self.call.is_some() {
                    self.close_call();
                }
            }
            None => self.abort(CallProblem::NoName),
        }
        Step::On
    }

    pub(super) fn inside_call(&mut self, dsml: &Dsml, last: bool) -> Step {
        match self.state {
            State::JsonBody => self.json_body(dsml, last),
            State::Parameter => self.parameter(dsml, last),
            State::Value => self.value(dsml, last),
            _ => self.body(dsml, last),
        }
    }

    /// Inside a call, between parameters.
    fn body(&mut self, dsml: &Dsml, last: bool) -> Step {
        self.advance(self.buffer.len() - self.rest().trim_start().len());
        let rest = self.rest();
        let at = self.at;
        if rest.is_empty() {
            return self.wait_or_abort(last);
        }
        let closing = |length: usize| length + usize::from(rest[length..].starts_with('>'));
        match (tag(rest, dsml.open, last), tag(rest, dsml.close, last)) {
            (Tag::Is(name, length), _) if dsml.is_parameter(name) => {
                self.advance(at + length);
                self.scanned = self.at;
                self.state = State::Parameter;
            }
            (_, Tag::Is(name, length)) if dsml.is_invoke(name) => {
                let end = at + closing(length);
                self.advance(end);
                self.close_call();
            }
            (Tag::Hold, _) | (_, Tag::Hold) => return Step::Wait,
            _ if rest.starts_with('{') && self.call.as_ref().is_some_and(|call| call.is_bare()) => {
                self.scanned = at;
                self.state = State::JsonBody;
            }
            _ if rest.starts_with(self.format.eos) => self.abort(CallProblem::CutOff),
            _ if !last && self.format.eos.starts_with(rest) => return Step::Wait,
            // It may have become a tag.
            _ if last && !rest.contains('>') => return self.wait_or_abort(last),
            _ => self.abort(CallProblem::Body),
        }
        Step::On
    }

    pub(super) fn close_call(&mut self) {
        if let Some(call) = &mut self.call {
            let fragment = call.close();
            self.emit_arguments(fragment);
        }
        self.end_call();
    }

    /// A call's body that is one JSON object.
    fn json_body(&mut self, dsml: &Dsml, last: bool) -> Step {
        let mut from = self.scanned.max(self.at);
        while let Some(at) = self.buffer[from..].find('<').map(|at| from + at) {
            match tag(&self.buffer[at..], dsml.close, last) {
                Tag::Hold => return self.wait(at),
                Tag::Is(name, length) if dsml.is_invoke(name) => {
                    let text = self.buffer[self.at..at].trim().to_string();
                    let object = Json::is_object_text(&text);
                    let end = at + length;
                    self.advance(end + usize::from(self.buffer[end..].starts_with('>')));
                    if object {
                        self.emit_arguments(text);
                        self.end_call();
                    } else {
                        self.abort(CallProblem::Arguments);
                    }
                    return Step::On;
                }
                _ => from = at + 1,
            }
        }
        self.wait_or_abort(last)
    }

    /// Behind the opening of a parameter: its attributes, up to a `>` behind a quote.
    fn parameter(&mut self, dsml: &Dsml, last: bool) -> Step {
        let mut from = self.scanned.max(self.at);
        while let Some(at) = self.buffer[from..].find(['<', '>']).map(|at| from + at) {
            let (header, rest) = (&self.buffer[self.at..at], &self.buffer[at..]);
            if rest.starts_with('<') {
                match self.starts_tag(dsml, rest, last) {
                    Closing::No => {}
                    Closing::Hold => return self.wait(at),
                    Closing::Yes => {
                        let ends = rest.starts_with(self.format.eos);
                        self.advance(at);
                        self.abort(if ends { CallProblem::CutOff } else { CallProblem::Parameter });
                        return Step::On;
                    }
                }
            } else if header.ends_with(['"', '\''])
                && let Some((key, is_string)) = parameter_header(header)
            {
                let (key, header) = (key.to_string(), format!("{header}>"));
                self.advance(at + 1);
                self.scanned = self.at;
                self.state = State::Value;
                let opened = self.call.as_mut().and_then(|call| call.begin(&key, is_string, header));
                match opened {
                    Some(fragment) => self.emit_arguments(fragment),
                    None => self.abort(CallProblem::Repeated),
                }
                return Step::On;
            }
            from = at + 1;
        }
        self.wait_or_abort(last)
    }

    /// Inside a parameter's value.
    fn value(&mut self, dsml: &Dsml, last: bool) -> Step {
        let broken = broken_close(dsml);
        let mut from = self.scanned.max(self.at);
        while let Some(at) = self.buffer[from..].find('<').map(|at| from + at) {
            let rest = &self.buffer[at..];
            let close = [dsml.parameter_close, &broken].into_iter().find(|close| rest.starts_with(close));
            let ends = if let Some(close) = close {
                let behind = &rest[close.len()..];
                match at_end(last, |last| closes(dsml, behind, self.format.eos, last)) {
                    Closing::Yes => {
                        let end = at + close.len();
                        let end = end + usize::from(self.buffer[end..].starts_with('>'));
                        return self.end_value(at, end);
                    }
                    other => other,
                }
            } else if let Some(behind) = rest.strip_prefix(dsml.invoke_close) {
                at_end(last, |last| unclosed(dsml, behind, last))
            } else {
                let partial = |mark: &str| mark.starts_with(rest);
                let hold = partial(dsml.parameter_close) || partial(dsml.invoke_close) || partial(&broken);
                if hold { Closing::Hold } else { Closing::No }
            };
            match ends {
                Closing::Yes => {
                    // As much is written as if the text had stopped here for a while.
                    self.stream_value(at);
                    self.advance(at);
                    self.abort(CallProblem::Unclosed);
                    return Step::On;
                }
                Closing::Hold if last => {
                    // The text was cut off within tags, which are no part of the value.
                    self.stream_value(at);
                    return self.wait_or_abort(last);
                }
                Closing::Hold => {
                    self.stream_value(at);
                    return self.wait(at);
                }
                Closing::No => from = at + 1,
            }
        }
        self.stream_value(self.buffer.len());
        self.wait_or_abort(last)
    }

    /// Writes the value up to `end`, if it is one that streams.
    pub(super) fn stream_value(&mut self, end: usize) {
        let streams = |call: &super::Call| call.parameter.as_ref().is_some_and(|parameter| parameter.streams);
        if self.call.as_ref().is_some_and(streams) {
            let mut fragment = String::new();
            python::escape(&self.buffer[self.at..end], &mut fragment);
            self.emit_arguments(fragment);
            self.advance(end);
        }
    }

    /// The value ends at `at`, its closing tag at `end`.
    pub(super) fn end_value(&mut self, at: usize, end: usize) -> Step {
        self.stream_value(at);
        let value = &self.buffer[self.at..at];
        let fragment = self.call.as_mut().and_then(|call| match &call.parameter {
            Some(parameter) if parameter.streams => Some(call.end_streamed()),
            _ => call.end_buffered(value),
        });
        self.advance(end);
        self.state = State::Body;
        match fragment {
            Some(fragment) => self.emit_arguments(fragment),
            None => self.abort(CallProblem::Repeated),
        }
        Step::On
    }
}

/// A closing tag with a line break behind its `<`, which the published parser takes for one.
fn broken_close(dsml: &Dsml) -> String {
    format!("<\n{}", &dsml.parameter_close[1..])
}

/// Name and kind of a parameter from its attributes; the kind is `None` where `string` is neither true nor false.
fn parameter_header(header: &str) -> Option<(&str, Option<bool>)> {
    for (suffix, is_string) in [("\" string=\"true\"", true), ("\" string=\"false\"", false)] {
        if let Some(key) = header.strip_prefix(" name=\"").and_then(|rest| rest.strip_suffix(suffix)) {
            return Some((key, Some(is_string)));
        }
    }
    let attributes = attributes(header)?;
    let is_string = attribute(&attributes, "string").and_then(|value| value.to_ascii_lowercase().parse().ok());
    Some((attribute(&attributes, "name")?, is_string))
}
