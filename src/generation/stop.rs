//! When a sequence ends.

use std::fmt;

/// Why a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// This stop id was generated. The id is among the tokens, its text is not in the text.
    StopId(u32),
    /// The text came to this stop string. The text ends before it.
    StopString(String),
    /// `max_tokens` were generated.
    MaxTokens,
    /// The model's context is full.
    ContextLimit,
    /// The sequence was cancelled.
    Cancelled,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StopId(id) => write!(f, "stop id {id}"),
            Self::StopString(text) => write!(f, "stop string {text:?}"),
            Self::MaxTokens => f.write_str("max_tokens"),
            Self::ContextLimit => f.write_str("context limit"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// What ends a sequence, besides `max_tokens` and the model's context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopConditions {
    /// Token ids, usually the checkpoint's `eos_token_id`.
    pub ids: Vec<u32>,
    /// Texts, matched wherever tokens begin and end. They are matched against the text that is released; a special
    /// token that has no text there ends the sequence too if a string is that token as a whole.
    pub strings: Vec<String>,
}

/// Finds stop strings in a text that comes in pieces, whatever the pieces.
///
/// Text that may be the beginning of a stop string is held back until it is known. Of several stop strings the one
/// that is complete first wins, and of those complete at the same place the longest.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    strings: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// A matcher; empty strings are ignored.
    pub fn new(strings: &[String]) -> Self {
        Self { strings: strings.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes the next piece; returns the text that is free to go, and the stop string if the text came to one.
    ///
    /// After a match the rest of the piece is dropped.
    pub fn push(&mut self, piece: &str) -> (String, Option<String>) {
        self.held.push_str(piece);
        let matches = self.strings.iter().filter_map(|stop| self.held.find(stop).map(|at| (at + stop.len(), at, stop)));
        if let Some((_, at, stop)) = matches.min_by_key(|&(end, at, _)| (end, at)) {
            let stop = stop.clone();
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return (text, Some(stop));
        }
        let free = self.held.len() - self.strings.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let held = self.held.split_off(free);
        (std::mem::replace(&mut self.held, held), None)
    }

    /// The text still held back; the sequence ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest proper beginning of `stop` that `text` ends with.
fn overlap(text: &str, stop: &str) -> usize {
    let lengths = stop.char_indices().map(|(at, _)| at).rev();
    lengths.into_iter().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}
