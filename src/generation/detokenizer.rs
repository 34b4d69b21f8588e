//! Ids that come one by one to text.

use super::byte_level::byte_of;
use super::error::Result;
use super::tokenizer::{SpecialTokens, Tokenizer};

/// A streaming decoder: the pieces it returns, put together, are what [`Tokenizer::decode`] makes of all the ids.
///
/// A character whose bytes are spread over tokens is held back until it is whole or known to be broken (U+FFFD).
/// With a byte-level tokenizer (those of DeepSeek, GLM and Kimi) a token costs O(1). With any other, the text is decoded
/// anew with every token and its growth returned; where such a decoder changes its mind about earlier text, as
/// byte-fallback ones do at broken characters, what was returned stays.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    special: SpecialTokens,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Bytes of a character that is not whole yet (at most 3).
    Bytes(Vec<u8>),
    /// All ids, and how much of their text was returned.
    Whole { ids: Vec<u32>, returned: usize },
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Tokenizer, special: SpecialTokens) -> Self {
        let state = if tokenizer.is_byte_level() {
            State::Bytes(Vec::new())
        } else {
            State::Whole { ids: Vec::new(), returned: 0 }
        };
        Self { tokenizer, special, state }
    }

    /// Takes the next id; returns the text that became whole, which may be empty.
    ///
    /// # Errors
    /// [`GenerationError::Tokenizer`](super::GenerationError::Tokenizer) if a tokenizer that is not byte-level fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if !self.tokenizer.is_text(id, self.special) {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes(pending) => {
                if let Some(token) = self.tokenizer.id_to_token(id) {
                    push_bytes(&token, pending);
                }
                Ok(take_whole(pending))
            }
            State::Whole { ids, returned } => {
                ids.push(id);
                let text = self.tokenizer.decode(ids, self.special)?;
                // A trailing U+FFFD may turn into a character with the next byte.
                Ok(growth(text.trim_end_matches(char::REPLACEMENT_CHARACTER), returned))
            }
        }
    }

    /// The text still held back: U+FFFD for a character that was cut. The decoder is then as new.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<String> {
        match &mut self.state {
            State::Bytes(pending) => {
                let text = String::from_utf8_lossy(pending).into_owned();
                pending.clear();
                Ok(text)
            }
            State::Whole { ids, returned } => {
                let text = growth(&self.tokenizer.decode(ids, self.special)?, returned);
                ids.clear();
                *returned = 0;
                Ok(text)
            }
        }
    }
}

/// The part of `text` after the bytes already returned.
fn growth(text: &str, returned: &mut usize) -> String {
    let new = text.get(*returned..).unwrap_or_default().to_string();
    *returned += new.len();
    new
}

/// Appends the bytes of a byte-level token. A token with a character outside the byte alphabet is literal text.
pub(super) fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for char in token.chars() {
        match byte_of(char) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Takes the text from `pending`, broken sequences as U+FFFD, and leaves the bytes of a character not yet whole.
fn take_whole(pending: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(pending.len());
    let mut taken = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let invalid = chunk.invalid();
        let last = taken + invalid.len() == pending.len();
        if last && is_beginning(invalid) {
            break;
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
    }
    pending.drain(..taken);
    text
}

/// Whether more bytes could make a character of these, which are none yet.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
