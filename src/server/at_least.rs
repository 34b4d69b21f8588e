//! A fewest number of tokens for an answer.

use crate::generation::{Constraint, TokenSet};

/// Forbids the tokens that would end an answer while it has too few tokens.
#[derive(Debug, Clone)]
pub struct AtLeast {
    /// How many tokens are missing.
    missing: usize,
    others: TokenSet,
}

impl AtLeast {
    /// Forbids `ends` for the first `tokens` tokens; ids are below `vocab_size`.
    pub fn new(tokens: usize, ends: &[u32], vocab_size: usize) -> Self {
        let ids = 0..u32::try_from(vocab_size).unwrap_or(u32::MAX);
        Self { missing: tokens, others: ids.filter(|id| !ends.contains(id)).collect() }
    }
}

impl Constraint for AtLeast {
    fn allowed(&mut self) -> Result<Option<TokenSet>, String> {
        Ok((self.missing > 0).then(|| self.others.clone()))
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.missing = self.missing.saturating_sub(1);
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}
