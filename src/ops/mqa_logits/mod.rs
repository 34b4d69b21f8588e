//! Scores of the lightning indexer.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::attention::args;
use crate::ops::layout::BatchLayout;
use crate::ops::{Backend, backend};

pub(crate) mod cpu;
pub mod reference;
mod score;

/// The lightning indexer's score of every key for every query row:
/// `logits[t, s] = sum over h of weights[t, h] * relu(q[t, h] . index_k[slot of s])`.
///
/// Columns are positions `s` of the row's own sequence; those beyond the row's own position are `-inf`, and so
/// are those beyond its context. Any scaling is the caller's and goes into `weights`.
///
/// * `q: [T, H_I, D]`, any float dtype: index queries.
/// * `index_k: [slots, D]`, any float dtype: the cache of index keys.
/// * `weights: [T, H_I]`, any float dtype: weight of each index head, of either sign.
/// * `layout`: where the rows' keys lie.
///
/// Returns `[T, layout.max_context()]` f32. A row does not depend on the other rows of the batch.
///
/// # Errors
/// A wrong rank, dtype or size, or a layout that does not fit `T` or the cache.
///
/// # Source
/// DeepSeek-V3.2-Exp, "DeepSeek Sparse Attention", equation 1.
pub fn mqa_logits(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    let _span = tracing::trace_span!("mqa_logits").entered();
    check("mqa_logits", q, index_k, weights, layout)?;
    match backend(&[q, index_k, weights]) {
        Backend::Cpu => cpu::mqa_logits(q, index_k, weights, layout),
        Backend::Reference => reference::mqa_logits(q, index_k, weights, layout),
    }
}

/// The argument checks that this op shares with `indexer_topk`.
pub(crate) fn check(op: &str, q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<()> {
    let (tokens, heads, dim) = args::dims3(op, "q", "[T, H_I, D]", q)?;
    let (slots, key_dim) = args::dims2(op, "index_k", "[slots, D]", index_k)?;
    let (weight_tokens, weight_heads) = args::dims2(op, "weights", "[T, H_I]", weights)?;
    args::float(op, "q", q)?;
    args::float(op, "index_k", index_k)?;
    args::float(op, "weights", weights)?;
    args::same(op, "the last dimension of index_k", key_dim, dim)?;
    args::same(op, "the first dimension of weights", weight_tokens, tokens)?;
    args::same(op, "the second dimension of weights", weight_heads, heads)?;
    layout.check(tokens, slots)
}
