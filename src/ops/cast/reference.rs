//! Conversion by candle.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// `cast` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    x.to_dtype(dtype)
}
