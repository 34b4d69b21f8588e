//! The conversion of indices by candle.

use candle::{DType, Device, Result, Tensor};
use candle_core as candle;

/// `indices_i64` on any device, through the host where it is not the CPU.
///
/// # Errors
/// Those of the tensor functions.
pub fn indices_i64(indices: &Tensor) -> Result<Tensor> {
    indices.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.to_device(indices.device())
}
