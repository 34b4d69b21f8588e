//! Tensors side by side, and one below the other.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::dispatch::{Backend, FastPath, Op};

#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "join", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA };

/// Returns the elements of `a` and then those of `b` in each row.
///
/// # Shapes
/// - `a`: `[.., A]`, any dtype
/// - `b`: `[.., B]`, the same dimensions before the last, the same dtype
/// - result: `[.., A + B]`
///
/// # Errors
/// If the dimensions before the last or the dtypes differ, or there is no dimension.
pub fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let outer = |tensor: &Tensor| tensor.dims().split_last().map(|(_, outer)| outer.to_vec());
    if outer(a).is_none() || outer(a) != outer(b) {
        candle::bail!("join: a is {:?} and b {:?}: they must agree in all dimensions but the last", a.dims(), b.dims())
    }
    if a.dtype() != b.dtype() {
        candle::bail!("join: a is {} and b {}: expected one dtype", a.dtype().as_str(), b.dtype().as_str())
    }
    match OP.backend([a, b]) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::join(a, b),
        Backend::Cpu | Backend::Reference => reference::join(a, b),
    }
}

/// Returns the rows of `parts`, one part after the other.
///
/// # Shapes
/// - `parts`: at least one, `[n, ..]` of any dtype, the same but for `n`
/// - result: `[sum of n, ..]`
///
/// # Errors
/// If the parts differ in more than `n`, or there is none.
pub fn join_rows(parts: &[Tensor]) -> Result<Tensor> {
    match OP.backend(parts) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::join_rows(parts),
        Backend::Cpu | Backend::Reference => reference::join_rows(parts),
    }
}
