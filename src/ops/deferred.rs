//! Results that are computed already, with gradients that are computed in the backward pass.

use std::sync::{Mutex, PoisonError};

use candle::backend::BackendStorage;
use candle::{CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor};
use candle_core as candle;

/// Returns the values of `out` as a function of `arguments`, of which there are one to three. `backward` computes their
/// gradients, one for each, from the result and its gradient.
///
/// The graph keeps the arguments and what `backward` holds, and nothing of how `out` came about.
pub(crate) fn with_gradient<F>(out: &Tensor, arguments: &[&Tensor], backward: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
{
    let op = Deferred { out: Mutex::new(Some(out.detach().force_contiguous()?)), count: arguments.len(), backward };
    match *arguments {
        // An argument may stand twice: the backward pass gives nothing to the places that are too many.
        [a] => a.apply_op3(a, a, op),
        [a, b] => a.apply_op3(b, a, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => candle::bail!("a deferred gradient takes 1 to 3 arguments, got {}", arguments.len()),
    }
}

/// Returns the scalar `value` as a function of one to three arguments, each given with its gradient, which has its shape and
/// dtype: of a loss that was computed in chunks without tracking, and its gradients with it, in the memory of one chunk.
/// Without a tracked argument the result is a constant.
pub(crate) fn with_known<const N: usize>(value: &Tensor, arguments: [(&Tensor, Tensor); N]) -> Result<Tensor> {
    let (tracked, gradients): (Vec<_>, Vec<_>) = arguments.into_iter().filter(|(tensor, _)| tensor.track_op()).unzip();
    if tracked.is_empty() {
        return Ok(value.detach());
    }
    with_gradient(value, &tracked, move |_, grad| {
        gradients.iter().map(|gradient| gradient.broadcast_mul(&grad.to_dtype(gradient.dtype())?)).collect()
    })
}

struct Deferred<F> {
    /// Contiguous, with a storage of its own; taken by the forward pass.
    out: Mutex<Option<Tensor>>,
    /// Arguments.
    count: usize,
    backward: F,
}

impl<F> Deferred<F> {
    /// A copy of the result's storage, which `of` finds.
    fn storage<S: BackendStorage>(&self, of: impl Fn(&Storage) -> Option<&S>) -> Result<(S, Shape)> {
        let Some(out) = self.out.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            candle::bail!("a deferred result was taken twice")
        };
        let (storage, layout) = out.storage_and_layout();
        match of(&storage) {
            Some(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            None => candle::bail!("a deferred result lies on another device than its arguments"),
        }
    }
}

impl<F: Fn(&Tensor, &Tensor) -> Result<Vec<Tensor>>> CustomOp3 for Deferred<F> {
    fn name(&self) -> &'static str {
        "deferred"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.storage(|storage| if let Storage::Cpu(storage) = storage { Some(storage) } else { None })
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.storage(|storage| if let Storage::Cuda(storage) = storage { Some(storage) } else { None })
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.storage(|storage| if let Storage::Metal(storage) = storage { Some(storage) } else { None })
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = (self.backward)(&out.detach(), grad)?;
        if gradients.len() != self.count {
            candle::bail!("{} gradients for {} arguments", gradients.len(), self.count)
        }
        let mut gradients = gradients.into_iter();
        Ok((gradients.next(), gradients.next(), gradients.next()))
    }
}
