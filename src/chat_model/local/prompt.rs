//! A conversation to prompt ids.

use crate::chat::{
    EncodeOptions, Message, Origin, Piece, Prompt, Start, Tool, Version, encode, order_results, place_tools,
};
use crate::chat_model::error::Result;
use crate::generation::Tokenizer;

use super::super::request::ChatRequest;

/// A prompt that is ready for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPrompt {
    /// The text. Where a message has `written_ids`, they count and not its text.
    pub text: String,
    /// The ids.
    pub ids: Vec<u32>,
    /// In what state the completion begins.
    pub start: Start,
}

/// The prompt of a request: its tools put in place, results in the order of the calls, what the model wrote itself
/// as the ids it wrote.
pub(super) fn prompt(
    request: &ChatRequest,
    version: Version,
    tokenizer: &Tokenizer,
    max_context: usize,
) -> Result<ChatPrompt> {
    let mut messages = request.messages.clone();
    // A model that sees tools may call them, whatever it is told.
    let shown = |tools: &[Tool]| request.tool_choice.shown(tools).to_vec();
    messages.iter_mut().for_each(|message| message.tools = shown(&message.tools));
    let tools = shown(&request.tools);
    order_results(&mut messages)?;
    let before = messages.len();
    place_tools(&mut messages, tools, request.response_format.clone());
    debug_assert!(messages.len() - before <= 1);
    let options = EncodeOptions { require_complete_results: true, ..EncodeOptions::new(version) };
    let prompt = encode(&messages, &[], &options.with_thinking(request.thinking))?;
    tokenizer.check_size(prompt.text(), max_context)?;
    let ids = ids(&prompt, &messages, version, tokenizer)?;
    let start = prompt.start();
    Ok(ChatPrompt { text: prompt.into_text(), ids, start })
}

/// The ids of a prompt.
fn ids(prompt: &Prompt, messages: &[Message], version: Version, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut text = Text::default();
    let mut pieces = prompt.pieces().peekable();
    while let Some(piece) = pieces.next() {
        if let Origin::Written { message, complete, .. } = piece.origin
            && let Some(written) = messages[message].written_ids.as_deref()
        {
            let mut rendered = piece.text.to_string();
            while let Some(more) = pieces.next_if(|next| is_of(next, message)) {
                rendered.push_str(more.text);
            }
            if let Some(written) = as_rendered(written, complete, &rendered, version, tokenizer) {
                text.flush(tokenizer, &mut ids)?;
                ids.extend(written);
            } else {
                text.push(&rendered, true);
            }
            continue;
        }
        text.push(piece.text, piece.is_format());
    }
    text.flush(tokenizer, &mut ids)?;
    Ok(ids)
}

fn is_of(piece: &Piece<'_>, of: usize) -> bool {
    matches!(piece.origin, Origin::Written { message, .. } if message == of)
}

/// The ids that stand for what is rendered of a message that was written as `written`; `None` if they can't, because
/// the message was written in the other mode.
fn as_rendered(
    written: &[u32],
    complete: bool,
    rendered: &str,
    version: Version,
    tokenizer: &Tokenizer,
) -> Option<Vec<u32>> {
    let think_end = tokenizer.token_to_id(version.think_end())?;
    let eos = tokenizer.token_to_id(version.eos())?;
    let closes = written.iter().position(|&id| id == think_end);
    let reasons = rendered.contains(version.think_end());
    let shown = match (closes, complete) {
        // The reasoning is gone, and with it its end, which the turn before wrote instead.
        (Some(at), false) => &written[at + 1..],
        (None, false) => return None,
        (closes, true) if closes.is_some() == reasons => written,
        (_, true) => return None,
    };
    let mut ids = shown.to_vec();
    if ids.last() != Some(&eos) {
        // It was cut off, or ended by a stop string.
        ids.push(eos);
    }
    Some(ids)
}

/// Text that waits to be tokenized, with the stretches that come from outside.
#[derive(Default)]
struct Text {
    text: String,
    outside: Vec<std::ops::Range<usize>>,
}

impl Text {
    fn push(&mut self, text: &str, is_format: bool) {
        let start = self.text.len();
        self.text.push_str(text);
        if is_format {
            return;
        }
        match self.outside.last_mut() {
            Some(last) if last.end == start => last.end = self.text.len(),
            _ => self.outside.push(start..self.text.len()),
        }
    }

    fn flush(&mut self, tokenizer: &Tokenizer, ids: &mut Vec<u32>) -> Result<()> {
        ids.extend(tokenizer.encode_guarded(&self.text, &self.outside)?);
        *self = Self::default();
        Ok(())
    }
}
