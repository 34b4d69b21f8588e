//! The engine's options and its counters.

use super::error::Result;
use super::params::parameter;
use crate::ops::layout::PAGE_SIZE;

/// Options of an [`Engine`](super::Engine).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most sequences that run at once, at least 1; more wait. Default 64.
    pub max_sequences: usize,
    /// Most tokens of one prompt that go through the model in one step, at least 1. Default 2048.
    pub prefill_chunk: usize,
    /// Most tokens that go through the model in one step: first one (and its drafts) of every sequence that
    /// answers, then chunks of prompts, oldest first. More than `max_sequences * (1 + draft_tokens)`, so that
    /// neither answers nor prompts ever starve. Default 4096.
    pub step_tokens: usize,
    /// Least tokens that each prompt adds to a step that generates tokens of answers too, at least 1. All prompts together
    /// get the sum of what they add, or what `prefill_per_decode` allows if that is more; without answers, they get all of
    /// `step_tokens`. A small number keeps answers from waiting while a long prompt is read; many prompts get larger
    /// steps. A prompt adds more if a chunk costs more than its rows
    /// ([`TokenModel::chunk_overhead`](super::TokenModel::chunk_overhead)). The default suits a CPU; on a GPU, where a row
    /// costs little compared with the weights, some hundreds do. Default 16.
    pub mixed_prefill_tokens: usize,
    /// Tokens of prompts that each row of an answer, drafts included, allows in the same step: with 2, many answers keep a
    /// third of the step's rows. Default 2.
    pub prefill_per_decode: usize,
    /// Most cached tokens of all running sequences, each rounded up to whole pages of 64. A request waits until
    /// its prompt and `max_tokens` fit, so a running sequence never loses its place. At least 64. Default: no bound.
    pub max_cached_tokens: Option<usize>,
    /// Most tokens of ended requests that stay cached, in whole pages of 64, so that a prompt which begins as one of
    /// them does, need not go through the model again; those not used for longest go first. They count for
    /// `max_cached_tokens`, but give way. Above 0, prompts share with requests that run, too. Default 0.
    pub prefix_tokens: usize,
    /// Tokens that the MTP layer drafts for every sequence and step; 0 = no speculative decoding. Drafts after the
    /// first come from the layer's own output after its norm. Default 0.
    pub draft_tokens: usize,
    /// From this and the request's number come the seeds of requests that have none. Default 0.
    pub seed: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_sequences: 64,
            prefill_chunk: 2048,
            step_tokens: 4096,
            mixed_prefill_tokens: 16,
            prefill_per_decode: 2,
            max_cached_tokens: None,
            prefix_tokens: 0,
            draft_tokens: 0,
            seed: 0,
        }
    }
}

impl EngineOptions {
    /// The default with one drafted token if `speculative`.
    pub fn speculative(speculative: bool) -> Self {
        Self { draft_tokens: speculative.into(), ..Self::default() }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`GenerationError::Parameter`](super::GenerationError::Parameter) names the first field outside its range.
    pub fn validate(&self) -> Result<()> {
        if self.max_sequences == 0 {
            return Err(parameter("max_sequences", 0, "at least 1"));
        }
        if self.prefill_chunk == 0 {
            return Err(parameter("prefill_chunk", 0, "at least 1"));
        }
        if self.mixed_prefill_tokens == 0 {
            return Err(parameter("mixed_prefill_tokens", 0, "at least 1"));
        }
        if let Some(max) = self.max_cached_tokens.filter(|&max| max < PAGE_SIZE) {
            return Err(parameter("max_cached_tokens", max, "at least one page, 64"));
        }
        let answers = self.max_sequences.saturating_mul(self.draft_tokens.saturating_add(1));
        if self.step_tokens <= answers {
            return Err(parameter("step_tokens", self.step_tokens, "more than max_sequences * (1 + draft_tokens)"));
        }
        Ok(())
    }
}

/// Counters of an engine since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Steps that ran the model.
    pub steps: usize,
    /// Tokens of prompts that went through the model.
    pub prompt_tokens: usize,
    /// Requests that began with tokens which were in the cache already.
    pub prefix_hits: usize,
    /// Those tokens, which did not go through the model again.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Tokens drafted by the MTP layer and verified.
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
    /// Seconds spent on prompts.
    pub prefill_seconds: f64,
    /// Seconds spent on answers. A step that does both is split by its number of rows.
    pub decode_seconds: f64,
}

impl Stats {
    /// Share of the drafted tokens that were right, in `[0, 1]`; `None` if there were none.
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64)
    }

    /// Adds the time of a pass over so many rows of prompts and of answers.
    pub(super) fn add_time(&mut self, seconds: f64, prompt_rows: usize, answer_rows: usize) {
        let share = prompt_rows as f64 / (prompt_rows + answer_rows).max(1) as f64;
        self.prefill_seconds += seconds * share;
        self.decode_seconds += seconds * (1.0 - share);
    }
}
