//! Layer normalisation over the last dimension.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args;
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "layer_norm", cpu: FastPath::CPU, cuda: FastPath::CUDA };

/// `(x - mean) / sqrt(variance + eps) · weight + bias` over the last dimension, in f32.
///
/// # Shapes
/// - `x`: `[.., H]`, f32, bf16, f16 or f64
/// - `weight`, `bias`: `[H]`, any of these dtypes
/// - result: `[.., H]`, dtype of `x`
///
/// # Errors
/// If `x` has no dimension, is not a float, or `weight` or `bias` is not `[H]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let _span = tracing::trace_span!("layer_norm").entered();
    args::row_parameter(OP.name, "weight", x, weight)?;
    args::row_parameter(OP.name, "bias", x, bias)?;
    if x.elem_count() == 0 {
        return x.zeros_like();
    }
    match OP.backend([x, weight, bias]) {
        Backend::Cpu => cpu::layer_norm(x, weight, bias, eps),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::layer_norm(x, weight, bias, eps),
        Backend::Reference => reference::layer_norm(x, weight, bias, eps),
    }
}
