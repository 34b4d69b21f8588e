//! Rotary position embedding.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::{Backend, backend, simd::floats::check_float};

mod cpu;
pub mod reference;

/// Rotates pair `i` of every head by its token's angle: `(a, b) → (a·cos - b·sin, b·cos + a·sin)`, in f32.
///
/// Pair `i` is `(x[2i], x[2i + 1])` if `interleaved` (MLA's `q_pe` and `k_pe`), else `(x[i], x[i + R/2])`
/// (DeepSeek's indexer). The result keeps the order of the elements.
///
/// # Shapes
/// - `x`: `[T, heads, R]`, `R` even; f32, bf16, f16 or f64
/// - `cos`, `sin`: `[T, R/2]`, f32
/// - result: `[T, heads, R]`, dtype of `x`
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let _span = tracing::trace_span!("rope").entered();
    check_float("rope", "x", x)?;
    check_float("rope", "cos", cos)?;
    check_float("rope", "sin", sin)?;
    let &[tokens, _, width] = x.dims() else { candle::bail!("rope: x must be [T, heads, R], got {:?}", x.dims()) };
    if !width.is_multiple_of(2) {
        candle::bail!("rope: the last dimension of x must be even, got x {:?}", x.dims())
    }
    for (name, table) in [("cos", cos), ("sin", sin)] {
        if table.dims() != [tokens, width / 2] {
            candle::bail!("rope: {name} must be [{tokens}, {}] for x {:?}, got {:?}", width / 2, x.dims(), table.dims())
        }
    }
    if x.elem_count() == 0 {
        return x.zeros_like();
    }
    match backend(&[x, cos, sin]) {
        Backend::Cpu => cpu::rope(x, cos, sin, interleaved),
        Backend::Reference => reference::rope(x, cos, sin, interleaved),
    }
}
