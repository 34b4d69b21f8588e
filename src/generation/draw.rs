//! Choices of tokens that a model makes where its logits are, so that only the chosen ids are copied.

use candle_core::{Result, Tensor};

use super::constraint::TokenSet;

/// How the token of a row is to be chosen: what [`Sampler`](super::Sampler) does with the row's logits, as data.
///
/// The steps apply in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// What penalties and bias change, one entry for each token.
    pub changes: Vec<LogitChange>,
    /// Divides the logits of repeated tokens that are positive, and multiplies the others.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens that are in the answer.
    pub presence_penalty: f64,
    /// Subtracted once for each time that a token is in the answer.
    pub frequency_penalty: f64,
    /// The tokens that may be chosen; `None` = all.
    pub allowed: Option<TokenSet>,
    /// Whether the largest logit is chosen, of equal ones that of the smallest token; nothing below counts then.
    pub greedy: bool,
    /// Divides the logits.
    pub temperature: f64,
    /// How many of the largest logits stay; `None` = all.
    pub top_k: Option<usize>,
    /// The share of the mass that stays, in `(0, 1]`.
    pub top_p: f64,
    /// The least probability that stays, relative to the largest.
    pub min_p: f64,
    /// The random number in `[0, 1)` that falls on a token: in the order of falling probability if `top_k` or `top_p` left
    /// something out, else in that of the ids.
    pub uniform: f64,
    /// Whether log-probabilities are wanted.
    pub logprobs: bool,
    /// Whether the tokens that were left to choose among are wanted.
    pub kept: bool,
}

/// How the logit of a token changes before the choice.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LogitChange {
    /// The token.
    pub id: u32,
    /// Whether the repetition penalty applies.
    pub repeated: bool,
    /// How often the answer holds the token.
    pub count: u32,
    /// What is added in the end.
    pub bias: f32,
}

/// What a [`Draw`] gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// The token; `None` if all are forbidden, or if there is a `fault`.
    pub id: Option<u32>,
    /// The first token whose logit is NaN or +inf, and the logit.
    pub fault: Option<(u32, f32)>,
    /// Log-probability of the token under the model, if it was wanted.
    pub logprob: f32,
    /// Log-probability of the token among those that were left, if it was wanted.
    pub sampled_logprob: f32,
    /// The tokens that were left, ascending, if they were wanted.
    pub kept: Vec<u32>,
}

/// The largest vocabulary that tokens are drawn from on a GPU.
#[cfg(feature = "cuda")]
const MOST_TOKENS: usize = 1 << 17;

/// Chooses a token from each row of logits `[n, vocab_size]` f32 where these are. `None` if they are not on a GPU, or have more
/// than 131,072 columns: [`Sampler`](super::Sampler) then does it on the CPU.
///
/// The choices are the sampler's, except where a sum of weights is nearer to a bound than some 1e-12 of the mass.
///
/// # Errors
/// If there are not as many `draws` as rows, or the device fails.
#[cfg_attr(not(feature = "cuda"), allow(unused_variables, reason = "the build has no CUDA"))]
pub fn draw(logits: &Tensor, draws: &[Draw]) -> Result<Option<Vec<Drawn>>> {
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() && logits.dim(1)? <= MOST_TOKENS {
        return on_gpu(logits, draws).map(Some);
    }
    Ok(None)
}

#[cfg(feature = "cuda")]
fn on_gpu(logits: &Tensor, draws: &[Draw]) -> Result<Vec<Drawn>> {
    use crate::ops::cuda::{Change, SampleRow, sample};

    let row = |draw: &Draw| SampleRow {
        changes: draw
            .changes
            .iter()
            .map(|change| Change { id: change.id, repeated: change.repeated, count: change.count, bias: change.bias })
            .collect(),
        allowed: draw.allowed.as_ref().map(|allowed| allowed.words().to_vec()),
        repetition_penalty: draw.repetition_penalty,
        presence_penalty: draw.presence_penalty,
        frequency_penalty: draw.frequency_penalty,
        greedy: draw.greedy,
        temperature: draw.temperature,
        top_k: draw.top_k,
        top_p: draw.top_p,
        min_p: draw.min_p,
        uniform: draw.uniform,
        logprobs: draw.logprobs,
        kept: draw.kept,
    };
    let chosen = sample(logits, &draws.iter().map(row).collect::<Vec<_>>())?;
    let drawn = chosen.into_iter().map(|chosen| Drawn {
        id: chosen.id,
        fault: chosen.fault,
        logprob: chosen.logprob,
        sampled_logprob: chosen.sampled_logprob,
        kept: chosen.kept,
    });
    Ok(drawn.collect())
}
