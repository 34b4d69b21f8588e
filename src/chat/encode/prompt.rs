//! A prompt that knows where each stretch of its text came from.

use std::ops::Range;

/// A prompt: text, and the origin of each stretch of it.
///
/// The stretches let a tokenizer keep user text from forging control tokens, and put in the ids that the model wrote
/// itself. To get the ids that the whole text would have if nobody forged anything, look for control tokens only in
/// pieces where [`Piece::is_format`] holds, and tokenize the plain text between two control tokens as one stretch,
/// across pieces: `tokenizer.encode_guarded(prompt.text(), &prompt.outside())` does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    text: String,
    /// Where each piece ends in `text`, and its origin; no two neighbours have the same origin.
    pieces: Vec<(usize, Origin)>,
    start: Start,
}

/// In what state a completion begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// In the reasoning: the prompt opened it.
    Reasoning,
    /// In the content.
    #[default]
    Content,
}

/// Where a stretch of a prompt came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The format itself.
    Template,
    /// From outside: text of system, user and tool messages, schemas.
    Outside,
    /// What the model wrote after the prompt's think mark, from its reasoning to the end-of-sentence token. The pieces
    /// of one message follow each other directly.
    Written {
        /// Which of the messages that were to be rendered.
        message: usize,
        /// Whether the pieces are all that the model wrote: false if it had a reasoning that is no longer rendered.
        complete: bool,
        /// Whether the piece is control tokens: the end of the reasoning, the tokens of calls, the end of the turn.
        mark: bool,
    },
}

/// A stretch of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it came from.
    pub origin: Origin,
}

impl Piece<'_> {
    /// Whether control tokens in the text are control tokens. In any other piece they are mere text.
    pub fn is_format(&self) -> bool {
        matches!(self.origin, Origin::Template | Origin::Written { mark: true, .. })
    }
}

impl Prompt {
    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, owned.
    pub fn into_text(self) -> String {
        self.text
    }

    /// The pieces in their order; together they are the text. None is empty.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let starts = std::iter::once(0).chain(self.pieces.iter().map(|&(end, _)| end));
        starts.zip(&self.pieces).map(|(start, &(end, origin))| Piece { text: &self.text[start..end], origin })
    }

    /// The stretches of the text in which control tokens are mere text: byte ranges, ascending, apart, at character
    /// boundaries, as [`Tokenizer::encode_guarded`](crate::generation::Tokenizer::encode_guarded) takes them.
    pub fn outside(&self) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        for piece in self.pieces() {
            let end = start + piece.text.len();
            match found.last_mut() {
                _ if piece.is_format() => {}
                Some(last) if last.end == start => last.end = end,
                _ => found.push(start..end),
            }
            start = end;
        }
        found
    }

    /// In what state the completion begins.
    pub fn start(&self) -> Start {
        self.start
    }

    pub(super) fn push(&mut self, text: &str, origin: Origin) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        match self.pieces.last_mut() {
            Some((end, last)) if *last == origin => *end = self.text.len(),
            _ => self.pieces.push((self.text.len(), origin)),
        }
    }

    pub(super) fn push_template(&mut self, text: &str) {
        self.push(text, Origin::Template);
    }

    pub(super) fn push_outside(&mut self, text: &str) {
        self.push(text, Origin::Outside);
    }

    pub(super) fn set_start(&mut self, start: Start) {
        self.start = start;
    }
}
