//! Control tokens in text from outside, followed through a template.
//!
//! A template may cut, join and escape what it is given, so that the prompt alone does not tell whether a control token
//! was written by the template or by a user. Within each control token in the input a mark is put behind the first
//! character. What has a mark in the prompt is from outside; the marks are taken out again.

use std::ops::Range;

use super::super::format::{THINK, THINK_END};
use super::super::json::Json;
use super::error::TemplateError;

/// Code points that Unicode keeps for use inside programs; a mark is one that the input does not have.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// Finds the first control token in a text.
pub(super) type Find<'a> = &'a dyn for<'t> Fn(&'t str) -> Option<&'t str>;

/// Puts marks in and takes them out.
pub(super) struct Guard<'a> {
    find: Find<'a>,
    /// The mark.
    pub mark: char,
}

impl<'a> Guard<'a> {
    /// A guard for an input with these texts.
    pub fn new<'t>(find: Find<'a>, texts: impl Iterator<Item = &'t str>) -> Result<Self, TemplateError> {
        let mut used = [false; 32];
        for c in texts.flat_map(str::chars).filter(|c| MARKS.contains(c)) {
            used[(c as u32 - *MARKS.start() as u32) as usize] = true;
        }
        let free = MARKS.zip(used).find(|(_, used)| !used).map(|(mark, _)| mark);
        let problem = || "the conversation uses all of the code points U+FDD0 to U+FDEF".to_string();
        Ok(Self { find, mark: free.ok_or_else(|| TemplateError::Render { line: 0, problem: problem() })? })
    }

    /// Marks the control tokens of a text; think marks only if `think` is set.
    pub fn put(&self, text: &str, think: bool) -> String {
        let mut marked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(token) = (self.find)(rest)
            && let Some((before, behind)) = rest.split_once(token)
        {
            marked.push_str(before);
            let mut chars = token.chars();
            marked.extend(chars.next());
            if think || ![THINK, THINK_END].contains(&token) {
                marked.push(self.mark);
            }
            marked.push_str(chars.as_str());
            rest = behind;
        }
        marked.push_str(rest);
        marked
    }

    /// Takes the marks out of a prompt; returns it with the ranges of the tokens that had one.
    pub fn take(&self, marked: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(marked.len());
        let mut starts = Vec::new();
        for (at, piece) in marked.split(self.mark).enumerate() {
            if at > 0 {
                let first = text.chars().next_back().map_or(0, char::len_utf8);
                starts.push(text.len() - first);
            }
            text.push_str(piece);
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for start in starts {
            let rest = &text[start..];
            let Some(token) = (self.find)(rest).filter(|token| rest.starts_with(token)) else { continue };
            let end = start + token.len();
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        (text, ranges)
    }
}

/// All texts of a value: strings and keys.
pub(super) fn texts<'t>(value: &'t Json, found: &mut Vec<&'t str>) {
    match value {
        Json::String(text) => found.push(text),
        Json::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Json::Object(entries) => entries.iter().for_each(|(key, value)| {
            found.push(key);
            texts(value, found);
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}
