//! Tensors on a GPU.

use candle::cuda_backend::CudaStorage;
use candle::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle::op::BackpropOp;
use candle::{CudaDevice, DType, Device, Result, Shape, Storage, Tensor};
use candle_core as candle;
use float8::F8E4M3;
use half::bf16;

use super::arena;

/// The GPU that a tensor lies on.
pub(crate) fn device_of(tensor: &Tensor) -> Result<&CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device),
        device => candle::bail!("expected a tensor on a GPU, got one on {:?}", device.location()),
    }
}

/// A tensor for a kernel to fill: what it holds before that is undefined, so the kernel must write every element.
pub(crate) fn empty(shape: impl Into<Shape>, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    let shape = shape.into();
    // The driver gives no memory for nothing.
    let count = shape.elem_count().max(1);
    macro_rules! storage {
        ($($dtype:ident: $type:ty),*) => {
            match dtype {
                $(DType::$dtype => CudaStorage::wrap_cuda_slice(memory::<$type>(count, device)?, device.clone()),)*
                dtype => candle::bail!("no kernel makes tensors of {}", dtype.as_str()),
            }
        };
    }
    let storage = storage!(U8: u8, U32: u32, I32: i32, I64: i64, BF16: bf16, F32: f32, F8E4M3: F8E4M3);
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
}

fn memory<T: DeviceRepr>(count: usize, device: &CudaDevice) -> Result<CudaSlice<T>> {
    match arena::alloc(count) {
        Some(memory) => memory,
        // SAFETY: every bit pattern is a number, and the caller's kernel writes them before they are read.
        None => unsafe { device.alloc::<T>(count) },
    }
}
