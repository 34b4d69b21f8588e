//! Layer normalisation as a composition of candle tensor functions.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

/// [`layer_norm`](super::layer_norm) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let scaled = normed.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    scaled.broadcast_add(&bias.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}
