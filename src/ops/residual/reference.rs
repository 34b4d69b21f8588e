//! The residual stream's sums and checks as compositions of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::rms_norm;

/// What [`mark_not_finite`] keeps until it has found something: no row has this number.
pub const NOTHING: u32 = u32::MAX;

/// `add` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn add(x: &Tensor, a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    match b {
        Some(b) => x + (a + b)?,
        None => x + a,
    }
}

/// `add_rms_norm` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn add_rms_norm(x: &Tensor, a: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let sum = (x + a)?;
    let normed = rms_norm(&sum, weight, eps)?;
    Ok((sum, normed))
}

/// `mark_not_finite` on any device; waits for the device.
///
/// # Errors
/// Those of the tensor functions.
pub fn mark_not_finite(x: &Tensor, index: u32, first: &Tensor) -> Result<()> {
    if first.to_vec1::<u32>()?.iter().any(|&found| found != NOTHING) {
        return Ok(());
    }
    // Zero times a number is zero, times anything else it is NaN.
    let flags = (x.detach().to_dtype(DType::F32)? * 0.0)?.sum(1)?.to_vec1::<f32>()?;
    if let Some(row) = flags.iter().position(|&flag| flag != 0.0) {
        first.slice_set(&Tensor::new(&[row as u32, index], first.device())?, 0, 0)?;
    }
    Ok(())
}
