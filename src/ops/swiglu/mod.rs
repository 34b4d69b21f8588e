//! The activation of the MLPs.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args;
use crate::ops::dispatch::{Backend, FastPath, Op};

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "swiglu", cpu: FastPath::CPU, cuda: FastPath::CUDA };

/// `silu(gate) · up` element by element, in f32; `silu(v) = v / (1 + e^-v)`.
///
/// # Shapes
/// - `gate`, `up`: the same shape; f32, bf16, f16 or f64
/// - result: that shape, dtype of `gate`
///
/// # Errors
/// If the shapes differ or one is not a float.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let _span = tracing::trace_span!("swiglu").entered();
    args::dtype(OP.name, "gate", gate, args::FLOATS)?;
    args::dtype(OP.name, "up", up, args::FLOATS)?;
    args::same_shape(OP.name, "up", up, gate.dims())?;
    if gate.elem_count() == 0 {
        return gate.zeros_like();
    }
    match OP.backend([gate, up]) {
        Backend::Cpu => cpu::swiglu(gate, up),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::swiglu(gate, up),
        Backend::Reference => reference::swiglu(gate, up),
    }
}
