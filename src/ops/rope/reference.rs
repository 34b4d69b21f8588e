//! Rotary position embedding as a composition of candle tensor functions.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

/// [`rope`](super::rope) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let (tokens, heads, width) = x.dims3()?;
    let half = width / 2;
    let cos = cos.to_dtype(DType::F32)?.unsqueeze(1)?;
    let sin = sin.to_dtype(DType::F32)?.unsqueeze(1)?;
    let wide = x.to_dtype(DType::F32)?;
    let (a, b) = if interleaved {
        let pairs = wide.reshape((tokens, heads, half, 2))?;
        (pairs.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?, pairs.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1)?)
    } else {
        (wide.narrow(D::Minus1, 0, half)?, wide.narrow(D::Minus1, half, half)?)
    };
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let rotated = if interleaved {
        Tensor::stack(&[first, second], D::Minus1)?.reshape((tokens, heads, width))?
    } else {
        Tensor::cat(&[first, second], D::Minus1)?
    };
    rotated.to_dtype(x.dtype())
}

/// [`rope_join`](super::rope_join) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn rope_join(
    pe: &Tensor,
    rest: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    interleaved: bool,
    pe_first: bool,
) -> Result<Tensor> {
    let pe = rope(pe, cos, sin, interleaved)?;
    Tensor::cat(&if pe_first { [&pe, rest] } else { [rest, &pe] }, D::Minus1)
}
