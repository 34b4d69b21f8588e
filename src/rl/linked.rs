//! A value with a gradient of its own.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Tensor};

/// Computes the gradients of both inputs from the inputs and the gradient of the result.
type Backward = dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<(Tensor, Option<Tensor>)> + Send + Sync;

struct Linked {
    name: &'static str,
    backward: Box<Backward>,
}

/// `value`, of any shape and dtype, as a function of `input`: `backward(input, gradient of the result)` is the gradient
/// of `input`, with its shape and dtype. `value` was computed from `input` without tracking.
pub(crate) fn linked(
    name: &'static str,
    input: &Tensor,
    value: &Tensor,
    backward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let value = value.detach().force_contiguous()?;
    let backward = Box::new(move |input: &Tensor, _: &Tensor, grad: &Tensor| Ok((backward(input, grad)?, None)));
    // There is no second input; the value, which is not tracked, takes its place.
    input.apply_op3(&value, &value, Linked { name, backward })
}

/// [`linked`] with two inputs and their gradients.
pub(crate) fn linked_pair(
    name: &'static str,
    inputs: (&Tensor, &Tensor),
    value: &Tensor,
    backward: impl Fn((&Tensor, &Tensor), &Tensor) -> Result<(Tensor, Tensor)> + Send + Sync + 'static,
) -> Result<Tensor> {
    let backward = Box::new(move |one: &Tensor, two: &Tensor, grad: &Tensor| {
        let (of_one, of_two) = backward((one, two), grad)?;
        Ok((of_one, Some(of_two)))
    });
    inputs.0.apply_op3(inputs.1, &value.detach().force_contiguous()?, Linked { name, backward })
}

impl CustomOp3 for Linked {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        value: &CpuStorage,
        at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((value.try_clone(at)?, at.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        value: &CudaStorage,
        at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((value.try_clone(at)?, at.shape().clone()))
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        value: &MetalStorage,
        at: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        Ok((value.try_clone(at)?, at.shape().clone()))
    }

    fn bwd(
        &self,
        one: &Tensor,
        two: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (of_one, of_two) = (self.backward)(one, two, grad)?;
        Ok((Some(of_one), of_two, None))
    }
}
