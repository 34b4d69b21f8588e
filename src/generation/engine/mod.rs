//! Many sequences in one batch.

mod answer;
mod draft;
mod prefix;
mod step;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::error::{GenerationError, Result};
use super::options::{EngineOptions, Stats};
use super::record::Routes;
use super::request::{Event, Request, RequestId};
use super::stop::FinishReason;
use super::token_model::TokenModel;
use super::tokenizer::Tokenizer;
use crate::model::Model;
use crate::ops::layout::PAGE_SIZE;
use answer::Answer;
use prefix::{Place, Prefixes};

/// Generates for many requests at once.
///
/// In every step the engine puts the next token of each answer and the next chunk of each prompt into one
/// flattened batch, runs the model once and chooses tokens. Requests join and leave between steps. What a request
/// yields does not depend on the others, given a model whose rows do not: the crate's own gives the same bits alone and
/// beside others, whatever the chunks, except on processors with AMX (see [`ops::linear`](fn@crate::ops::linear)). Shared
/// prefixes are another exception: pages that an earlier request computed may differ in the last bits from those that
/// this one would have computed.
///
/// # Speculative decoding
/// The MTP layer guesses the tokens after the one just chosen (`draft_tokens` of them, greedily). One pass of the
/// main model gives the logits at all these positions. Then the sampler goes through them as it would one by one:
/// it chooses a token with the sequence's own random numbers, penalties, bias and stop rules; if that is the
/// guessed one, the next row is valid too, else the rest is rolled back. So a guess never changes what is chosen:
/// answers, greedy or sampled, are those of plain decoding token for token, with the same seed. Rejection sampling
/// would keep the distribution but not the tokens.
#[derive(Debug)]
pub struct Engine<M: TokenModel> {
    model: M,
    tokenizer: Option<Tokenizer>,
    options: EngineOptions,
    waiting: VecDeque<Answer>,
    running: Vec<Sequence<M::Sequence>>,
    prefixes: Prefixes<M::Sequence>,
    events: Vec<(RequestId, Result<Event>)>,
    stats: Stats,
    next_id: u64,
    weights_version: u64,
}

/// A request that has a place in the cache.
#[derive(Debug)]
struct Sequence<S> {
    answer: Answer,
    handle: S,
    /// Tokens in the cache: those of `answer.ids` up to here.
    cached: usize,
    /// Those of them that every layer that runs has seen: with drafts, the MTP layer too.
    whole: usize,
    block_table: Vec<u32>,
    /// Experts of the cached tokens, `[cached, layers, experts_per_token]`, if the request records them.
    routes: Option<Vec<u16>>,
    /// Hidden states `[n, hidden]` at the last `n` cached positions, where the MTP layer has not been yet.
    pending: Option<Tensor>,
}

impl<S> Sequence<S> {
    /// Whether tokens are being generated, so that exactly the last one is not cached.
    fn answers(&self) -> bool {
        self.answer.usage.generated_tokens > 0
    }

    /// The whole run of prompt positions that are prefilled, if `position` is one of them, whatever chunk is due.
    fn prefill(&self, position: usize) -> Option<Range<usize>> {
        let run = self.answer.usage.cached_tokens..self.answer.usage.prompt_tokens;
        run.contains(&position).then_some(run)
    }
}

impl<M: TokenModel> Engine<M> {
    /// An engine that gives ids only.
    ///
    /// # Errors
    /// [`GenerationError::Parameter`] for an option outside its range, [`GenerationError::NoMtp`] if
    /// `draft_tokens > 0` and the model has no MTP layer.
    pub fn new(model: M, options: EngineOptions) -> Result<Self> {
        options.validate()?;
        if options.draft_tokens > 0 && !model.has_mtp() {
            return Err(GenerationError::NoMtp);
        }
        Ok(Self {
            model,
            tokenizer: None,
            options,
            waiting: VecDeque::new(),
            running: Vec::new(),
            prefixes: Prefixes::default(),
            events: Vec::new(),
            stats: Stats::default(),
            next_id: 0,
            weights_version: 0,
        })
    }

    /// The same engine, giving text too and knowing stop strings.
    ///
    /// # Errors
    /// [`GenerationError::TokenizerVocabulary`] if the tokenizer has ids that the model has not.
    pub fn with_tokenizer(mut self, tokenizer: Tokenizer) -> Result<Self> {
        tokenizer.check_vocab_size(self.model.vocab_size())?;
        self.tokenizer = Some(tokenizer);
        Ok(self)
    }

    /// Adds a request. It starts in the first step whose bounds allow it, after the requests added before.
    ///
    /// # Errors
    /// A typed error that names what is wrong with the request: an empty or too long prompt, an unknown id, a
    /// parameter outside its range, stop strings without a tokenizer, or more tokens than `max_cached_tokens`.
    pub fn add(&mut self, request: Request) -> Result<RequestId> {
        let id = RequestId(self.next_id);
        let seed = mix(self.options.seed, id.0);
        let (vocab_size, max_context) = (self.model.vocab_size(), self.model.max_context());
        let answer = Answer::new(id, request, self.tokenizer.as_ref(), vocab_size, max_context, seed)?;
        if answer.records_routes() && self.model.route_shape().is_none() {
            return Err(GenerationError::NoRoutes);
        }
        if let Some(max_cached_tokens) = self.options.max_cached_tokens {
            let needed = reserved(&answer);
            if needed > max_cached_tokens {
                return Err(GenerationError::NeverFits { needed, max_cached_tokens });
            }
        }
        self.waiting.push_back(answer);
        self.next_id += 1;
        Ok(id)
    }

    /// Ends a request: the next step frees its cache and reports it as cancelled. `false` if it is not (any more)
    /// in the engine.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let answers = self.waiting.iter_mut().chain(self.running.iter_mut().map(|sequence| &mut sequence.answer));
        let found = answers.into_iter().find(|answer| answer.id == request);
        found.map(|answer| answer.cancelled = true).is_some()
    }

    /// Whether there is nothing to do and nothing to report.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.events.is_empty()
    }

    /// Requests that have a place in the cache; others wait.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Runs the model once over all that is due, and returns what happened to which request. An error
    /// beside a request means that a token of it could not be chosen or decoded; other requests are not affected.
    ///
    /// # Errors
    /// If the model fails. The step is then undone, and calling again tries again; [`Self::cancel`] gives up.
    pub fn step(&mut self) -> Result<Vec<(RequestId, Result<Event>)>> {
        self.advance()?;
        Ok(std::mem::take(&mut self.events))
    }

    /// Counters since the engine was made.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Frees the kept tokens of ended requests, whatever `prefix_tokens` allows; returns how many there were. Requests
    /// that run keep what they share, and are kept in their turn when they end.
    pub fn flush_prefixes(&mut self) -> usize {
        let tokens = self.prefixes.tokens();
        while self.prefixes.drop_oldest(&mut self.model) {}
        tokens
    }

    /// Tokens of ended requests that are kept, in whole pages of 64.
    pub fn prefix_tokens(&self) -> usize {
        self.prefixes.tokens()
    }

    /// Replaces the model's weights by those of a model with the same config, dtype and device, and flushes the prefixes:
    /// what the old weights computed is not shared with later requests. `version` names the new weights from now on.
    ///
    /// # Errors
    /// [`GenerationError::Swap`] if a request runs or waits, or the model refuses; the weights are then the old ones.
    pub fn swap_weights(&mut self, weights: Arc<Model>, version: u64) -> Result<()> {
        if !self.waiting.is_empty() || !self.running.is_empty() {
            let (running, waiting) = (self.running.len(), self.waiting.len());
            return Err(GenerationError::Swap(format!("{running} requests run and {waiting} wait")));
        }
        self.flush_prefixes();
        self.model.set_weights(weights).map_err(|error| GenerationError::Swap(error.to_string()))?;
        self.weights_version = version;
        Ok(())
    }

    /// The version of the weights: 0, or what the latest [`Self::swap_weights`] named.
    pub fn weights_version(&self) -> u64 {
        self.weights_version
    }

    /// Hands the model back; the slots of unfinished requests are freed.
    pub fn into_model(mut self) -> M {
        for sequence in &self.running {
            self.model.free(sequence.handle);
        }
        self.flush_prefixes();
        self.model
    }

    /// Drops a request, if it is still there, without an event.
    pub(super) fn forget(&mut self, request: RequestId) {
        self.waiting.retain(|answer| answer.id != request);
        if let Some(at) = self.running.iter().position(|sequence| sequence.answer.id == request) {
            self.model.free(self.running.remove(at).handle);
        }
        self.events.retain(|(of, _)| *of != request);
    }

    /// Puts events back that the caller of the next [`Self::step`] is to see.
    pub(super) fn put_back(&mut self, events: Vec<(RequestId, Result<Event>)>) {
        self.events.splice(0..0, events);
    }

    /// Reports the end of a request, with the experts of its cached tokens if it records them.
    fn report(&mut self, mut answer: Answer, reason: FinishReason, expert_ids: Option<Vec<u16>>) {
        let shape = expert_ids.and_then(|expert_ids| Some((expert_ids, self.model.route_shape()?)));
        let routes = shape.map(|(expert_ids, shape)| Routes {
            layers: shape.layers,
            experts_per_token: shape.experts_per_token,
            expert_ids,
        });
        let record = answer.record(self.weights_version, routes);
        let text = answer.finish(&reason);
        let end = text.map(|text| Event::Finished { reason, text, usage: answer.usage, record });
        self.events.push((answer.id, end));
    }

    /// Ends the requests that were cancelled.
    fn remove_cancelled(&mut self) {
        for answer in std::mem::take(&mut self.waiting) {
            if answer.is_cancelled() {
                let routes = answer.records_routes().then(Vec::new);
                self.report(answer, FinishReason::Cancelled, routes);
            } else {
                self.waiting.push_back(answer);
            }
        }
        while let Some(at) = self.running.iter().position(|sequence| sequence.answer.is_cancelled()) {
            let sequence = self.running.remove(at);
            self.model.free(sequence.handle);
            self.report(sequence.answer, FinishReason::Cancelled, sequence.routes);
        }
    }

    /// Gives waiting requests a place in the cache, oldest first, as long as the bounds allow.
    fn admit(&mut self) -> Result<()> {
        let mut used: usize = self.running.iter().map(|sequence| reserved(&sequence.answer)).sum();
        while self.running.len() < self.options.max_sequences {
            let Some(answer) = self.waiting.front() else { break };
            used = used.saturating_add(reserved(answer));
            if let Some(max) = self.options.max_cached_tokens {
                while used.saturating_add(self.prefixes.tokens()) > max && self.prefixes.drop_oldest(&mut self.model) {}
                if used > max {
                    break;
                }
            }
            if let Some(mut answer) = self.waiting.pop_front() {
                let Place { handle, cached, routes } = self.place(&answer)?;
                answer.usage.cached_tokens = cached;
                self.stats.prefix_hits += usize::from(cached > 0);
                self.stats.cached_tokens += cached;
                let (block_table, pending) = (Vec::new(), None);
                self.running.push(Sequence { answer, handle, cached, whole: cached, block_table, routes, pending });
            }
        }
        Ok(())
    }
}

/// Cache slots a request may come to need: all its tokens but the last, which is never cached, in whole pages.
fn reserved(answer: &Answer) -> usize {
    (answer.max_len - 1).div_ceil(PAGE_SIZE) * PAGE_SIZE
}

/// A seed for request `number` (SplitMix64).
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
