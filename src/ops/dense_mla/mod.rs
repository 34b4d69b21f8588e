//! Attention in MQA mode over whole contexts.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::layout::BatchLayout;
use crate::ops::sparse_mla::check;

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "dense_mla", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_KEYS };

/// Multi-head latent attention in MQA mode (all heads share keys and values) over all positions that a row may see:
/// those of its own sequence up to its own.
///
/// The key of a slot is its row of `kv`, the value the first `value_dim` elements of that row.
///
/// # Shapes
/// - `q`: `[T, H, D]`, f32, bf16, f16, f64 or f8e4m3: absorbed queries
/// - `kv`: the latent cache, as for `sparse_mla`
/// - `layout`: where the rows' keys lie
/// - `value_dim`: `0..=D`
/// - `softmax_scale`: multiplies `q . k`
/// - result: `out` `[T, H, value_dim]`, dtype of `q`, and `softmax_lse` `[T, H]` f32
///
/// A row's bits do not depend on the other rows of the batch, and are those of
/// [`sparse_mla`](crate::ops::sparse_mla::sparse_mla) with all slots of its context in order.
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
    let (tokens, slots) = check(OP.name, q, kv, value_dim, softmax_scale)?;
    layout.check(tokens, slots)?;
    match OP.backend([q, kv]) {
        Backend::Cpu => cpu::dense_mla(q, kv, layout, value_dim, softmax_scale),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::dense_mla(q, kv, layout, value_dim, softmax_scale),
        Backend::Reference => reference::dense_mla(q, kv, layout, value_dim, softmax_scale),
    }
}
