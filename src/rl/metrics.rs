//! Numbers about one loss.

use serde::{Deserialize, Serialize};

/// Numbers about one call of [`loss`](crate::rl::loss).
///
/// Means of tokens run over the generated tokens of counted sequences, each with the same weight, whatever the
/// aggregation; they are 0 if there are none. `r = exp(logp - old_logp)`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Counted sequences.
    pub n_seq: usize,
    /// Generated tokens of counted sequences.
    pub n_tok: usize,
    /// The surrogate's part of the loss.
    pub pg_loss: f64,
    /// The divergence's part of the loss, weighted by `beta`. `pg_loss + kl_loss` is the loss.
    pub kl_loss: f64,
    /// Tokens with a negative advantage and `r < 1 - clip_low`.
    pub clip_frac_low: f64,
    /// Tokens with a positive advantage and `r > 1 + clip_high`.
    pub clip_frac_high: f64,
    /// Tokens with a negative advantage and `r > dual_clip`.
    pub dual_clip_frac: f64,
    /// Masked sequences over counted ones.
    pub opsm_seq_frac: f64,
    /// Tokens of masked sequences.
    pub opsm_tok_frac: f64,
    /// Mean of the chosen estimate of the divergence, in nats, without `beta`.
    pub mean_kl: f64,
    /// Mean of `r`.
    pub mean_ratio: f64,
    /// Greatest `r`.
    pub max_ratio: f64,
    /// Mean of `old_logp - logp`, in nats: the k1 estimate of the mismatch between sampler and policy.
    pub mean_old_minus_new: f64,
    /// Mean of `r - 1 - ln r`, in nats: the k3 estimate of the mismatch.
    pub mismatch_k3: f64,
    /// Groups whose rewards are all equal, over all groups of the step.
    pub zero_variance_frac: f64,
    /// Mean entropy of the policy on the kept sets, in nats. `None` without logits.
    pub mean_entropy: Option<f64>,
    /// Mean size of the kept sets. `None` without logits, or if kept sets are off.
    pub mean_kept: Option<f64>,
    /// Counted sequences with a positive advantage.
    pub n_seq_positive: usize,
    /// Counted sequences with a negative advantage.
    pub n_seq_negative: usize,
    /// Mean number of generated tokens of counted sequences with a positive advantage; 0 if there are none.
    pub mean_length_positive: f64,
    /// The same for a negative advantage.
    pub mean_length_negative: f64,
}

impl Metrics {
    /// The metrics of a step from those of its micro-batches: as if the step were one batch. The plan's
    /// `zero_variance_frac` is the same in all of them.
    pub fn merged(parts: &[Self]) -> Self {
        let sum = |value: fn(&Self) -> f64| parts.iter().map(value).sum::<f64>();
        let count = |value: fn(&Self) -> usize| parts.iter().map(value).sum::<usize>();
        // Each mean with the count that it is over.
        let mean = |value: fn(&Self) -> f64, over: fn(&Self) -> usize| {
            let weighted = parts.iter().filter(|part| over(part) > 0).map(|part| value(part) * over(part) as f64);
            weighted.sum::<f64>() / count(over).max(1) as f64
        };
        let of_tokens = |value: fn(&Self) -> f64| mean(value, |part| part.n_tok);
        // A part without tokens has no say in whether there is one.
        let optional = |value: fn(&Self) -> Option<f64>, of_tokens: f64| {
            parts.iter().any(|part| value(part).is_some()).then_some(of_tokens)
        };
        Self {
            n_seq: count(|part| part.n_seq),
            n_tok: count(|part| part.n_tok),
            pg_loss: sum(|part| part.pg_loss),
            kl_loss: sum(|part| part.kl_loss),
            clip_frac_low: of_tokens(|part| part.clip_frac_low),
            clip_frac_high: of_tokens(|part| part.clip_frac_high),
            dual_clip_frac: of_tokens(|part| part.dual_clip_frac),
            opsm_seq_frac: mean(|part| part.opsm_seq_frac, |part| part.n_seq),
            opsm_tok_frac: of_tokens(|part| part.opsm_tok_frac),
            mean_kl: of_tokens(|part| part.mean_kl),
            mean_ratio: of_tokens(|part| part.mean_ratio),
            max_ratio: parts.iter().map(|part| part.max_ratio).fold(0.0, f64::max),
            mean_old_minus_new: of_tokens(|part| part.mean_old_minus_new),
            mismatch_k3: of_tokens(|part| part.mismatch_k3),
            zero_variance_frac: parts.first().map_or(0.0, |part| part.zero_variance_frac),
            mean_entropy: optional(|part| part.mean_entropy, of_tokens(|part| part.mean_entropy.unwrap_or(0.0))),
            mean_kept: optional(|part| part.mean_kept, of_tokens(|part| part.mean_kept.unwrap_or(0.0))),
            n_seq_positive: count(|part| part.n_seq_positive),
            n_seq_negative: count(|part| part.n_seq_negative),
            mean_length_positive: mean(|part| part.mean_length_positive, |part| part.n_seq_positive),
            mean_length_negative: mean(|part| part.mean_length_negative, |part| part.n_seq_negative),
        }
    }
}

/// Sums over tokens and sequences that become [`Metrics`].
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) sequences: usize,
    pub(crate) tokens: usize,
    pub(crate) pg_loss: f64,
    pub(crate) kl_loss: f64,
    pub(crate) clipped_low: usize,
    pub(crate) clipped_high: usize,
    pub(crate) dual_clipped: usize,
    pub(crate) masked_sequences: usize,
    pub(crate) masked_tokens: usize,
    pub(crate) kl: f64,
    pub(crate) ratio: f64,
    pub(crate) max_ratio: f64,
    pub(crate) old_minus_new: f64,
    pub(crate) mismatch_k3: f64,
    pub(crate) entropy: Option<f64>,
    pub(crate) kept: Option<usize>,
    /// Sequences and tokens with a positive advantage, then with a negative one.
    pub(crate) lengths: [(usize, usize); 2],
}

impl Sums {
    pub(crate) fn metrics(&self, zero_variance_frac: f64) -> Metrics {
        let (tokens, sequences) = (self.tokens.max(1) as f64, self.sequences.max(1) as f64);
        let [positive, negative] = self.lengths.map(|(sequences, tokens)| tokens as f64 / sequences.max(1) as f64);
        Metrics {
            n_seq: self.sequences,
            n_tok: self.tokens,
            pg_loss: self.pg_loss,
            kl_loss: self.kl_loss,
            clip_frac_low: self.clipped_low as f64 / tokens,
            clip_frac_high: self.clipped_high as f64 / tokens,
            dual_clip_frac: self.dual_clipped as f64 / tokens,
            opsm_seq_frac: self.masked_sequences as f64 / sequences,
            opsm_tok_frac: self.masked_tokens as f64 / tokens,
            mean_kl: self.kl / tokens,
            mean_ratio: self.ratio / tokens,
            max_ratio: self.max_ratio,
            mean_old_minus_new: self.old_minus_new / tokens,
            mismatch_k3: self.mismatch_k3 / tokens,
            zero_variance_frac,
            mean_entropy: self.entropy.map(|entropy| entropy / tokens),
            mean_kept: self.kept.map(|kept| kept as f64 / tokens),
            n_seq_positive: self.lengths[0].0,
            n_seq_negative: self.lengths[1].0,
            mean_length_positive: positive,
            mean_length_negative: negative,
        }
    }
}
