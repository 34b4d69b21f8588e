//! Names that a model may call: those it was offered.

use std::sync::{Arc, OnceLock};

use crate::chat::{Json, NameMarks, Tool, Version};
use crate::generation::{Constraint, TokenSet, Tokenizer};

/// The bytes of every id, read when they are first needed.
#[derive(Debug, Clone)]
pub(super) struct TokenBytes {
    tokenizer: Tokenizer,
    vocab_size: usize,
    bytes: Arc<OnceLock<Vec<Box<[u8]>>>>,
}

impl TokenBytes {
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Self {
        Self { tokenizer: tokenizer.clone(), vocab_size, bytes: Arc::default() }
    }

    fn all(&self) -> &[Box<[u8]>] {
        let read = |id| self.tokenizer.token_bytes(id).into_boxed_slice();
        self.bytes.get_or_init(|| (0..self.vocab_size as u32).map(read).collect())
    }
}

/// Holds the names of called tools, and those of their parameters, to the ones offered. All else is free.
///
/// A parameter's name is held where the tool's schema lists its properties and says nothing of others.
#[derive(Debug, Clone)]
pub(super) struct OfferedNames {
    tokens: TokenBytes,
    offer: Arc<Offer>,
    place: Place,
}

#[derive(Debug)]
struct Offer {
    marks: NameMarks,
    tools: Vec<OfferedTool>,
}

#[derive(Debug)]
struct OfferedTool {
    name: String,
    /// `None` = any.
    parameters: Option<Vec<String>>,
}

/// Where the answer is.
#[derive(Debug, Clone, Default)]
struct Place {
    /// The last bytes outside of names, as many as a mark has.
    tail: Vec<u8>,
    /// The name in progress.
    name: Option<(Named, Vec<u8>)>,
    /// The tool that is being called.
    tool: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Named {
    Tool,
    Parameter,
}

impl OfferedNames {
    /// `None` if no tool is offered whose name the format can carry.
    pub fn new(version: Version, tools: &[Tool], tokens: &TokenBytes) -> Option<Self> {
        let marks = version.name_marks();
        let writable = |name: &str| !name.is_empty() && !name.contains(marks.end);
        let offered = |tool: &Tool| OfferedTool {
            name: tool.name().to_string(),
            parameters: listed_parameters(tool).filter(|names| names.iter().all(|name| writable(name))),
        };
        let tools: Vec<_> = tools.iter().filter(|tool| writable(tool.name())).map(offered).collect();
        let offer = Arc::new(Offer { marks, tools });
        (!offer.tools.is_empty()).then(|| Self { tokens: tokens.clone(), offer, place: Place::default() })
    }
}

/// The parameters of a tool, if its schema lists them all.
fn listed_parameters(tool: &Tool) -> Option<Vec<String>> {
    let Some(Json::Object(entries)) = tool.parameters() else { return None };
    let open = ["additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf", "if"];
    let closed = Json::Bool(false);
    if entries.iter().any(|(key, value)| open.contains(&key.as_str()) && *value != closed) {
        return None;
    }
    match entries.iter().find(|(key, _)| key == "properties") {
        Some((_, Json::Object(properties))) if !properties.is_empty() => {
            Some(properties.iter().map(|(name, _)| name.clone()).collect())
        }
        _ => None,
    }
}

impl Offer {
    /// Moves on by a byte; `None` if no offered name goes on so.
    fn step(&self, place: &mut Place, byte: u8) -> Option<()> {
        let Some((named, mut written)) = place.name.take() else {
            place.tail.push(byte);
            let longest = self.marks.tool.len().max(self.marks.parameter.as_ref().map_or(0, String::len));
            let excess = place.tail.len().saturating_sub(longest);
            place.tail.drain(..excess);
            if place.tail.ends_with(self.marks.tool.as_bytes()) {
                place.tool = None;
                place.name = Some((Named::Tool, Vec::new()));
            } else if self.marks.parameter.as_ref().is_some_and(|mark| place.tail.ends_with(mark.as_bytes()))
                && self.parameters(place).is_some()
            {
                place.name = Some((Named::Parameter, Vec::new()));
            }
            if place.name.is_some() {
                place.tail.clear();
            }
            return Some(());
        };
        written.push(byte);
        let end = self.marks.end.as_bytes();
        let matches = |name: &str| {
            let length = written.len().min(name.len());
            let rest = &written[length..];
            name.as_bytes()[..length] == written[..length] && end.starts_with(rest)
        };
        let whole = |name: &str| written.len() == name.len() + end.len();
        let found = match named {
            Named::Tool => {
                let tools = self.tools.iter().enumerate().filter(|(_, tool)| matches(&tool.name));
                let (at, tool) = tools.max_by_key(|(_, tool)| whole(&tool.name))?;
                let whole = whole(&tool.name);
                place.tool = whole.then_some(at);
                whole
            }
            Named::Parameter => {
                let names = self.parameters(place)?.iter().filter(|name| matches(name));
                names.map(|name| whole(name)).max()?
            }
        };
        if !found {
            place.name = Some((named, written));
        }
        Some(())
    }

    fn parameters(&self, place: &Place) -> Option<&[String]> {
        self.tools[place.tool?].parameters.as_deref()
    }

    /// Whether the next token may begin or continue a name.
    fn concerns(&self, place: &Place) -> bool {
        let begins = |mark: &str| {
            let mark = mark.as_bytes();
            (self.marks.unmistakable..mark.len()).any(|length| place.tail.ends_with(&mark[..length]))
        };
        place.name.is_some() || begins(&self.marks.tool) || self.marks.parameter.as_deref().is_some_and(begins)
    }

    fn allows(&self, place: &Place, token: &[u8]) -> bool {
        let mut place = place.clone();
        let in_name = place.name.is_some();
        !(in_name && token.is_empty()) && token.iter().all(|&byte| self.step(&mut place, byte).is_some())
    }
}

impl Constraint for OfferedNames {
    fn allowed(&mut self) -> Result<Option<TokenSet>, String> {
        if !self.offer.concerns(&self.place) {
            return Ok(None);
        }
        let tokens = self.tokens.all().iter().enumerate();
        let allowed = tokens.filter(|(_, token)| self.offer.allows(&self.place, token)).map(|(id, _)| id as u32);
        let mut allowed = allowed.peekable();
        // A vocabulary that can't write the names leaves the model free.
        Ok(if allowed.peek().is_some() { Some(allowed.collect()) } else { None })
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        for &byte in self.tokens.all().get(id as usize).into_iter().flatten() {
            if self.offer.step(&mut self.place, byte).is_none() {
                self.place = Place::default();
            }
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}
