//! The edge between candle tensors and the kernels' f32 slices.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// Errors unless `tensor` is of a dtype that the ops take for activations.
pub(crate) fn check_float(op: &str, name: &str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F32 | DType::BF16 | DType::F16 | DType::F64 => Ok(()),
        other => candle::bail!("{op}: {name} must be f32, bf16, f16 or f64, got {other:?}"),
    }
}
