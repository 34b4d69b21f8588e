//! Text to ids and back.

mod json;
mod tiktoken;

use std::io::{Error, ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokenizers::{DecoderWrapper, ModelWrapper};

use super::caught::caught_in_tokenizers;
use super::detokenizer::{Detokenizer, push_bytes};
use super::error::{GenerationError, Result};
use super::guarded::{self, AddedTokens};
use crate::foreign::ForeignFile;
use crate::show::one_line;

pub use tiktoken::RanksProblem;

/// Whether tokens that the tokenizer marks as `special` are part of decoded text.
///
/// Tags always are, that is `<name>` and `</name>` with a name of lower-case letters and `_`: a reader of the answer needs
/// the marks of reasoning and of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Leaves them out, such as the end of the sentence.
    #[default]
    Drop,
    /// Keeps all of them.
    Keep,
}

/// A checkpoint's tokenizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    added: AddedTokens,
    path: PathBuf,
    vocab_size: usize,
    byte_level: bool,
    /// Bytes of the longest token.
    longest: OnceLock<usize>,
}

/// The largest `tokenizer.json` that is read; those of the family take 8 MB.
const MAX_BYTES: u64 = 1 << 28;

/// Refuses what is not a regular file: opening a pipe or a device could block.
fn require_file(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_file() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "not a file"))
}

/// Returns the bytes of a regular file of at most [`MAX_BYTES`].
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    require_file(path)?;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint folder: `tokenizer.json`, or, if there is none, `tiktoken.model` with the
    /// control tokens of `tokenizer_config.json` (Moonlight, Kimi-K2).
    ///
    /// # Errors
    /// - [`GenerationError::TokenizerRead`] if there is neither, or a file cannot be read.
    /// - [`GenerationError::TokenizerFormat`] if `tokenizer.json` is not a tokenizer, has a key or an id twice, or makes
    ///   text longer without bound; or if `tokenizer_config.json` has control tokens that do not fit `tiktoken.model`.
    /// - [`GenerationError::TokenizerRanks`] if `tiktoken.model` is malformed.
    pub fn load(checkpoint: impl AsRef<Path>) -> Result<Self> {
        let dir = checkpoint.as_ref();
        let is_there = |name: &str| dir.join(name).symlink_metadata().is_ok();
        if !is_there("tokenizer.json") && is_there(tiktoken::RANKS_FILE) {
            return Self::new(tiktoken::load(dir)?, dir.join(tiktoken::RANKS_FILE));
        }
        Self::from_file(dir.join("tokenizer.json"))
    }

    /// Reads a file in the format of `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read(path).map_err(|source| GenerationError::TokenizerRead { path: path.to_path_buf(), source })?;
        let format = |message: String| GenerationError::TokenizerFormat { path: path.to_path_buf(), message };
        if let Some(found) = ForeignFile::of(&bytes) {
            return Err(format(format!("is {found}")));
        }
        let added = json::check(&bytes).map_err(format)?;
        let tokenizer =
            caught_in_tokenizers(|| parse(&bytes)).map_err(format)?.map_err(|error| format(error.to_string()))?;
        for token in added.iter().filter(|token| !token.content.is_empty()) {
            let found = tokenizer.token_to_id(&token.content).map(u64::from);
            if found != Some(token.id) {
                let (content, id) = (one_line(&token.content), token.id);
                let found = found.map_or("none".to_string(), |found| format!("id {found}"));
                return Err(format(format!(
                    "added_tokens: `{content}` has id {id}, but its position in the list gives it {found}"
                )));
            }
        }
        Self::new(tokenizer, path.to_path_buf())
    }

    fn new(tokenizer: tokenizers::Tokenizer, path: PathBuf) -> Result<Self> {
        let vocab_size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let added = AddedTokens::new(&tokenizer)
            .map_err(|message| GenerationError::TokenizerFormat { path: path.clone(), message })?;
        Ok(Self { inner: Arc::new(Inner { tokenizer, added, path, vocab_size, byte_level, longest: OnceLock::new() }) })
    }

    /// Returns the largest id + 1.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// Checks that every id is below `model`, the model's `vocab_size`; a model may have more entries than the tokenizer.
    ///
    /// # Errors
    /// [`GenerationError::TokenizerVocabulary`] names both sizes.
    pub fn check_vocab_size(&self, model: usize) -> Result<()> {
        if self.vocab_size() <= model {
            return Ok(());
        }
        let path = self.inner.path.clone();
        Err(GenerationError::TokenizerVocabulary { path, tokenizer: self.vocab_size(), model })
    }

    /// Checks by its size that a text may fit a context of `max_context` tokens: a text of more bytes than that many of
    /// the longest token have cannot. This takes no time, where tokenizing a large text does. Texts below 1 MiB pass.
    ///
    /// # Errors
    /// [`GenerationError::PromptTooLarge`] names both sizes.
    pub fn check_size(&self, text: &str, max_context: usize) -> Result<()> {
        const LARGE: usize = 1 << 20;
        if text.len() < LARGE {
            return Ok(());
        }
        let ids = 0..self.vocab_size() as u32;
        let longest = self.inner.longest.get_or_init(|| ids.map(|id| self.token_bytes(id).len()).max().unwrap_or(0));
        let most = longest.saturating_mul(max_context);
        if text.len() <= most {
            return Ok(());
        }
        Err(GenerationError::PromptTooLarge { bytes: text.len(), most, max_context })
    }

    /// Returns the ids of a text. `add_special_tokens` runs the tokenizer's post-processor, which adds a begin token if
    /// the tokenizer has one. Special tokens written out in the text become their ids in any case.
    ///
    /// # Errors
    /// [`GenerationError::Tokenizer`] if the tokenizer fails.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.run(|tokenizer| tokenizer.encode_fast(text, add_special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the ids of a text of which some ranges come from outside: control tokens that are written out there are
    /// encoded as plain text. The rest is encoded as by [`Self::encode`] without special tokens.
    ///
    /// - `outside`: byte ranges of `text`, ascending, apart, at character boundaries.
    ///
    /// # Errors
    /// [`GenerationError::Tokenizer`] if the tokenizer fails.
    pub fn encode_guarded(&self, text: &str, outside: &[Range<usize>]) -> Result<Vec<u32>> {
        self.run(|tokenizer| guarded::encode(tokenizer, &self.inner.added, text, outside))
    }

    /// Returns the first control token that is written out in a text.
    pub fn find_control_token<'a>(&self, text: &'a str) -> Option<&'a str> {
        self.inner.added.find(text)
    }

    /// Returns the text of ids. Ids without a token add nothing; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`GenerationError::Tokenizer`] if the tokenizer fails.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String> {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| self.is_text(id, special)).collect();
        self.run(|tokenizer| tokenizer.decode(&ids, false))
    }

    /// Returns the id of a token that is written as in `tokenizer.json`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// Returns the token of an id, written as in `tokenizer.json`.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// Returns the bytes that an id adds to a text; they may be a part of a character. Added tokens are their own text,
    /// and so are all tokens of a tokenizer that is not byte-level. An id without a token has no bytes.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.id_to_token(id) else { return Vec::new() };
        let added = self.inner.tokenizer.get_added_vocabulary().simple_id_to_token(id).is_some();
        if added || !self.is_byte_level() {
            return token.into_bytes();
        }
        let mut bytes = Vec::new();
        push_bytes(&token, &mut bytes);
        bytes
    }

    /// Returns a decoder for ids that come one by one.
    pub fn detokenizer(&self, special: SpecialTokens) -> Detokenizer {
        Detokenizer::new(self.clone(), special)
    }

    /// Returns the tokenizer of the `tokenizers` crate.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner.tokenizer
    }

    /// Calls `body` with the tokenizer of the `tokenizers` crate; its panics become errors.
    fn run<T>(&self, body: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T>) -> Result<T> {
        let failed = |message: String| GenerationError::Tokenizer { path: self.inner.path.clone(), message };
        caught_in_tokenizers(|| body(&self.inner.tokenizer)).map_err(failed)?.map_err(|error| failed(error.to_string()))
    }

    /// Whether tokens stand for bytes, so that a text is the concatenation of its tokens' bytes.
    pub(super) fn is_byte_level(&self) -> bool {
        self.inner.byte_level
    }

    /// Whether an id has a token that comes out as text.
    pub(super) fn is_text(&self, id: u32, special: SpecialTokens) -> bool {
        let keep = |token: &str| {
            special == SpecialTokens::Keep
                || is_tag(token)
                || !self.inner.tokenizer.get_added_vocabulary().is_special_token(token)
        };
        self.id_to_token(id).is_some_and(|token| keep(&token))
    }
}

/// Whether a token is a tag, which [`SpecialTokens::Drop`] keeps.
fn is_tag(token: &str) -> bool {
    let name = token.strip_prefix('<').and_then(|token| token.strip_suffix('>'));
    let name = name.map(|name| name.strip_prefix('/').unwrap_or(name));
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
}

fn parse(bytes: &[u8]) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)?;
    // Left over from training: they would cut, fill up or randomise prompts.
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
    Ok(tokenizer)
}
