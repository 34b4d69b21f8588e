//! A value with a gradient of its own.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Tensor};

/// Computes the gradient of an input from the input and the gradient of the result.
type Backward = dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync;

struct Linked {
    name: &'static str,
    backward: Box<Backward>,
}

/// `value` as a function of `input`: `backward(input, gradient of the result)` is the gradient of `input`, with its
/// shape and dtype. `value` was computed from `input` without tracking; any shape and dtype.
pub(crate) fn linked(
    name: &'static str,
    input: &Tensor,
    value: &Tensor,
    backward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    input.apply_op2(&value.detach().force_contiguous()?, Linked { name, backward: Box::new(backward) })
}

impl CustomOp2 for Linked {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, value: &CpuStorage, at: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((value.try_clone(at)?, at.shape().clone()))
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, value: &CudaStorage, at: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((value.try_clone(at)?, at.shape().clone()))
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        value: &MetalStorage,
        at: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        Ok((value.try_clone(at)?, at.shape().clone()))
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some((self.backward)(input, grad)?), None))
    }
}
