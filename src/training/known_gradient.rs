//! Losses whose gradients are computed together with them.
//!
//! candle keeps every intermediate of a tracked computation until the backward pass. A loss that is computed in chunks
//! without tracking, and its gradients with it, needs the memory of one chunk.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

/// Returns the scalar `value` as a function of its arguments, each given with its gradient, which has its shape and dtype.
pub(super) fn with_gradients<const N: usize>(value: &Tensor, arguments: [(&Tensor, Tensor); N]) -> Result<Tensor> {
    let mut result = value.detach();
    for (argument, gradient) in arguments {
        if argument.track_op() {
            result = (result + argument.apply_op1(Known { value: value.zeros_like()?, gradient })?)?;
        }
    }
    Ok(result)
}

/// A constant scalar that passes a known gradient on to its argument.
struct Known {
    value: Tensor,
    gradient: Tensor,
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        "known_gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, Shape::from(()))),
            _ => candle_core::bail!("known_gradient: the value is not on the argument's device"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &candle_core::CudaStorage, _: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, Shape::from(()))),
            _ => candle_core::bail!("known_gradient: the value is not on the argument's device"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.to_dtype(self.gradient.dtype())?;
        self.gradient.broadcast_mul(&grad).map(Some)
    }
}
