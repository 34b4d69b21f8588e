//! Tensors side by side, and one below the other, by candle.

use candle::{D, Result, Tensor};
use candle_core as candle;

/// `join` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[a, b], D::Minus1)
}

/// `join_rows` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn join_rows(parts: &[Tensor]) -> Result<Tensor> {
    Tensor::cat(parts, 0)
}
