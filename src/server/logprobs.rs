//! Log-probabilities in the protocol's shapes.

use serde::{Serialize, Serializer};

use crate::generation::{Detokenizer, GenerationError, SpecialTokens, Token, Tokenizer};

/// Stands for -inf, which JSON has not.
const LEAST: f32 = -9999.0;

/// Those of a chat's tokens.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChatLogprobs {
    /// Content and calls.
    content: Vec<TokenLogprob>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasoning_content: Vec<TokenLogprob>,
}

#[derive(Debug, Clone, Serialize)]
struct TokenLogprob {
    #[serde(flatten)]
    token: Scored,
    top_logprobs: Vec<Scored>,
}

#[derive(Debug, Clone, Serialize)]
struct Scored {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// Adds a token, if its log-probability is known.
    pub fn push(&mut self, token: &Token, reasoning: bool, tokenizer: &Tokenizer) {
        let Some(logprobs) = &token.logprobs else { return };
        let list = if reasoning { &mut self.reasoning_content } else { &mut self.content };
        list.push(TokenLogprob {
            token: scored(token.id, logprobs.logprob, tokenizer),
            top_logprobs: logprobs.top.iter().map(|&(id, logprob)| scored(id, logprob, tokenizer)).collect(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.reasoning_content.is_empty()
    }
}

fn scored(id: u32, logprob: f32, tokenizer: &Tokenizer) -> Scored {
    let bytes = tokenizer.token_bytes(id);
    Scored { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: logprob.max(LEAST), bytes }
}

/// Those of a raw completion's tokens: lists side by side.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Top>,
    /// Where each token's text begins in the answer, in characters.
    text_offset: Vec<usize>,
}

/// Tokens and their log-probabilities as an object, the most probable first.
#[derive(Debug, Clone)]
struct Top(Vec<(String, f32)>);

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl TextLogprobs {
    /// Adds a token whose text begins at `offset`, if its log-probability is known.
    pub fn push(&mut self, token: &Token, offset: usize, tokenizer: &Tokenizer) {
        let Some(logprobs) = &token.logprobs else { return };
        self.tokens.push(shown(token.id, tokenizer));
        self.token_logprobs.push(logprobs.logprob.max(LEAST));
        let top = logprobs.top.iter();
        self.top_logprobs.push(Top(top.map(|&(id, p)| (shown(id, tokenizer), p.max(LEAST))).collect()));
        self.text_offset.push(offset);
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Where the text of each token of an answer begins.
///
/// It follows from the tokens alone: when a text is sent, which waits for whole characters and for what may be a stop
/// string, does not matter.
#[derive(Debug)]
pub struct TextOffset {
    detokenizer: Detokenizer,
    /// Characters so far.
    characters: usize,
}

impl TextOffset {
    /// Of an answer behind a text.
    pub fn new(tokenizer: &Tokenizer, before: &str) -> Self {
        let characters = before.chars().count();
        Self { detokenizer: tokenizer.detokenizer(SpecialTokens::default()), characters }
    }

    /// Where the text of the next token begins, in characters. Tokens that are parts of one character begin where it
    /// does.
    ///
    /// # Errors
    /// The tokenizer does not know the token.
    pub fn next(&mut self, id: u32) -> Result<usize, GenerationError> {
        let begins = self.characters;
        self.characters += self.detokenizer.push(id)?.chars().count();
        Ok(begins)
    }
}

/// A token as text; one that is no text by itself as its bytes.
fn shown(id: u32, tokenizer: &Tokenizer) -> String {
    let bytes = tokenizer.token_bytes(id);
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let hex: String = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("bytes:{hex}")
        }
    }
}

/// The text of ids with their control tokens.
pub fn text_of(ids: &[u32], tokenizer: &Tokenizer) -> String {
    tokenizer.decode(ids, SpecialTokens::Keep).unwrap_or_default()
}
