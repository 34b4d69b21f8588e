//! What happens to the residual stream between the parts of a layer.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args;
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::rms_norm::rms_norm;

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub use reference::NOTHING;

pub(crate) const ADD: Op = Op { name: "add", cpu: FastPath::CPU_F32, cuda: FastPath::CUDA };
pub(crate) const ADD_RMS_NORM: Op = Op { name: "add_rms_norm", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };
pub(crate) const NOT_FINITE: Op = Op { name: "mark_not_finite", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

/// `x + (a + b)`, or `x + a` without `b`; each sum is rounded to the dtype.
///
/// # Shapes
/// - `x`, `a`, `b` and the result: any shape, the same for all; one dtype of f32, bf16, f16 or f64
///
/// # Errors
/// If the shapes or dtypes differ.
pub fn add(x: &Tensor, a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    for (name, tensor) in [("a", Some(a)), ("b", b)] {
        let Some(tensor) = tensor else { continue };
        args::same_shape(ADD.name, name, tensor, x.dims())?;
        args::dtype(ADD.name, name, tensor, &[x.dtype()])?;
    }
    match ADD.backend([x, a].into_iter().chain(b)) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::add(x, a, b),
        Backend::Cpu => cpu::add(x, a, b),
        Backend::Reference => reference::add(x, a, b),
    }
}

/// The sum `x + a` and its [`rms_norm`].
///
/// # Shapes
/// - `x`, `a`: `[.., H]`, f32, bf16, f16 or f64, the same shape and dtype
/// - `weight`: `[H]`, any of these dtypes
/// - result: the sum and its norm, both of the shape and dtype of `x`
///
/// # Errors
/// As [`rms_norm`], and if `a` has another shape or dtype than `x`.
pub fn add_rms_norm(x: &Tensor, a: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    args::row_parameter(ADD_RMS_NORM.name, "weight", x, weight)?;
    args::same_shape(ADD_RMS_NORM.name, "a", a, x.dims())?;
    args::dtype(ADD_RMS_NORM.name, "a", a, &[x.dtype()])?;
    match ADD_RMS_NORM.backend([x, a, weight]) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::add_rms_norm(x, a, weight, eps),
        Backend::Cpu | Backend::Reference => {
            let sum = add(x, a, None)?;
            let normed = rms_norm(&sum, weight, eps)?;
            Ok((sum, normed))
        }
    }
}

/// Writes `(row, index)` of the first row of `x` that holds an infinity or NaN to `first`, unless something was found before.
///
/// Calls in the order of `index` over several tensors leave the first row of the first of them.
///
/// # Shapes
/// - `x`: `[T, n]`, f32, bf16, f16 or f64
/// - `first`: `[2]` u32, contiguous, at an even offset in its storage; both [`NOTHING`] at first. Written in place
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn mark_not_finite(x: &Tensor, index: u32, first: &Tensor) -> Result<()> {
    args::dtype(NOT_FINITE.name, "x", x, args::FLOATS)?;
    args::shape(NOT_FINITE.name, "x", x, ["T", "n"].map(args::any))?;
    args::dtype(NOT_FINITE.name, "first", first, &[DType::U32])?;
    args::shape(NOT_FINITE.name, "first", first, [args::exactly("row and index", 2)])?;
    match NOT_FINITE.backend([x, first]) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::mark_not_finite(x, index, first),
        Backend::Cpu | Backend::Reference => reference::mark_not_finite(x, index, first),
    }
}
