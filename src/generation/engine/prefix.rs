//! Beginnings of sequences that later prompts share: a conversation that goes on, or instructions common to many.

use std::collections::VecDeque;

use super::super::error::Result;
use super::super::token_model::TokenModel;
use super::Engine;
use crate::ops::layout::PAGE_SIZE;

/// Whole pages of sequences that ended, the one used last at the back.
#[derive(Debug)]
pub(super) struct Prefixes<S> {
    kept: VecDeque<Prefix<S>>,
}

/// The beginning of a sequence that ended.
#[derive(Debug)]
struct Prefix<S> {
    handle: S,
    /// Tokens in the cache: whole pages.
    cached: usize,
    /// These tokens and, where the MTP layer saw it, the one after them.
    ids: Vec<u32>,
}

impl<S> Default for Prefixes<S> {
    fn default() -> Self {
        Self { kept: VecDeque::new() }
    }
}

impl<S: Copy> Prefixes<S> {
    /// Slots that are kept.
    pub fn tokens(&self) -> usize {
        self.kept.iter().map(|prefix| prefix.cached).sum()
    }

    /// Frees the one that was not used for longest; `false` if there is none.
    pub fn drop_oldest(&mut self, model: &mut impl TokenModel<Sequence = S>) -> bool {
        let oldest = self.kept.pop_front();
        oldest.map(|prefix| model.free(prefix.handle)).is_some()
    }
}

/// Length of the common beginning.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl<M: TokenModel> Engine<M> {
    /// A place in the cache for a prompt, and how many tokens of it are there already.
    ///
    /// Only whole pages are shared, so that nobody writes to a page of another, and the last token of the prompt is
    /// always left to do.
    pub(super) fn place(&mut self, prompt: &[u32]) -> Result<(M::Sequence, usize)> {
        if self.options.prefix_tokens > 0 {
            let drafts = usize::from(self.options.draft_tokens > 0);
            // The MTP layer's row at a position depends on the token after it, so that one must agree too.
            let usable = |ids: &[u32], cached: usize| {
                let agreed = common(ids, prompt).saturating_sub(drafts);
                agreed.min(cached).min(prompt.len().saturating_sub(1)) / PAGE_SIZE * PAGE_SIZE
            };
            let kept = self.prefixes.kept.iter().enumerate();
            let kept = kept.map(|(at, prefix)| (usable(&prefix.ids, prefix.cached), Some(at), prefix.handle));
            let running = self.running.iter();
            let running = running.map(|sequence| (usable(&sequence.answer.ids, sequence.whole), None, sequence.handle));
            if let Some((tokens, at, handle)) = running.chain(kept).max_by_key(|&(tokens, ..)| tokens)
                && tokens > 0
                && let Some(forked) = self.model.fork(handle, tokens)?
            {
                if let Some(prefix) = at.and_then(|at| self.prefixes.kept.remove(at)) {
                    self.prefixes.kept.push_back(prefix);
                }
                return Ok((forked, tokens));
            }
        }
        Ok((self.model.create(), 0))
    }

    /// A sequence ended with `cached` right rows in the main layers: keeps its whole pages for prompts to come, as
    /// far as the options allow.
    pub(super) fn retire(&mut self, handle: M::Sequence, ids: &[u32], cached: usize, whole: usize) -> Result<()> {
        let drafts = self.options.draft_tokens > 0;
        let cached = if drafts { whole } else { cached } / PAGE_SIZE * PAGE_SIZE;
        if cached == 0 || cached > self.options.prefix_tokens {
            self.model.free(handle);
            return Ok(());
        }
        self.model.truncate(handle, cached)?;
        let ids = ids[..cached + usize::from(drafts)].to_vec();
        // What a longer one begins with needs no place of its own.
        self.prefixes.kept.retain(|old| {
            let covered = ids.starts_with(&old.ids);
            if covered {
                self.model.free(old.handle);
            }
            !covered
        });
        self.prefixes.kept.push_back(Prefix { handle, cached, ids });
        while self.prefixes.tokens() > self.options.prefix_tokens {
            self.prefixes.drop_oldest(&mut self.model);
        }
        Ok(())
    }
}
