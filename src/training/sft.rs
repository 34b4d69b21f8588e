//! Conversations to examples: the prompt's ids, of which the model learns what it has to write itself.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::batch::Example;
use super::error::{Result, TrainingError};
use super::lines;
use crate::chat::{EncodeOptions, Message, Origin, Piece, Role, Tool, Version, encode, order_results, place_tools};
use crate::generation::Tokenizer;

/// Whether the model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// In a turn of which an assistant's message has reasoning.
    #[default]
    AsWritten,
    /// Always: every turn needs reasoning.
    Always,
    /// Never: reasoning is left out.
    Never,
}

/// Which of the assistant's messages are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearntTurns {
    /// All: those behind each question of the user. A conversation with thinking gives one example for each question,
    /// since the reasoning before it goes away with the next one; another one a single example.
    #[default]
    All,
    /// Those behind the last question.
    Last,
}

/// How conversations become examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftOptions {
    /// The chat format, by its name.
    #[serde(with = "version_name")]
    pub version: Version,
    /// Whether the model thinks.
    pub thinking: Thinking,
    /// What is learnt.
    pub turns: LearntTurns,
}

/// A [`Version`] as its name.
mod version_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Version;

    pub(super) fn serialize<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(version.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A conversation, one line of a file in OpenAI's format for fine-tuning: `{"messages": […], "tools": […]}`. Other keys
/// are not looked at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Conversation {
    /// The messages, as a chat request has them, with the assistant's ones.
    pub messages: Vec<Message>,
    /// The tools that the model may call.
    #[serde(default)]
    pub tools: Vec<Tool>,
}

/// Returns the examples of a conversation. Learnt is what the model writes: reasoning, the end of the reasoning, content,
/// calls, the end of its turn; not what the format or others write: the opener of an answer with its think mark, results
/// of tools, the user's and the system's text, tools.
///
/// What is learnt is tokenized apart from what precedes it, as it is when the model writes it; where a message has
/// `written_ids`, these are its ids. Control tokens in text from outside are plain text.
///
/// # Errors
/// If the messages do not fit the format, or there is nothing to learn.
pub fn conversation(conversation: &Conversation, tokenizer: &Tokenizer, options: &SftOptions) -> Result<Vec<Example>> {
    let mut messages = conversation.messages.clone();
    order_results(&mut messages)?;
    place_tools(&mut messages, conversation.tools.clone(), None);
    let asks = |message: &Message| matches!(message.role, Role::User | Role::Developer);
    let writes = |range: Range<usize>| messages[range].iter().any(|message| message.role == Role::Assistant);
    // Where turns begin: at a question, or at the front if the conversation opens with the assistant.
    let mut starts: Vec<usize> = (0..messages.len()).filter(|&at| asks(&messages[at])).collect();
    if starts.first().is_none_or(|&first| writes(0..first)) {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([messages.len()]);
    let turns: Vec<Range<usize>> = starts.iter().zip(ends).map(|(&start, end)| start..end).collect();
    let turns: Vec<Range<usize>> = turns.into_iter().filter(|turn| writes(turn.clone())).collect();
    let thinks = |turn: &Range<usize>| match options.thinking {
        Thinking::Always => true,
        Thinking::Never => false,
        Thinking::AsWritten => messages[turn.clone()].iter().any(|message| {
            message.role == Role::Assistant && message.reasoning_content.as_deref().is_some_and(|r| !r.is_empty())
        }),
    };
    let Some(last) = turns.last() else {
        return Err(TrainingError::value("messages", "an assistant's message to learn", "none"));
    };
    let example = |messages: &[Message], first: usize, thinking: bool| {
        let encode_options = EncodeOptions { add_generation_prompt: false, ..EncodeOptions::new(options.version) };
        let prompt = encode(messages, &[], &encode_options.with_thinking(thinking))?;
        Ids { tokenizer, version: options.version, messages, first }.example(prompt.pieces())
    };
    match options.turns {
        LearntTurns::Last => Ok(vec![example(&messages[..last.end], last.start, thinks(last))?]),
        LearntTurns::All if !turns.iter().any(thinks) => Ok(vec![example(&messages[..last.end], 0, false)?]),
        LearntTurns::All => turns.iter().map(|turn| example(&messages[..turn.end], turn.start, thinks(turn))).collect(),
    }
}

/// Reads the conversations of a file, one JSON object a line, and returns their examples in order.
///
/// # Errors
/// [`TrainingError::Read`] if the file cannot be read; [`TrainingError::Line`] for a line that is no conversation, or
/// whose conversation [`conversation`] refuses.
pub fn read_conversations(path: impl AsRef<Path>, tokenizer: &Tokenizer, options: &SftOptions) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    lines::read(path.as_ref(), |line: Conversation| {
        examples.extend(conversation(&line, tokenizer, options).map_err(|error| error.to_string())?);
        Ok(())
    })?;
    Ok(examples)
}

/// Turns a prompt's pieces to ids.
struct Ids<'a> {
    tokenizer: &'a Tokenizer,
    version: Version,
    messages: &'a [Message],
    /// The first message that is learnt.
    first: usize,
}

impl Ids<'_> {
    fn example<'p>(&self, pieces: impl Iterator<Item = Piece<'p>>) -> Result<Example> {
        let mut example = Example::default();
        let mut stretch = Stretch::default();
        let mut pieces = pieces.peekable();
        while let Some(piece) = pieces.next() {
            let message = written_message(&piece);
            let learnt = message.is_some_and(|message| message >= self.first);
            if stretch.learnt != learnt || message.is_some() {
                stretch.flush(self.tokenizer, &mut example)?;
            }
            stretch.learnt = learnt;
            stretch.push(&piece);
            let Some(message) = message else { continue };
            // All of a message, which ends its turn.
            let mut complete = matches!(piece.origin, Origin::Written { complete: true, .. });
            while let Some(more) = pieces.next_if(|next| written_message(next) == Some(message)) {
                complete &= matches!(more.origin, Origin::Written { complete: true, .. });
                stretch.push(&more);
            }
            let written = self.messages[message].written_ids.as_deref().filter(|_| complete);
            match written.and_then(|ids| self.as_rendered(ids, &stretch.text)) {
                Some((ids, ended)) => {
                    let own = ids.len() - usize::from(!ended);
                    example.learnt.extend((0..ids.len()).map(|at| learnt && at < own));
                    example.ids.extend(ids);
                    stretch = Stretch::default();
                }
                None => stretch.flush(self.tokenizer, &mut example)?,
            }
        }
        stretch.flush(self.tokenizer, &mut example)?;
        if example.counted() == 0 {
            return Err(TrainingError::value("messages", "something to learn", "none"));
        }
        Ok(example)
    }

    /// The ids that a message was written with, and whether the model ended it itself; `None` if they are those of another
    /// mode than `rendered`.
    fn as_rendered(&self, written: &[u32], rendered: &str) -> Option<(Vec<u32>, bool)> {
        let think_end = self.tokenizer.token_to_id(self.version.think_end())?;
        let eos = self.tokenizer.token_to_id(self.version.eos())?;
        if written.contains(&think_end) != rendered.contains(self.version.think_end()) {
            return None;
        }
        let ended = written.last() == Some(&eos);
        let mut ids = written.to_vec();
        if !ended {
            ids.push(eos);
        }
        Some((ids, ended))
    }
}

/// The message that a piece is written in, by its number.
fn written_message(piece: &Piece<'_>) -> Option<usize> {
    match piece.origin {
        Origin::Written { message, .. } => Some(message),
        _ => None,
    }
}

/// Text that is tokenized as one, with the stretches that come from outside.
#[derive(Default)]
struct Stretch {
    text: String,
    outside: Vec<Range<usize>>,
    learnt: bool,
}

impl Stretch {
    fn push(&mut self, piece: &Piece<'_>) {
        let start = self.text.len();
        self.text.push_str(piece.text);
        if piece.is_format() || piece.text.is_empty() {
            return;
        }
        match self.outside.last_mut() {
            Some(last) if last.end == start => last.end = self.text.len(),
            _ => self.outside.push(start..self.text.len()),
        }
    }

    fn flush(&mut self, tokenizer: &Tokenizer, example: &mut Example) -> Result<()> {
        let ids = tokenizer.encode_guarded(&self.text, &self.outside)?;
        example.learnt.extend(std::iter::repeat_n(self.learnt, ids.len()));
        example.ids.extend(ids);
        *self = Self { learnt: self.learnt, ..Self::default() };
        Ok(())
    }
}
