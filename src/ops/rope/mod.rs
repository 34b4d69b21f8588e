//! Rotary position embedding.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "rope", cpu: FastPath::CPU, cuda: FastPath::CUDA };

/// Rotates pair `i` of every head by its token's angle: `(a, b) → (a·cos - b·sin, b·cos + a·sin)`, in f32.
///
/// Pair `i` is `(x[2i], x[2i + 1])` if `interleaved` (MLA's `q_pe` and `k_pe`), else `(x[i], x[i + R/2])`
/// (DeepSeek's indexer). The result keeps the order of the elements.
///
/// # Shapes
/// - `x`: `[T, heads, R]`, `R` even; f32, bf16, f16 or f64
/// - `cos`, `sin`: `[T, R/2]`, f32, bf16, f16 or f64
/// - result: `[T, heads, R]`, dtype of `x`
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let _span = tracing::trace_span!("rope").entered();
    args::dtype(OP.name, "x", x, args::FLOATS)?;
    let [tokens, _, width] = args::shape(OP.name, "x", x, ["T", "heads", "R"].map(any))?;
    if !width.is_multiple_of(2) {
        candle::bail!("rope: x must be [T, heads, an even number], got {:?}", x.dims())
    }
    for (name, table) in [("cos", cos), ("sin", sin)] {
        args::dtype(OP.name, name, table, args::FLOATS)?;
        args::shape(OP.name, name, table, [exactly("T", tokens), exactly("R/2", width / 2)])?;
    }
    if x.elem_count() == 0 {
        return x.zeros_like();
    }
    match OP.backend([x, cos, sin]) {
        Backend::Cpu => cpu::rope(x, cos, sin, interleaved),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::rope(x, cos, sin, interleaved),
        Backend::Reference => reference::rope(x, cos, sin, interleaved),
    }
}
