//! RMS normalisation over the last dimension.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args;
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "rms_norm", cpu: FastPath::CPU, cuda: FastPath::CUDA };

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
    args::row_parameter(OP.name, "weight", x, weight)?;
    if x.elem_count() == 0 {
        return x.zeros_like();
    }
    match OP.backend([x, weight]) {
        Backend::Cpu => cpu::rms_norm(x, weight, eps),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::rms_norm(x, weight, eps),
        Backend::Reference => reference::rms_norm(x, weight, eps),
    }
}
