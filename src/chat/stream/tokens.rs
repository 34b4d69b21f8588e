//! Calls of V3, R1, V3.1 and Kimi-K2, between control tokens.

use super::text::Marker;
use super::{State, Step, StreamParser};
use crate::chat::format::CallTokens;
use crate::chat::json::Json;
use crate::chat::parse::CallProblem;

/// All control tokens of calls.
pub(super) fn all(tokens: &CallTokens) -> [&'static str; 5] {
    [tokens.calls_begin, tokens.calls_end, tokens.call_begin, tokens.call_end, tokens.separator]
}

/// What begins in reasoning or content, where there is a `<`.
pub(super) fn marker(tokens: &CallTokens, rest: &str) -> Marker {
    if rest.starts_with(tokens.calls_begin) {
        Marker::Block(tokens.calls_begin.len())
    } else if rest.starts_with(tokens.call_begin) {
        Marker::Block(0)
    } else {
        let stray = all(tokens).into_iter().find(|token| rest.starts_with(token));
        stray.map_or(Marker::None, |token| Marker::Drop(token.len()))
    }
}

impl StreamParser {
    /// In or behind the calls, outside of any: all text is dropped.
    pub(super) fn between_tokens(&mut self, tokens: &CallTokens, last: bool) -> Step {
        let Some(at) = self.rest().find('<').map(|at| self.at + at) else {
            self.drop_text(self.buffer.len());
            return Step::Wait;
        };
        self.drop_text(at);
        let rest = self.rest();
        if rest.starts_with(self.format.eos) {
            self.flush_junk();
            self.incomplete |= self.in_block;
            self.end_sentence();
        } else if rest.starts_with(tokens.call_begin) {
            self.open_call(at + tokens.call_begin.len());
        } else if rest.starts_with(tokens.calls_end) {
            self.flush_junk();
            self.at += tokens.calls_end.len();
            self.in_block = false;
        } else if rest.starts_with(tokens.calls_begin) {
            self.flush_junk();
            self.at += tokens.calls_begin.len();
            self.in_block = true;
        } else if !last && (all(tokens).iter().any(|mark| mark.starts_with(rest)) || self.format.eos.starts_with(rest))
        {
            return Step::Wait;
        } else {
            self.has_begun |= last && !rest.contains('>');
            self.drop_text(at + 1);
        }
        Step::On
    }

    /// Behind a call's opening: its name, up to where the arguments begin.
    pub(super) fn token_header(&mut self, tokens: &CallTokens, last: bool) -> Step {
        let marks = [tokens.before_arguments, tokens.call_end, tokens.call_begin, tokens.calls_end, self.format.eos];
        match self.find_first(&marks) {
            Found::At(at, 0) => {
                let header = &self.buffer[self.at..at];
                let name = match tokens.kind {
                    None => Some(header),
                    Some(_) => header.split_once(tokens.separator).map(|(_, name)| name),
                };
                let name = name.map(|name| name_in(tokens, name.trim()).to_string());
                self.advance(at + tokens.before_arguments.len());
                self.scanned = self.at;
                match name {
                    Some(name) => self.name_call(name, State::Arguments),
                    None => self.abort(CallProblem::NoName),
                }
                Step::On
            }
            Found::At(at, _) => {
                self.advance(at);
                self.abort(CallProblem::Arguments);
                Step::On
            }
            Found::Hold(at) if !last => {
                self.scanned = at;
                Step::Wait
            }
            Found::Hold(_) | Found::Nowhere => self.wait_or_drop(last),
        }
    }

    /// Inside a call's arguments, which are written as they arrive.
    pub(super) fn token_arguments(&mut self, tokens: &CallTokens, last: bool) -> Step {
        let close = format!("{}{}", tokens.after_arguments, tokens.call_end);
        let marks = [close.as_str(), tokens.call_end, tokens.call_begin, tokens.calls_end, self.format.eos];
        match self.find_first(&marks) {
            Found::At(at, which @ (0 | 1)) => {
                self.write_arguments(at);
                self.advance(at + marks[which].len());
                let Some(call) = &self.call else { return Step::On };
                if call.arguments.trim().is_empty() {
                    self.emit_arguments("{}".to_string());
                    self.end_call();
                } else if Json::is_object_text(&call.arguments) {
                    self.end_call();
                } else {
                    self.abort(CallProblem::Arguments);
                }
                Step::On
            }
            Found::At(at, _) => {
                // As much is written as if the text had stopped here for a while.
                self.write_arguments(at);
                self.abort(CallProblem::NoEnd);
                Step::On
            }
            Found::Hold(at) if last => {
                // The text was cut off within a mark, which is no part of the arguments.
                self.write_arguments(at);
                self.wait_or_drop(last)
            }
            Found::Hold(at) => {
                self.write_arguments(at);
                self.scanned = at;
                Step::Wait
            }
            Found::Nowhere => {
                self.write_arguments(self.buffer.len());
                self.wait_or_drop(last)
            }
        }
    }

    fn write_arguments(&mut self, end: usize) {
        let text = self.buffer[self.at..end].to_string();
        if let Some(call) = &mut self.call {
            call.arguments.push_str(&text);
        }
        self.emit_arguments(text);
        self.advance(end);
    }

    pub(super) fn wait_or_drop(&mut self, last: bool) -> Step {
        if last {
            self.incomplete = true;
            self.advance(self.buffer.len());
            self.abort(CallProblem::CutOff);
        }
        self.scanned = self.buffer.len();
        Step::Wait
    }

    /// The first of the marks behind what has been searched, or where one may begin.
    pub(super) fn find_first(&self, marks: &[&str]) -> Found {
        let mut from = self.scanned.max(self.at);
        while let Some(at) = self.buffer[from..].find(['<', '\n']).map(|at| from + at) {
            let rest = &self.buffer[at..];
            if let Some(which) = marks.iter().position(|mark| rest.starts_with(mark)) {
                return Found::At(at, which);
            }
            if marks.iter().any(|mark| mark.starts_with(rest)) {
                return Found::Hold(at);
            }
            from = at + 1;
        }
        Found::Nowhere
    }
}

/// The name of a tool in what stands in its place, which may be the call's id.
fn name_in<'a>(tokens: &CallTokens, text: &'a str) -> &'a str {
    let Some((before, after)) = tokens.id else { return text };
    let name = text.strip_prefix(before).unwrap_or(text);
    name.rsplit_once(after).map_or(name, |(name, _)| name)
}

/// Where a mark is.
pub(super) enum Found {
    At(usize, usize),
    Hold(usize),
    Nowhere,
}
