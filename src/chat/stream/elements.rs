//! Calls of GLM-5, in elements: the name of the tool, then keys and values in turn.

use super::tag::LOOKAHEAD;
use super::text::Marker;
use super::tokens::Found;
use super::{State, Step, StreamParser};
use crate::chat::format::CallElements;
use crate::chat::json::Json;
use crate::chat::parse::CallProblem;

/// All tags of calls.
pub(super) fn all(elements: &CallElements) -> [&'static str; 6] {
    let CallElements { call_begin, call_end, key_begin, key_end, value_begin, value_end, .. } = elements;
    [call_begin, call_end, key_begin, key_end, value_begin, value_end]
}

/// What begins in reasoning or content, where there is a `<`.
pub(super) fn marker(elements: &CallElements, rest: &str) -> Marker {
    if rest.starts_with(elements.call_begin) {
        return Marker::Block(0);
    }
    let stray = all(elements).into_iter().find(|tag| rest.starts_with(tag));
    stray.map_or(Marker::None, |tag| Marker::Drop(tag.len()))
}

impl StreamParser {
    /// Behind a call: all text is dropped.
    pub(super) fn between_elements(&mut self, elements: &CallElements, last: bool) -> Step {
        let Some(at) = self.rest().find('<').map(|at| self.at + at) else {
            self.drop_text(self.buffer.len());
            return Step::Wait;
        };
        self.drop_text(at);
        let rest = self.rest();
        if rest.starts_with(self.format.eos) {
            self.flush_junk();
            self.end_sentence();
        } else if rest.starts_with(elements.call_begin) {
            self.open_call(at + elements.call_begin.len());
        } else if !last && [elements.call_begin, self.format.eos].iter().any(|mark| mark.starts_with(rest)) {
            return Step::Wait;
        } else {
            self.has_begun |= last && elements.call_begin.starts_with(rest);
            self.drop_text(at + 1);
        }
        Step::On
    }

    /// Behind a call's opening: its name, up to a key or the call's end.
    pub(super) fn element_header(&mut self, elements: &CallElements, last: bool) -> Step {
        let marks = [elements.key_begin, elements.call_end, elements.call_begin, self.format.eos];
        match self.find_first(&marks) {
            Found::At(at, which) => {
                let name = self.buffer[self.at..at].trim().to_string();
                self.advance(at);
                self.scanned = at;
                match which {
                    0 | 1 if name.is_empty() => self.abort(CallProblem::NoName),
                    0 | 1 => self.name_call(name, State::Body),
                    2 => self.abort(CallProblem::NoEnd),
                    _ => self.abort(CallProblem::CutOff),
                }
                Step::On
            }
            Found::Hold(at) if !last => {
                self.scanned = at;
                Step::Wait
            }
            Found::Hold(_) | Found::Nowhere => self.wait_or_drop(last),
        }
    }

    pub(super) fn inside_element(&mut self, elements: &CallElements, last: bool) -> Step {
        match self.state {
            State::Parameter => self.element_key(elements, last),
            State::Value => self.element_value(elements, last),
            _ => self.element_body(elements, last),
        }
    }

    /// Inside a call, between values.
    fn element_body(&mut self, elements: &CallElements, last: bool) -> Step {
        self.advance(self.buffer.len() - self.rest().trim_start().len());
        let (at, rest) = (self.at, self.rest());
        let marks = [elements.key_begin, elements.call_end, elements.call_begin, self.format.eos];
        match marks.iter().position(|mark| rest.starts_with(mark)) {
            Some(0) => {
                self.advance(at + elements.key_begin.len());
                self.scanned = self.at;
                self.state = State::Parameter;
            }
            Some(1) => {
                self.advance(at + elements.call_end.len());
                self.close_call();
            }
            Some(2) => self.abort(CallProblem::NoEnd),
            Some(_) => self.abort(CallProblem::CutOff),
            // Of nothing, each may come.
            None if marks.iter().any(|mark| mark.starts_with(rest)) => return self.wait_or_drop(last),
            None => self.abort(CallProblem::Body),
        }
        Step::On
    }

    /// Behind the opening of a key, up to that of its value.
    fn element_key(&mut self, elements: &CallElements, last: bool) -> Step {
        let CallElements { key_end, value_begin, value_end, call_end, call_begin, .. } = elements;
        match self.find_first(&[key_end, value_begin, value_end, call_end, call_begin, self.format.eos]) {
            Found::At(at, 0) => {
                let behind = &self.buffer[at + key_end.len()..];
                let value = behind.trim_start();
                let blank = behind.len() - value.len();
                if blank < LOOKAHEAD && value_begin.starts_with(value) && value.len() < value_begin.len() && !last {
                    self.scanned = at;
                    return Step::Wait;
                }
                let key = self.buffer[self.at..at].trim().to_string();
                let begins = blank < LOOKAHEAD && value.starts_with(value_begin);
                let end = at + key_end.len() + blank + value_begin.len();
                if !begins {
                    let is_cut = value_begin.starts_with(value);
                    self.advance(at);
                    self.abort(if is_cut { CallProblem::CutOff } else { CallProblem::Parameter });
                    return Step::On;
                }
                self.advance(end);
                self.scanned = self.at;
                self.state = State::Value;
                let is_text = self.kinds_of(&key).is_some_and(|kinds| kinds.iter().all(|kind| *kind == "string"));
                match self.call.as_mut().and_then(|call| call.begin(&key, Some(is_text), String::new())) {
                    Some(fragment) => self.emit_arguments(fragment),
                    None => self.abort(CallProblem::Repeated),
                }
                Step::On
            }
            Found::At(at, which) => {
                self.advance(at);
                self.abort(if which == 5 { CallProblem::CutOff } else { CallProblem::Parameter });
                Step::On
            }
            Found::Hold(at) if !last => {
                self.scanned = at;
                Step::Wait
            }
            Found::Hold(_) | Found::Nowhere => self.wait_or_drop(last),
        }
    }

    /// Inside a value, which may hold anything but its end. One that must be text is written as it arrives.
    fn element_value(&mut self, elements: &CallElements, last: bool) -> Step {
        match self.find_first(&[elements.value_end, self.format.eos]) {
            Found::At(at, 0) => {
                let value = &self.buffer[self.at..at];
                let key = self.call.as_ref().and_then(|call| call.parameter.as_ref()).map(|parameter| &parameter.key);
                let kinds = key.and_then(|key| self.kinds_of(key));
                let is_text =
                    kinds.is_some_and(|kinds| !Json::parse_nested(value).is_ok_and(|json| fits(&json, &kinds)));
                if let Some(parameter) = self.call.as_mut().and_then(|call| call.parameter.as_mut())
                    && is_text
                {
                    parameter.is_string = Some(true);
                }
                let step = self.end_value(at, at + elements.value_end.len());
                self.scanned = self.at;
                step
            }
            Found::At(at, _) => {
                self.stream_value(at);
                self.advance(at);
                self.abort(CallProblem::CutOff);
                Step::On
            }
            Found::Hold(at) => {
                self.stream_value(at);
                if last {
                    return self.wait_or_drop(last);
                }
                self.scanned = at;
                Step::Wait
            }
            Found::Nowhere => {
                self.stream_value(self.buffer.len());
                self.wait_or_drop(last)
            }
        }
    }

    /// What the schema of the called tool says of the kinds of a parameter; `None` if it does not.
    fn kinds_of(&self, key: &str) -> Option<Vec<&str>> {
        let name = &self.call.as_ref()?.name;
        let tool = self.tools.iter().find(|tool| tool.name() == name)?;
        let schema = tool.parameters().and_then(|schema| schema.get("properties")?.get(key))?;
        let mut found = Vec::new();
        kinds(schema, &mut found).then_some(found)
    }
}

/// Adds the kinds of values that a schema names; `false` if it allows others.
fn kinds<'a>(schema: &'a Json, found: &mut Vec<&'a str>) -> bool {
    for choices in ["anyOf", "oneOf"] {
        if let Some(Json::Array(choices)) = schema.get(choices) {
            return choices.iter().all(|choice| kinds(choice, found));
        }
    }
    match schema.get("type") {
        Some(Json::String(kind)) => found.push(kind),
        Some(Json::Array(list)) => found.extend(list.iter().filter_map(Json::as_str)),
        _ => return false,
    }
    true
}

/// Whether a value is of one of these kinds.
fn fits(json: &Json, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| match json {
        Json::Null => *kind == "null",
        Json::Bool(_) => *kind == "boolean",
        Json::Number(_) => matches!(*kind, "number" | "integer"),
        // A text in quotes is a text with quotes.
        Json::String(_) => false,
        Json::Array(_) => *kind == "array",
        Json::Object(_) => *kind == "object",
    })
}
