//! Rotary position embedding.

use candle::{D, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "rope", cpu: FastPath::CPU, cuda: FastPath::CUDA };
pub(crate) const JOIN: Op = Op { name: "rope_join", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

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
    check(OP.name, x, cos, sin)?;
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

/// Checks what is rotated and the tables.
fn check(op: &str, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<()> {
    args::dtype(op, "x", x, args::FLOATS)?;
    let [tokens, _, width] = args::shape(op, "x", x, ["T", "heads", "R"].map(any))?;
    if !width.is_multiple_of(2) {
        candle::bail!("{op}: x must be [T, heads, an even number], got {:?}", x.dims())
    }
    for (name, table) in [("cos", cos), ("sin", sin)] {
        args::dtype(op, name, table, args::FLOATS)?;
        args::shape(op, name, table, [exactly("T", tokens), exactly("R/2", width / 2)])?;
    }
    Ok(())
}

/// Each head's `pe` after [`rope`], beside the `rest` of the head: behind it, or before it if `pe_first`.
///
/// # Shapes
/// - `pe`: `[T, heads, R]`, `R` even; f32, bf16, f16 or f64
/// - `rest`: `[T, heads, N]`, dtype of `pe`
/// - `cos`, `sin`: `[T, R/2]`, f32, bf16, f16 or f64
/// - result: `[T, heads, N + R]`, dtype of `pe`
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn rope_join(
    pe: &Tensor,
    rest: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    interleaved: bool,
    pe_first: bool,
) -> Result<Tensor> {
    let [tokens, heads, _] = args::shape(JOIN.name, "pe", pe, ["T", "heads", "R"].map(any))?;
    args::shape(JOIN.name, "rest", rest, [exactly("T", tokens), exactly("heads", heads), any("N")])?;
    args::dtype(JOIN.name, "rest", rest, &[pe.dtype()])?;
    match JOIN.backend([pe, rest, cos, sin]) {
        #[cfg(feature = "cuda")]
        Backend::Cuda if pe.elem_count() > 0 && rest.dim(D::Minus1)? > 0 => {
            check(JOIN.name, pe, cos, sin)?;
            cuda::rope_join(pe, rest, cos, sin, interleaved, pe_first)
        }
        _ => {
            let pe = rope(pe, cos, sin, interleaved)?;
            Tensor::cat(&if pe_first { [&pe, rest] } else { [rest, &pe] }, D::Minus1)
        }
    }
}
