//! A tokenizer's tokens as bytes.

use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::super::byte_level::byte_of;
use super::super::error::{GenerationError, Result};
use super::super::tokenizer::Tokenizer;

/// The longest token that a trie takes.
const MAX_TOKEN: usize = 1000;

/// The bytes of every token of a model.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// By id; empty for ids without a token and for control tokens.
    texts: Vec<Vec<u8>>,
    /// The text of control tokens, by id.
    controls: Vec<(u32, Vec<u8>)>,
    /// Ids of `texts` in the order of their bytes.
    sorted: Vec<u32>,
    eos_ids: Vec<u32>,
}

/// What llguidance asks of a tokenizer.
struct Environment {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

impl Vocabulary {
    pub fn new(tokenizer: &Tokenizer, eos_ids: &[u32], size: usize) -> Result<Self> {
        if !tokenizer.is_byte_level() {
            return Err(GenerationError::Grammar("the tokenizer is not byte-level".to_string()));
        }
        let added = tokenizer.inner().get_added_tokens_decoder();
        let mut texts = vec![Vec::new(); size];
        for (token, id) in tokenizer.inner().get_vocab(true) {
            let text = token.chars().map(byte_of).collect();
            if let (Some(text), false) = (text, added.contains_key(&id)) {
                texts[id as usize] = text;
            }
        }
        let mut controls: Vec<_> = added.into_iter().map(|(id, token)| (id, token.content.into_bytes())).collect();
        controls.sort();
        if texts.iter().chain(controls.iter().map(|(_, text)| text)).any(|text| text.len() > MAX_TOKEN) {
            return Err(GenerationError::Grammar(format!("a token is longer than {MAX_TOKEN} bytes")));
        }
        let mut sorted: Vec<u32> = (0..size as u32).filter(|&id| !texts[id as usize].is_empty()).collect();
        sorted.sort_by(|&a, &b| texts[a as usize].cmp(&texts[b as usize]));
        Ok(Self { texts, controls, sorted, eos_ids: eos_ids.to_vec() })
    }

    /// The same for llguidance. A control token is text there too, after a byte that no text has.
    pub fn environment(&self, tokenizer: &Tokenizer) -> TokEnv {
        let mut words = self.texts.clone();
        for (id, text) in &self.controls {
            let word = &mut words[*id as usize];
            word.push(TokTrie::SPECIAL_TOKEN_MARKER);
            word.extend(text);
        }
        let info = TokRxInfo::new(words.len() as u32, self.eos_ids[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&self.eos_ids);
        Arc::new(Environment { tokenizer: tokenizer.clone(), trie })
    }

    /// Number of ids.
    pub fn size(&self) -> usize {
        self.texts.len()
    }

    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// What a token adds to the answer.
    pub fn text(&self, id: u32) -> &[u8] {
        match self.controls.binary_search_by_key(&id, |(control, _)| *control) {
            Ok(at) => &self.controls[at].1,
            Err(_) => self.texts.get(id as usize).map_or(&[], Vec::as_slice),
        }
    }

    /// The tokens that begin with some bytes.
    pub fn beginning_with(&self, bytes: &[u8]) -> &[u32] {
        let text = |id: u32| self.texts[id as usize].as_slice();
        let start = self.sorted.partition_point(|&id| text(id) < bytes);
        let len = self.sorted[start..].partition_point(|&id| text(id).starts_with(bytes));
        &self.sorted[start..start + len]
    }

    /// The tokens that hold some bytes.
    pub fn holding(&self, bytes: &[u8]) -> Vec<u32> {
        let holds = |id: &u32| self.texts[*id as usize].windows(bytes.len()).any(|window| window == bytes);
        self.sorted.iter().copied().filter(holds).collect()
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            // What a grammar wants as text is never a control token.
            let all = 0..text.len();
            self.tokenizer
                .encode_guarded(text, std::slice::from_ref(&all))
                .unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }
}
