//! The published parser's grammar.
//!
//! It cuts the text at the first of a few markers and demands that what lies between has one exact form. What follows
//! describes those forms; the peculiar ones (a name is followed by one or two line breaks, a value's closing tag may be
//! broken after its `<`, a text that stops right after some markers counts as complete) are the published parser's.

use super::{ParseOptions, Parsed, Start, arguments_from_dsml, tolerant};
use crate::chat::error::ChatError;
use crate::chat::format::{Calls, Dsml, Format};
use crate::chat::message::{Message, ToolCall};

type Result<T> = std::result::Result<T, ChatError>;

pub(super) fn parse(text: &str, options: &ParseOptions) -> Result<Parsed> {
    let format = options.version.format();
    let message = match &format.calls {
        Calls::Dsml(dsml) => Cursor { text, at: 0 }.message(format, dsml, options.start)?,
        Calls::Tokens(_) | Calls::Elements(_) => {
            let plain = ParseOptions { tools: None, ..options.clone() };
            let parsed = tolerant(text, &plain);
            if parsed.incomplete || !parsed.dropped.is_empty() {
                return Err(expected("calls and text as the format writes them", text.len()));
            }
            if !text.ends_with(format.eos) {
                return Err(expected("the end-of-sentence token", text.len()));
            }
            parsed.message
        }
    };
    Ok(Parsed { message, incomplete: false, dropped: Vec::new(), call_problem: None, unread: None })
}

fn expected(expected: &'static str, at: usize) -> ChatError {
    ChatError::Completion { at, expected }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The text up to the first of the markers, and which one it is; the cursor goes behind it, or to the end.
    fn until<const N: usize>(&mut self, markers: [&str; N]) -> (&'a str, Option<usize>) {
        let rest = &self.text[self.at..];
        let starts = markers.map(|marker| marker.chars().next());
        let mut from = 0;
        while let Some(at) = rest[from..].find(|c| starts.contains(&Some(c))).map(|at| from + at) {
            if let Some(i) = markers.iter().position(|marker| rest[at..].starts_with(marker)) {
                self.at += at + markers[i].len();
                return (&rest[..at], Some(i));
            }
            from = at + 1;
        }
        self.at = self.text.len();
        (rest, None)
    }

    fn message(mut self, format: &Format, dsml: &Dsml, start: Start) -> Result<Message> {
        let block = format!("{}{}", dsml.before, dsml.block_open);
        let mut reasoning = "";
        if start == Start::Reasoning {
            let (text, marker) = self.until([format.think_end, &block]);
            if marker != Some(0) {
                return Err(expected("the end of the reasoning", self.at));
            }
            reasoning = text;
        }
        let content_at = self.at;
        let (content, marker) = self.until([format.eos, &block]);
        let mut calls = Vec::new();
        match marker {
            Some(0) => {}
            Some(_) => {
                calls = self.calls(dsml)?;
                let after = self.at;
                if !self.until([format.eos]).0.is_empty() {
                    return Err(expected("nothing between the tool block and the end", after));
                }
            }
            None => return Err(expected("the end-of-sentence token or a tool block", self.at)),
        }
        if self.at < self.text.len() {
            return Err(expected("nothing after the end-of-sentence token", self.at));
        }
        for token in [format.bos, format.eos, format.think, format.think_end, dsml.mark] {
            if let Some(at) = reasoning.find(token) {
                return Err(expected("no control token in the reasoning", at));
            }
            if let Some(at) = content.find(token) {
                return Err(expected("no control token in the content", content_at + at));
            }
        }
        let mut message = Message::assistant(content);
        message.reasoning_content = Some(reasoning.to_string()).filter(|text| !text.is_empty());
        message.tool_calls = calls;
        Ok(message)
    }

    /// The calls behind the block's opening tag.
    fn calls(&mut self, dsml: &Dsml) -> Result<Vec<ToolCall>> {
        let close = format!("{}>", dsml.block_close);
        let mut calls = Vec::new();
        while self.at < self.text.len() {
            let at = self.at;
            let (between, marker) = self.until([dsml.invoke_open, &close]);
            if between != ">\n" {
                return Err(expected("`>`, a line break and a call or the block's end", at));
            }
            match marker {
                Some(0) => calls.push(self.call(dsml)?),
                Some(_) => break,
                None => return Err(expected("a call or the block's end", self.at)),
            }
        }
        Ok(calls)
    }

    /// A call behind its opening tag.
    fn call(&mut self, dsml: &Dsml) -> Result<ToolCall> {
        let at = self.at;
        let (header, mut marker) = self.until([dsml.parameter_open, dsml.invoke_close]);
        let name = tool_name(header).ok_or(expected("` name=\"…\">` and a line break", at))?;
        // What a parameter's closing tag has behind its `<`.
        let close = &dsml.parameter_close[1..];
        let mut parameters: Vec<(&str, &str, bool)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while marker == Some(0) {
            let at = self.at;
            let (segment, _) = self.until([close]);
            let parameter = parameter(segment).ok_or(expected("a parameter", at))?;
            if !keys.insert(parameter.0) {
                return Err(expected("a parameter that the call does not have yet", at));
            }
            parameters.push(parameter);
            let at = self.at;
            let (between, next) = self.until([dsml.parameter_open, dsml.invoke_close]);
            if between != ">\n" {
                return Err(expected("`>`, a line break and a parameter or the call's end", at));
            }
            marker = next;
        }
        Ok(ToolCall { id: None, name: name.to_string(), arguments: arguments_from_dsml(parameters) })
    }
}

/// The name in `␣name="…">⏎`, with any blanks before and one or two line breaks behind.
fn tool_name(header: &str) -> Option<&str> {
    let rest = header.trim_start_matches(is_blank).strip_prefix("name=\"")?;
    rest.strip_suffix("\">\n\n").or_else(|| rest.strip_suffix("\">\n"))
}

/// What Python's `\s` matches.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Key, value and kind in `␣name="…" string="…">…<`, up to the `<` of the closing tag and possibly a line break.
fn parameter(segment: &str) -> Option<(&str, &str, bool)> {
    let rest = segment.strip_prefix(" name=\"")?;
    let rest = rest.strip_suffix('\n').unwrap_or(rest).strip_suffix('<')?;
    let (at, tag, is_string) = first_kind(rest)?;
    Some((&rest[..at], &rest[at + tag.len()..], is_string))
}

/// Where the attribute `string` closes the tag, how it stands there, and what it says.
pub(crate) fn first_kind(text: &str) -> Option<(usize, &'static str, bool)> {
    const KINDS: [(&str, bool); 2] = [("\" string=\"true\">", true), ("\" string=\"false\">", false)];
    KINDS
        .into_iter()
        .filter_map(|(tag, is_string)| text.find(tag).map(|at| (at, tag, is_string)))
        .min_by_key(|&(at, ..)| at)
}
