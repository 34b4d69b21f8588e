//! Text to ids where control tokens count only in what the prompt's format wrote.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// The tokens that a tokenizer takes out of a text before anything else.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// Finds them, of those that begin at the same place the longest.
    finder: AhoCorasick,
    /// The id of each pattern of `finder`.
    ids: Vec<u32>,
}

impl AddedTokens {
    /// Those of a tokenizer.
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer) -> Result<Self, String> {
        let decoder = tokenizer.get_added_tokens_decoder();
        let tokens: Vec<_> = decoder.into_iter().filter(|(_, token)| !token.content.is_empty()).collect();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(_, token)| &token.content))
            .map_err(|error| format!("added_tokens: {error}"))?;
        Ok(Self { finder, ids: tokens.into_iter().map(|(id, _)| id).collect() })
    }

    /// The first token in a text.
    pub(super) fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        self.finder.find(text).map(|token| &text[token.range()])
    }

    /// Whether a token lies in a range from outside or crosses the ends of one.
    fn touch(&self, text: &str, outside: &[Range<usize>]) -> bool {
        self.finder.find_iter(text).any(|token| {
            let next = outside.partition_point(|range| range.end <= token.start());
            outside.get(next).is_some_and(|range| range.start < token.end())
        })
    }
}

/// See [`Tokenizer::encode_guarded`](super::Tokenizer::encode_guarded).
pub(super) fn encode(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedTokens,
    text: &str,
    outside: &[Range<usize>],
) -> tokenizers::Result<Vec<u32>> {
    if !added.touch(text, outside) {
        return Ok(tokenizer.encode_fast(text, false)?.get_ids().to_vec());
    }
    let mut ids = Vec::new();
    // Plain text runs on from one stretch to the next: only a control token ends it.
    let mut plain = 0;
    let mut at = 0;
    for range in outside.iter().cloned().chain(std::iter::once(text.len()..text.len())) {
        for token in added.finder.find_iter(&text[at..range.start]) {
            encode_plain(tokenizer, &text[plain..at + token.start()], &mut ids)?;
            ids.push(added.ids[token.pattern().as_usize()]);
            plain = at + token.end();
        }
        at = range.end;
    }
    encode_plain(tokenizer, &text[plain..], &mut ids)?;
    Ok(ids)
}

/// The ids of a text in which nothing is a control token.
fn encode_plain(tokenizer: &tokenizers::Tokenizer, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    let mut pre_tokenized = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pre_tokenized)?;
    }
    pre_tokenized.tokenize(|piece| tokenizer.get_model().tokenize(piece.get()))?;
    for (_, _, tokens) in pre_tokenized.get_splits(OffsetReferential::Original, OffsetType::None) {
        ids.extend(tokens.iter().flatten().map(|token| token.id));
    }
    Ok(())
}
