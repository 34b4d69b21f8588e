//! Attention in MQA mode over whole contexts.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::attention::args;
use crate::ops::layout::BatchLayout;
use crate::ops::{Backend, backend};

mod cpu;
pub mod reference;

/// Multi-head latent attention in MQA mode (all heads share keys and values) over all positions that a row may see:
/// those of its own sequence up to its own.
///
/// The key of a slot is its row of `kv`, the value the first `value_dim` elements of that row.
///
/// * `q: [T, H, D]`, any float dtype: absorbed queries.
/// * `kv: [slots, D]`, any float dtype: the latent cache.
/// * `layout`: where the rows' keys lie.
/// * `value_dim`: at most `D`.
/// * `softmax_scale`: multiplies `q . k`.
///
/// Returns `out: [T, H, value_dim]` of `q`'s dtype and `softmax_lse: [T, H]` f32. A row does not depend on the other
/// rows of the batch, and is the same as that of [`sparse_mla`](crate::ops::sparse_mla::sparse_mla) with all slots of
/// its context in order.
///
/// # Errors
/// A wrong rank, dtype or size, a layout that does not fit `T` or the cache, a scale that is not finite.
///
/// # Source
/// DeepSeek-V2, section 2.1 (weight absorption).
pub fn dense_mla(
    q: &Tensor,
    kv: &Tensor,
    layout: &BatchLayout,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("dense_mla").entered();
    let op = "dense_mla";
    let (tokens, _, dim) = args::dims3(op, "q", "[T, H, D]", q)?;
    let (slots, key_dim) = args::dims2(op, "kv", "[slots, D]", kv)?;
    args::float(op, "q", q)?;
    args::float(op, "kv", kv)?;
    args::same(op, "the last dimension of kv", key_dim, dim)?;
    args::value_dim(op, value_dim, dim)?;
    args::scale(op, softmax_scale)?;
    layout.check(tokens, slots)?;
    match backend(&[q, kv]) {
        Backend::Cpu => cpu::dense_mla(q, kv, layout, value_dim, softmax_scale),
        Backend::Reference => reference::dense_mla(q, kv, layout, value_dim, softmax_scale),
    }
}
