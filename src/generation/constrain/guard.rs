//! What a grammar's text cannot say.
//!
//! A JSON grammar lets strings hold any text, also one that a reader of the answer takes for the end of the value; and
//! no context-free grammar sees to it that names differ. The guard follows the answer's bytes, which the grammar keeps
//! in form, and takes out the tokens that would go wrong.

use std::sync::Arc;

use super::vocabulary::Vocabulary;
use crate::grammar::{Grammar, Parameters};

/// Follows one answer.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    rules: Arc<Rules>,
    at: Place,
    /// The last bytes at this place.
    tail: Vec<u8>,
    /// Names in this group.
    names: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Rules {
    /// Where JSON content begins, and what its strings may not hold.
    content: Option<(Vec<u8>, Vec<Vec<u8>>)>,
    parameters: Option<Parameters>,
    /// What strings in parameters may not hold.
    forbidden: Vec<Vec<u8>>,
    /// Tokens that hold all of something forbidden.
    whole: Vec<u32>,
    /// Tokens that may end a name, if names must differ.
    ending: Vec<u32>,
    /// Bytes of the tail that matter.
    reach: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Reasoning, content, tags.
    Text,
    /// In a parameter's name.
    Name(Vec<u8>),
    /// Between a parameter's name and its value; holds what is read of it.
    Tag(Vec<u8>),
    /// In a value that is plain text.
    Raw,
    /// In JSON.
    Json { content: bool, string: bool, escaped: bool },
}

const IN_JSON_CONTENT: Place = Place::Json { content: true, string: false, escaped: false };

impl Guard {
    pub fn new(grammar: &Grammar, vocabulary: &Vocabulary) -> Self {
        let bytes = |text: &String| text.clone().into_bytes();
        let content: Option<(Vec<u8>, Vec<Vec<u8>>)> =
            grammar.content.as_ref().map(|json| (bytes(&json.after), json.forbidden.iter().map(bytes).collect()));
        let parameters = grammar.parameters.clone();
        let forbidden: Vec<_> = parameters.iter().map(|tags| bytes(&tags.forbidden)).collect();
        let all = || content.iter().flat_map(|(_, forbidden)| forbidden).chain(&forbidden);
        let mut reach = all().map(Vec::len).max().unwrap_or_default();
        if let Some((after, _)) = &content {
            reach = reach.max(after.len());
        }
        let mut ending = Vec::new();
        if let Some(tags) = &parameters {
            reach = [&tags.open, &tags.close, &tags.group].into_iter().fold(reach, |reach, tag| reach.max(tag.len()));
            if tags.distinct {
                ending = vocabulary.holding(&tags.raw.as_bytes()[..1]);
            }
        }
        let whole = all().flat_map(|forbidden| vocabulary.holding(forbidden)).collect();
        let rules = Rules { content, parameters, forbidden, whole, ending, reach };
        let at = match &rules.content {
            Some((after, _)) if after.is_empty() => IN_JSON_CONTENT,
            _ => Place::Text,
        };
        Self { rules: Arc::new(rules), at, tail: Vec::new(), names: Vec::new() }
    }

    /// Appends these bytes to the answer.
    pub fn advance(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push(byte);
        }
    }

    /// Takes out the tokens that would go wrong.
    pub fn restrict(&self, words: &mut [u32], vocabulary: &Vocabulary) {
        let mut check = |id: u32| {
            let (word, bit) = (id as usize / 32, 1_u32 << (id % 32));
            if words[word] & bit != 0 && !self.clone().bears(vocabulary.text(id)) {
                words[word] &= !bit;
            }
        };
        if let Place::Json { content, .. } = self.at {
            for forbidden in self.forbidden(content) {
                for known in 1..forbidden.len() {
                    if self.tail.ends_with(&forbidden[..known]) {
                        vocabulary.beginning_with(&forbidden[known..]).iter().for_each(|&id| check(id));
                    }
                }
            }
        }
        self.rules.whole.iter().for_each(|&id| check(id));
        if !self.names.is_empty() && matches!(self.at, Place::Name(_) | Place::Text) {
            self.rules.ending.iter().for_each(|&id| check(id));
        }
    }

    fn forbidden(&self, content: bool) -> &[Vec<u8>] {
        match &self.rules.content {
            Some((_, forbidden)) if content => forbidden,
            _ => &self.rules.forbidden,
        }
    }

    /// Whether a token's bytes go right.
    fn bears(mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.push(byte))
    }

    fn enter(&mut self, place: Place) {
        self.at = place;
        self.tail.clear();
    }

    /// Goes on by one byte; says whether all is right.
    fn push(&mut self, byte: u8) -> bool {
        if self.tail.len() >= 2 * self.rules.reach {
            self.tail.drain(..self.tail.len() - self.rules.reach);
        }
        self.tail.push(byte);
        let rules = self.rules.clone();
        let ends = |tail: &[u8], text: &str| tail.ends_with(text.as_bytes());
        match (&mut self.at, &rules.parameters) {
            (Place::Text, parameters) => {
                if let Some((after, _)) = &rules.content
                    && self.tail.ends_with(after)
                    && !after.is_empty()
                {
                    self.enter(IN_JSON_CONTENT);
                } else if let Some(tags) = parameters {
                    if ends(&self.tail, &tags.open) {
                        self.enter(Place::Name(Vec::new()));
                    } else if ends(&self.tail, &tags.group) {
                        self.names.clear();
                    }
                }
            }
            (Place::Name(name), Some(tags)) => {
                if byte != tags.raw.as_bytes()[0] {
                    name.push(byte);
                    return true;
                }
                let name = std::mem::take(name);
                let known = self.names.contains(&name);
                self.names.push(name);
                self.enter(Place::Tag(vec![byte]));
                return !(tags.distinct && known);
            }
            (Place::Tag(tag), Some(tags)) => {
                tag.push(byte);
                if tag == tags.raw.as_bytes() {
                    self.enter(Place::Raw);
                } else if tag == tags.json.as_bytes() {
                    self.enter(Place::Json { content: false, string: false, escaped: false });
                }
            }
            (Place::Raw, Some(tags)) if ends(&self.tail, &tags.close) => self.enter(Place::Text),
            (Place::Json { content, string, escaped }, _) => {
                let content = *content;
                match byte {
                    _ if *escaped => *escaped = false,
                    b'\\' if *string => *escaped = true,
                    b'"' => *string = !*string,
                    // Outside of strings JSON has none: the value, or what was no JSON content after all, is over.
                    b'<' if !*string => self.enter(Place::Text),
                    _ => {}
                }
                if let Place::Json { string: true, .. } = self.at {
                    return !self.forbidden(content).iter().any(|forbidden| self.tail.ends_with(forbidden));
                }
            }
            _ => {}
        }
        true
    }
}
