//! Attention in MHA mode: every head has its own keys and values.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::layout::BatchLayout;

mod backward;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "mha", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

/// Causal multi-head attention with a key and a value per head, for the prefill of latent attention.
///
/// # Shapes
/// - `q`: `[T, H, Dq]`, f32, bf16, f16, f64 or f8e4m3
/// - `k`: `[S, H, Dq]`, `v`: `[S, H, V]`, any of these dtypes: the contexts of the layout's spans one after the other
///   (`S = layout.total_context()`), so a row at position `p` sees the first `p + 1` rows of its span's part
/// - `layout`: spans of the rows; block tables are not used
/// - `softmax_scale`: multiplies `q . k`
/// - result: `out` `[T, H, V]`, dtype of `q`, and `softmax_lse` `[T, H]` f32
///
/// Works in blocks: nothing of size `[T, S]` is held. A row's bits do not depend on the other rows of the batch, nor on
/// how a prompt was cut into chunks.
///
/// # Errors
/// A wrong rank, dtype or size, a layout that does not fit `T` or `S`, a scale that is not finite.
///
/// # Source
/// Blocks with online softmax as in FlashAttention (Dao et al., 2022).
pub fn mha(q: &Tensor, k: &Tensor, v: &Tensor, layout: &BatchLayout, softmax_scale: f64) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("mha").entered();
    let [tokens, heads, dim] = args::shape(OP.name, "q", q, ["T", "H", "Dq"].map(any))?;
    layout.check_rows(tokens)?;
    let (keys, heads) = (exactly("S", layout.total_context()), exactly("H", heads));
    args::shape(OP.name, "k", k, [keys, heads, exactly("Dq", dim)])?;
    args::shape(OP.name, "v", v, [keys, heads, any("V")])?;
    for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
        args::dtype(OP.name, name, tensor, args::FLOATS_AND_FP8)?;
    }
    args::softmax_scale(OP.name, softmax_scale)?;
    match OP.backend([q, k, v]) {
        Backend::Cpu if q.track_op() || k.track_op() || v.track_op() => {
            backward::tracked(q, k, v, layout, softmax_scale, cpu::mha)
        }
        Backend::Cpu => cpu::mha(q, k, v, layout, softmax_scale),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::mha(q, k, v, layout, softmax_scale),
        Backend::Reference => reference::mha(q, k, v, layout, softmax_scale),
    }
}
