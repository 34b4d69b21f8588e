//! The Walsh-Hadamard transform of the last dimension, which the indexer applies before FP8.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any};
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "hadamard", cpu: FastPath::CPU, cuda: FastPath::CUDA };

/// The Walsh-Hadamard transform of the last dimension in natural (Sylvester) order, times `d^-1/2`, in f32.
///
/// The transform is orthogonal and its own inverse.
///
/// # Shapes
/// - `x`: `[.., d]`, `d` a power of two; f32, bf16, f16 or f64
/// - result: `[.., d]`, dtype of `x`
///
/// # Errors
/// If `x` has no dimension, is not a float, or `d` is not a power of two.
///
/// # Source
/// DeepSeek-V3.2-Exp `inference/model.py`, `rotate_activation`.
pub fn hadamard(x: &Tensor) -> Result<Tensor> {
    let _span = tracing::trace_span!("hadamard").entered();
    args::dtype(OP.name, "x", x, args::FLOATS)?;
    if !args::last_dim(OP.name, "x", x, any("d"))?.is_power_of_two() {
        candle::bail!("hadamard: x must be [.., a power of two], got {:?}", x.dims())
    }
    if x.elem_count() == 0 {
        return x.zeros_like();
    }
    match OP.backend([x]) {
        Backend::Cpu => cpu::hadamard(x),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::hadamard(x),
        Backend::Reference => reference::hadamard(x),
    }
}
