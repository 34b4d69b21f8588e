//! A completion to a message.

mod assemble;
mod problem;
mod strict;

pub use assemble::Accumulator;
pub use problem::CallProblem;
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
    /// The tools of the request, if known. Tolerant mode only.
    ///
    /// `None`: not known; what looks like a call is read as one. An empty list: no tool was offered, so nothing can be a
    /// call, and markup of calls is text as any other. Otherwise a parameter `arguments` or `input` that holds all
    /// arguments of a tool which has no such parameter is unwrapped.
    pub tools: Option<Vec<Tool>>,
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
    /// Tolerant; the tools are not known.
    pub fn new(version: Version, start: Start) -> Self {
        Self { version, start, mode: ParseMode::Tolerant, tools: None }
    }

    /// The same with the tools of the request; none if the list is empty.
    pub fn with_tools(self, tools: impl Into<Vec<Tool>>) -> Self {
        Self { tools: Some(tools.into()), ..self }
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
    /// Text that was taken for markup and is in no call, in its order: malformed and unfinished calls, stray and misspelt
    /// tags, text behind calls. Blank stretches and the tags of whole blocks are left out. If no call could be read, and
    /// there are any of these from the first call or block on, all text from there on is one entry; it is also what is
    /// [`unread`](Self::unread).
    pub dropped: Vec<String>,
    /// Why a call could not be read: of the first that could not.
    pub call_problem: Option<CallProblem>,
    /// If calls were written, and none could be read: all text from the first of them on, as it was written, without think
    /// marks and the end-of-sentence token. So are tags alone, with no text before or between them. `None` if the text
    /// was cut off: it is `incomplete`, a call or a tag was begun, and it does not end with that token.
    pub unread: Option<String>,
}

impl Parsed {
    /// The message as a client should see it: text that is [`unread`](Self::unread) is content, so that an answer is not
    /// empty that the model meant to be a call.
    pub fn answer(mut self) -> Message {
        self.message.content.push_str(&self.unread.unwrap_or_default());
        self.message
    }
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
    let mut parser = StreamParser::new(options.version, options.start);
    if let Some(tools) = &options.tools {
        parser = parser.with_tools(tools);
    }
    let mut message = Accumulator::new();
    message.extend(parser.push(text));
    message.extend(parser.finish());
    parser.parsed(message.finish())
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
