//! Products with numbers.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args;
use crate::ops::dispatch::{Backend, FastPath, Op};

#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "scale", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

/// `(x · factor) · by`, or `x · factor` without `by`; each product is rounded to f32.
///
/// # Shapes
/// - `x`, `by` and the result: any shape, the same for all, f32
///
/// # Errors
/// If a dtype is not f32 or the shapes differ.
pub fn scale(x: &Tensor, factor: f64, by: Option<&Tensor>) -> Result<Tensor> {
    args::dtype(OP.name, "x", x, &[DType::F32])?;
    if let Some(by) = by {
        args::dtype(OP.name, "by", by, &[DType::F32])?;
        args::same_shape(OP.name, "by", by, x.dims())?;
    }
    match OP.backend([x].into_iter().chain(by)) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::scale(x, factor, by),
        Backend::Cpu | Backend::Reference => reference::scale(x, factor, by),
    }
}
