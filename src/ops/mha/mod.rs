//! Attention in MHA mode: every head has its own keys and values.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::attention::args;
use crate::ops::layout::BatchLayout;
use crate::ops::{Backend, backend};

mod cpu;
pub mod reference;

/// Causal multi-head attention with a key and a value per head, for the prefill of latent attention.
///
/// * `q: [T, H, Dq]`, any float dtype.
/// * `k: [S, H, Dq]`, `v: [S, H, V]`, any float dtype: the contexts of the layout's spans one after the other
///   (`S = layout.total_context()`), so a row at position `p` sees the first `p + 1` rows of its span's part.
/// * `layout`: spans of the rows; block tables are not used.
/// * `softmax_scale`: multiplies `q . k`.
///
/// Returns `out: [T, H, V]` of `q`'s dtype and `softmax_lse: [T, H]` f32. Works in blocks, nothing of size `[T, S]` is
/// held. A row does not depend on the other rows of the batch, nor on how a prompt was cut into chunks.
///
/// # Errors
/// A wrong rank, dtype or size, a layout that does not fit `T` or `S`, a scale that is not finite.
///
/// # Source
/// Blocks with online softmax as in FlashAttention (Dao et al., 2022).
pub fn mha(q: &Tensor, k: &Tensor, v: &Tensor, layout: &BatchLayout, softmax_scale: f64) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("mha").entered();
    let op = "mha";
    let (tokens, heads, dim) = args::dims3(op, "q", "[T, H, Dq]", q)?;
    let (keys, key_heads, key_dim) = args::dims3(op, "k", "[S, H, Dq]", k)?;
    let (values, value_heads, _) = args::dims3(op, "v", "[S, H, V]", v)?;
    args::float(op, "q", q)?;
    args::float(op, "k", k)?;
    args::float(op, "v", v)?;
    args::same(op, "the second dimension of k", key_heads, heads)?;
    args::same(op, "the second dimension of v", value_heads, heads)?;
    args::same(op, "the last dimension of k", key_dim, dim)?;
    args::same(op, "the first dimension of v", values, keys)?;
    args::scale(op, softmax_scale)?;
    layout.check_rows(tokens)?;
    args::same(op, "the first dimension of k", keys, layout.total_context())?;
    match backend(&[q, k, v]) {
        Backend::Cpu => cpu::mha(q, k, v, layout, softmax_scale),
        Backend::Reference => reference::mha(q, k, v, layout, softmax_scale),
    }
}
