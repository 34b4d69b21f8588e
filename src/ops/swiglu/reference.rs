//! SwiGLU as a composition of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// [`swiglu`](super::swiglu) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let wide = gate.to_dtype(DType::F32)?;
    (wide.silu()? * up.to_dtype(DType::F32)?)?.to_dtype(gate.dtype())
}
