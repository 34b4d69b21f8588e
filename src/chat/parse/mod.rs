//! A completion to a message.

mod assemble;
mod strict;

pub use assemble::Accumulator;
pub(crate) use strict::first_kind;

use super::encode::Start;
use super::error::ChatError;
use super::message::{Message, Tool};
use super::python;
use super::stream::StreamParser;
use super::version::Version;

/// How a completion is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParseOptions {
    /// The format.
    pub version: Version,
    /// In what state the completion begins: [`Prompt::start`](super::Prompt::start) of its prompt.
    pub start: Start,
    /// What is accepted.
    pub mode: ParseMode,
    /// The tools of the request, if known: a parameter `arguments` or `input` that holds all arguments of a tool which
    /// has no such parameter is unwrapped. Tolerant mode only.
    pub tools: Vec<Tool>,
}

/// What is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ParseMode {
    /// The published parser's grammar, and its results: any deviation is an error, a truncation that it takes for an
    /// end is one, and `string="false"` values are pasted unchecked, so that arguments may be no JSON.
    Strict,
    /// Whatever a model may write: see [`StreamParser`], which this is the batch form of. Never an error.
    #[default]
    Tolerant,
}

impl ParseOptions {
    /// Tolerant, without tools.
    pub fn new(version: Version, start: Start) -> Self {
        Self { version, start, mode: ParseMode::Tolerant, tools: Vec::new() }
    }

    /// The same in strict mode.
    pub fn strict(self) -> Self {
        Self { mode: ParseMode::Strict, ..self }
    }
}

/// What a completion says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The message. Calls have no ids; reasoning is `None` if it is empty.
    pub message: Message,
    /// Whether the text ends in the middle of something: in the reasoning, or in a tool block.
    pub incomplete: bool,
    /// Text that is neither in the message nor part of a well-formed block, in its order: malformed and unfinished
    /// calls, stray tags, text after the block. Blank stretches are left out.
    pub dropped: Vec<String>,
}

/// Reads a completion: the text after the prompt's think mark, with or without the end-of-sentence token.
///
/// # Errors
/// In strict mode [`ChatError::Completion`], wherever the published parser fails. None in tolerant mode.
///
/// # Source
/// Strict: the published rules for V3.2; earlier versions published none, for them strict means that nothing had to be
/// tolerated.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Parsed, ChatError> {
    if options.mode == ParseMode::Strict {
        return strict::parse(text, options);
    }
    Ok(tolerant(text, options))
}

fn tolerant(text: &str, options: &ParseOptions) -> Parsed {
    let mut parser = StreamParser::new(options.version, options.start).with_tools(&options.tools);
    let mut message = Accumulator::new();
    message.extend(parser.push(text));
    message.extend(parser.finish());
    Parsed { message: message.finish(), incomplete: parser.incomplete(), dropped: parser.take_dropped() }
}

/// A V3.2 call's arguments as the published parser writes them: `(name, value, whether it is a string)` each. Values
/// that are no strings are pasted as they are.
pub fn arguments_from_dsml<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str, bool)>) -> String {
    let mut out = String::from("{");
    for (i, (key, value, is_string)) in parameters.into_iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        python::write_string(key, &mut out);
        out.push_str(": ");
        if is_string {
            python::write_string(value, &mut out);
        } else {
            out.push_str(value);
        }
    }
    out.push('}');
    out
}
