//! Attention in MQA mode over a chosen set of cache slots.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::fp8::{Fp8Row, check_keys};

#[cfg(feature = "cuda")]
mod backward;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod narrow;
pub mod reference;
#[cfg(feature = "cuda")]
pub(crate) mod sm90;
#[cfg(feature = "cuda")]
mod sm90_backward;

pub(crate) use reference::{attend, causal_mask};

pub(crate) const OP: Op = Op { name: "sparse_mla", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_KEYS_TRACKED };

/// Multi-head latent attention in MQA mode (all heads share keys and values) over the slots that each row names.
///
/// The key of a slot is its row of `kv`, the value the first `value_dim` elements of that row.
///
/// # Shapes
/// - `q`: `[T, H, D]`, f32, bf16, f16, f64 or f8e4m3: absorbed queries
/// - `kv`: `[slots, D]`, any of these dtypes: the latent cache; or the rows of an FP8 cache, `[slots, bytes]` u8 with
///   `value_dim` quantized values and `D - value_dim` plain ones ([`Fp8Row`])
/// - `indices`: `[T, K]`, i32 or i64: slots; `-1` = none, at any place. A slot named twice counts twice
/// - `value_dim`: `0..=D`
/// - `softmax_scale`: multiplies `q . k`
/// - result: `out` `[T, H, value_dim]`, dtype of `q`, and `softmax_lse` `[T, H]` f32, the natural logarithm of the sum of
///   the exponentials of the scaled scores
///
/// A row without any slot gives zeros and `-inf`. A row's bits do not depend on the other rows of the batch; on a GPU they
/// may depend on their number.
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
    let (tokens, _) = check(OP.name, q, kv, value_dim, softmax_scale)?;
    args::dtype(OP.name, "indices", indices, &[DType::I32, DType::I64])?;
    args::shape(OP.name, "indices", indices, [exactly("T", tokens), any("K")])?;
    match OP.backend([q, kv, indices]) {
        Backend::Cpu => cpu::sparse_mla(q, kv, indices, value_dim, softmax_scale),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::sparse_mla(q, kv, indices, value_dim, softmax_scale),
        Backend::Reference => reference::sparse_mla(q, kv, indices, value_dim, softmax_scale),
    }
}

/// Checks the arguments that this op shares with `dense_mla`; returns `(T, slots)`.
pub(crate) fn check(op: &str, q: &Tensor, kv: &Tensor, value_dim: usize, softmax_scale: f64) -> Result<(usize, usize)> {
    let [tokens, _, dim] = args::shape(op, "q", q, ["T", "H", "D"].map(any))?;
    args::dtype(op, "q", q, args::FLOATS_AND_FP8)?;
    args::number(op, "value_dim", value_dim, 0, dim)?;
    let slots = check_keys(op, "kv", kv, Fp8Row { quantized: value_dim, plain: dim - value_dim })?;
    args::softmax_scale(op, softmax_scale)?;
    Ok((tokens, slots))
}
