//! Products with numbers by candle.

use candle::{Result, Tensor};
use candle_core as candle;

/// `scale` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn scale(x: &Tensor, factor: f64, by: Option<&Tensor>) -> Result<Tensor> {
    let scaled = (x * factor)?;
    by.map_or(Ok(scaled.clone()), |by| scaled * by)
}
