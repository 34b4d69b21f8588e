//! Attention in MHA mode over a chosen set of keys.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "sparse_mha", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

/// Multi-head attention, with a key and a value per head, over the rows of `k` and `v` that each query row names.
///
/// # Shapes
/// - `q`: `[T, H, Dq]`, f32, bf16, f16 or f64
/// - `k`: `[S, H, Dq]`, `v`: `[S, H, V]`, any of these dtypes
/// - `indices`: `[T, K]`, i32 or i64: rows of `k` and `v`, in `0..S`; `-1` = none, at any place
/// - `softmax_scale`: multiplies `q . k`
/// - result: `out` `[T, H, V]`, dtype of `q`, and `softmax_lse` `[T, H]` f32
///
/// A row without any key gives zeros and `-inf`. A row's bits do not depend on the other rows of the batch.
///
/// # Errors
/// A wrong rank, dtype or size, an index outside `k`, a scale that is not finite.
///
/// # Source
/// DeepSeek-V3.2-Exp, equation 2, with keys and values expanded from the latents as in prefill.
pub fn sparse_mha(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    indices: &Tensor,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("sparse_mha").entered();
    let [tokens, heads, dim] = args::shape(OP.name, "q", q, ["T", "H", "Dq"].map(any))?;
    let [keys, _, _] = args::shape(OP.name, "k", k, [any("S"), exactly("H", heads), exactly("Dq", dim)])?;
    args::shape(OP.name, "v", v, [exactly("S", keys), exactly("H", heads), any("V")])?;
    args::shape(OP.name, "indices", indices, [exactly("T", tokens), any("K")])?;
    for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
        args::dtype(OP.name, name, tensor, args::FLOATS)?;
    }
    args::dtype(OP.name, "indices", indices, &[DType::I32, DType::I64])?;
    args::softmax_scale(OP.name, softmax_scale)?;
    match OP.backend([q, k, v, indices]) {
        Backend::Cpu => cpu::sparse_mha(q, k, v, indices, softmax_scale),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::sparse_mha(q, k, v, indices, softmax_scale),
        Backend::Reference => reference::sparse_mha(q, k, v, indices, softmax_scale),
    }
}
