//! A fewest number of tokens for an answer.

use std::collections::HashSet;

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
    /// `None` if every token is an end.
    pub fn new(tokens: usize, ends: &[u32], vocab_size: usize) -> Option<Self> {
        let ends: HashSet<u32> = ends.iter().copied().collect();
        let mut others = (0..u32::try_from(vocab_size).unwrap_or(u32::MAX)).filter(|id| !ends.contains(id)).peekable();
        others.peek()?;
        Some(Self { missing: tokens, others: others.collect() })
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
