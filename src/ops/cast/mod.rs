//! Conversion to another dtype.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::dispatch::{Backend, FastPath, Op};

#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "cast", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

/// Returns `x` in `dtype`, of the same shape: to nearest, ties to even.
///
/// # Errors
/// If candle has no such conversion.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    match OP.backend([x]) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::cast(x, dtype),
        Backend::Cpu | Backend::Reference => reference::cast(x, dtype),
    }
}
