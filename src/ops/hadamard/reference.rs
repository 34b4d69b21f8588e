//! The Walsh-Hadamard transform as a composition of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// [`hadamard`](super::hadamard) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn hadamard(x: &Tensor) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1);
    let rows = x.elem_count() / width.max(1);
    let mut y = x.to_dtype(DType::F32)?.reshape((rows, width))?;
    let mut half = 1;
    while half < width {
        let pairs = y.reshape((rows, width / (2 * half), 2, half))?;
        let (a, b) = (pairs.narrow(2, 0, 1)?, pairs.narrow(2, 1, 1)?);
        y = Tensor::cat(&[(&a + &b)?, (&a - &b)?], 2)?;
        half *= 2;
    }
    (y * (width as f64).powf(-0.5))?.reshape(x.dims())?.to_dtype(x.dtype())
}
