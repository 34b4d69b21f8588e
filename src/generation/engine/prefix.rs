//! Beginnings of sequences that later prompts share: earlier turns of a conversation, or common instructions.

use std::collections::VecDeque;

use super::super::error::Result;
use super::super::token_model::TokenModel;
use super::answer::Answer;
use super::{Engine, Sequence};
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
    /// Experts of the cached tokens, `[cached, layers, experts_per_token]`, if the request recorded them.
    routes: Option<Vec<u16>>,
}

/// A place in the cache for a prompt.
pub(super) struct Place<S> {
    pub handle: S,
    /// Tokens that are there already.
    pub cached: usize,
    /// Their experts, if the request records them.
    pub routes: Option<Vec<u16>>,
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
    /// A place in the cache for a request's prompt, with what is there of it already.
    ///
    /// Only whole pages are shared, so that no sequence writes to a page of another, and the last token of the prompt is
    /// always left to do. A request that records routes shares with those alone that recorded them too.
    pub(super) fn place(&mut self, answer: &Answer) -> Result<Place<M::Sequence>> {
        let (prompt, records) = (&answer.ids, answer.records_routes());
        if self.options.prefix_tokens > 0 {
            let drafts = usize::from(self.options.draft_tokens > 0);
            // The MTP layer's row at a position depends on the token after it, so that one must agree too.
            let usable = |ids: &[u32], cached: usize| {
                let agreed = common(ids, prompt).saturating_sub(drafts);
                agreed.min(cached).min(prompt.len().saturating_sub(1)) / PAGE_SIZE * PAGE_SIZE
            };
            let kept = self.prefixes.kept.iter().enumerate();
            let kept = kept.map(|(at, prefix)| {
                (usable(&prefix.ids, prefix.cached), Some(at), prefix.handle, prefix.routes.as_deref())
            });
            let running = self.running.iter().map(|sequence| {
                let tokens = usable(&sequence.answer.ids, sequence.whole);
                (tokens, None, sequence.handle, sequence.routes.as_deref())
            });
            let shared = running.chain(kept).filter(|(.., routes)| !records || routes.is_some());
            if let Some((tokens, at, handle, routes)) = shared.max_by_key(|&(tokens, ..)| tokens)
                && tokens > 0
                && let Some(forked) = self.model.fork(handle, tokens)?
            {
                let row = self.model.route_shape().map_or(0, |shape| shape.row());
                let routes = routes.filter(|_| records).map(|routes| routes[..tokens * row].to_vec());
                if let Some(prefix) = at.and_then(|at| self.prefixes.kept.remove(at)) {
                    self.prefixes.kept.push_back(prefix);
                }
                return Ok(Place { handle: forked, cached: tokens, routes });
            }
        }
        Ok(Place { handle: self.model.create(), cached: 0, routes: records.then(Vec::new) })
    }

    /// A sequence ended with `cached` right rows in the main layers: keeps its whole pages for prompts to come, as
    /// far as the options allow.
    pub(super) fn retire(&mut self, sequence: &Sequence<M::Sequence>) -> Result<()> {
        let drafts = self.options.draft_tokens > 0;
        let cached = if drafts { sequence.whole } else { sequence.cached } / PAGE_SIZE * PAGE_SIZE;
        if cached == 0 || cached > self.options.prefix_tokens {
            self.model.free(sequence.handle);
            return Ok(());
        }
        self.model.truncate(sequence.handle, cached)?;
        let ids = sequence.answer.ids[..cached + usize::from(drafts)].to_vec();
        let row = self.model.route_shape().map_or(0, |shape| shape.row());
        let routes = sequence.routes.as_ref().map(|routes| routes[..cached * row].to_vec());
        // What a longer one begins with needs no place of its own, unless it alone has routes.
        self.prefixes.kept.retain(|old| {
            let covered = ids.starts_with(&old.ids) && (routes.is_some() || old.routes.is_none());
            if covered {
                self.model.free(old.handle);
            }
            !covered
        });
        self.prefixes.kept.push_back(Prefix { handle: sequence.handle, cached, ids, routes });
        while self.prefixes.tokens() > self.options.prefix_tokens {
            self.prefixes.drop_oldest(&mut self.model);
        }
        Ok(())
    }
}
