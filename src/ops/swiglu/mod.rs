//! The activation of the MLPs.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::{Backend, backend, simd::floats::check_float};

pub(crate) mod cpu;
pub mod reference;

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
    check_float("swiglu", "gate", gate)?;
    check_float("swiglu", "up", up)?;
    if gate.dims() != up.dims() {
        candle::bail!("swiglu: gate {:?} and up {:?} must have the same shape", gate.dims(), up.dims())
    }
    if gate.elem_count() == 0 {
        return gate.zeros_like();
    }
    match backend(&[gate, up]) {
        Backend::Cpu => cpu::swiglu(gate, up),
        Backend::Reference => reference::swiglu(gate, up),
    }
}
