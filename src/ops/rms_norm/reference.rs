//! RMS normalisation as a composition of candle tensor functions.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

/// [`rms_norm`](super::rms_norm) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean_square = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide.broadcast_mul(&(mean_square + eps)?.sqrt()?.recip()?)?;
    normed.broadcast_mul(&weight.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}
