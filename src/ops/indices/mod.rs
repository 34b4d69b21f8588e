//! Indices in the dtype that candle's gathers take.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args;
use crate::ops::dispatch::{Backend, FastPath, Op};

#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "indices_i64", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_TRACKED };

/// Converts indices to i64; candle itself has no such conversion on GPUs.
///
/// # Shapes
/// - `indices`: any shape, i32 or i64
/// - result: the same shape, i64
///
/// # Errors
/// If `indices` has another dtype.
pub fn indices_i64(indices: &Tensor) -> Result<Tensor> {
    args::dtype(OP.name, "indices", indices, &[DType::I32, DType::I64])?;
    if indices.dtype() == DType::I64 {
        return Ok(indices.clone());
    }
    match OP.backend([indices]) {
        Backend::Cpu => indices.to_dtype(DType::I64),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::indices_i64(indices),
        Backend::Reference => reference::indices_i64(indices),
    }
}
