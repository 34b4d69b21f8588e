//! Scores of the lightning indexer.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::fp8::{Fp8Row, check_keys};
use crate::ops::layout::BatchLayout;

mod backward;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
mod narrow;
pub mod reference;
mod score;

pub(crate) const OP: Op = Op { name: "mqa_logits", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_FP8_KEYS };

/// The lightning indexer's score of every key for every query row:
/// `logits[t, s] = sum over h of weights[t, h] * relu(q[t, h] . index_k[slot of s])`.
///
/// Columns are positions `s` of the row's own sequence; those beyond the row's own position are `-inf`, and so
/// are those beyond its context. Any scaling is the caller's and goes into `weights`.
///
/// # Shapes
/// - `q`: `[T, H_I, D]`, f32, bf16, f16, f64 or f8e4m3: index queries
/// - `index_k`: `[slots, D]`, any of these dtypes: the cache of index keys; or the rows of an FP8 cache, `[slots, bytes]`
///   u8 with `D` quantized values ([`Fp8Row`])
/// - `weights`: `[T, H_I]`, any of these dtypes: weight of each index head, of either sign
/// - `layout`: where the rows' keys lie
/// - result: `[T, layout.max_context()]` f32
///
/// A row's bits do not depend on the other rows of the batch.
///
/// # Errors
/// A wrong rank, dtype or size, or a layout that does not fit `T` or the cache.
///
/// # Source
/// DeepSeek-V3.2-Exp, "DeepSeek Sparse Attention", equation 1.
pub fn mqa_logits(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    let _span = tracing::trace_span!("mqa_logits").entered();
    check(OP.name, q, index_k, weights, layout)?;
    match OP.backend([q, index_k, weights]) {
        Backend::Cpu if q.track_op() || index_k.track_op() || weights.track_op() => {
            backward::tracked(q, index_k, weights, layout, cpu::mqa_logits)
        }
        Backend::Cpu => cpu::mqa_logits(q, index_k, weights, layout),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::mqa_logits(q, index_k, weights, layout),
        Backend::Reference => reference::mqa_logits(q, index_k, weights, layout),
    }
}

/// The argument checks that this op shares with `indexer_topk`.
pub(crate) fn check(op: &str, q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<()> {
    let [tokens, heads, dim] = args::shape(op, "q", q, ["T", "H_I", "D"].map(any))?;
    let slots = check_keys(op, "index_k", index_k, Fp8Row { quantized: dim, plain: 0 })?;
    args::shape(op, "weights", weights, [exactly("T", tokens), exactly("H_I", heads)])?;
    for (name, tensor) in [("q", q), ("weights", weights)] {
        args::dtype(op, name, tensor, args::FLOATS_AND_FP8)?;
    }
    layout.check(tokens, slots)
}
