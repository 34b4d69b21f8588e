//! RMS normalisation over the last dimension.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::{Backend, backend, simd::floats::check_float};

mod cpu;
pub mod reference;

/// `x / sqrt(mean(x²) + eps) · weight` over the last dimension, in f32.
///
/// # Shapes
/// - `x`: `[.., H]`, f32, bf16, f16 or f64
/// - `weight`: `[H]`, any of these dtypes
/// - result: `[.., H]`, dtype of `x`
///
/// # Errors
/// If `x` has no dimension, is not a float, or `weight` is not `[H]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let _span = tracing::trace_span!("rms_norm").entered();
    check_row_parameter("rms_norm", "weight", x, weight)?;
    if x.elem_count() == 0 {
        return x.zeros_like();
    }
    match backend(&[x, weight]) {
        Backend::Cpu => cpu::rms_norm(x, weight, eps),
        Backend::Reference => reference::rms_norm(x, weight, eps),
    }
}

/// Checks that `x` is `[.., H]` and `parameter` `[H]`, both floats.
pub(crate) fn check_row_parameter(op: &str, name: &str, x: &Tensor, parameter: &Tensor) -> Result<()> {
    check_float(op, "x", x)?;
    check_float(op, name, parameter)?;
    match x.dims().last() {
        Some(&width) if parameter.dims() == [width] => Ok(()),
        Some(width) => candle::bail!("{op}: {name} must be [{width}] for x {:?}, got {:?}", x.dims(), parameter.dims()),
        None => candle::bail!("{op}: x must have at least one dimension, got a scalar"),
    }
}
