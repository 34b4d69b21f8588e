//! A grammar that an answer must follow.

use std::fmt::Debug;

/// Tokens, as a set of ids below a vocabulary's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
}

impl TokenSet {
    /// A set from its bits: id `i` is bit `i % 32` of word `i / 32`. Ids beyond the last word are not in it.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// Its bits, as [`Self::from_words`] takes them.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Whether it holds an id.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }
}

impl FromIterator<u32> for TokenSet {
    fn from_iter<T: IntoIterator<Item = u32>>(ids: T) -> Self {
        let mut words = Vec::new();
        for id in ids {
            let at = id as usize / 32;
            if at >= words.len() {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (id % 32);
        }
        Self { words }
    }
}

/// Says, token by token, what may come next in one answer.
///
/// The engine asks for [`Self::allowed`], chooses one of these tokens and reports it with [`Self::accept`]. Guesses
/// of speculative decoding are never reported before they are chosen.
pub trait Constraint: Debug + Send + Sync {
    /// The tokens that may come next; `None` = any. Stop ids must be among them where the answer may end.
    ///
    /// # Errors
    /// One line: why no token can follow.
    fn allowed(&mut self) -> Result<Option<TokenSet>, String>;

    /// A token was chosen; stop ids are reported too.
    ///
    /// # Errors
    /// One line that says why the token is not allowed here.
    fn accept(&mut self, id: u32) -> Result<(), String>;

    /// A copy in the same state.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}
