//! Attention in MQA mode over a chosen set of cache slots.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::attention::args;
use crate::ops::{Backend, backend};

mod cpu;
pub mod reference;

pub(crate) use reference::attend;

/// Multi-head latent attention in MQA mode (all heads share keys and values) over the slots that each row names.
///
/// The key of a slot is its row of `kv`, the value the first `value_dim` elements of that row.
///
/// * `q: [T, H, D]`, any float dtype: absorbed queries.
/// * `kv: [slots, D]`, any float dtype: the latent cache.
/// * `indices: [T, K]` i32 or i64: slots; `-1` = none, at any place. A slot named twice counts twice.
/// * `value_dim`: at most `D`.
/// * `softmax_scale`: multiplies `q . k`.
///
/// Returns `out: [T, H, value_dim]` of `q`'s dtype and `softmax_lse: [T, H]` f32, the natural logarithm of the sum of
/// the exponentials of the scaled scores. A row without any slot gives zeros and `-inf`. A row does not depend on the
/// other rows of the batch.
///
/// # Errors
/// A wrong rank, dtype or size, a slot outside the cache, a scale that is not finite.
///
/// # Source
/// DeepSeek-V2, section 2.1 (weight absorption); DeepSeek-V3.2-Exp, equation 2.
pub fn sparse_mla(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("sparse_mla").entered();
    let op = "sparse_mla";
    let (tokens, _, dim) = args::dims3(op, "q", "[T, H, D]", q)?;
    let (_, key_dim) = args::dims2(op, "kv", "[slots, D]", kv)?;
    let (index_tokens, _) = args::dims2(op, "indices", "[T, K]", indices)?;
    args::float(op, "q", q)?;
    args::float(op, "kv", kv)?;
    if !matches!(indices.dtype(), DType::I32 | DType::I64) {
        candle::bail!("{op}: indices must be I32 or I64, got {:?}", indices.dtype());
    }
    args::same(op, "the last dimension of kv", key_dim, dim)?;
    args::same(op, "the first dimension of indices", index_tokens, tokens)?;
    args::value_dim(op, value_dim, dim)?;
    args::scale(op, softmax_scale)?;
    match backend(&[q, kv, indices]) {
        Backend::Cpu => cpu::sparse_mla(q, kv, indices, value_dim, softmax_scale),
        Backend::Reference => reference::sparse_mla(q, kv, indices, value_dim, softmax_scale),
    }
}
