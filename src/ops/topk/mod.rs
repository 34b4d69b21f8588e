//! Exact selection of the largest entries of each row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any};
use crate::ops::dispatch::{Backend, FastPath, Op};

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "topk", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_TRACKED };

/// The columns of the `k` largest entries of each row, in ascending order of the column.
///
/// # Shapes
/// - `logits`: `[T, N]` f32, `N` below 2^31. Entries of `-inf` are never chosen; of equal entries the one with the
///   smaller column is chosen first (`-0.0` equals `0.0`)
/// - `k`: any number, also 0 or above `N`
/// - result: `[T, k]` i32; rows with fewer than `k` entries above `-inf` end in `-1`. The selection has no gradient
///
/// # Errors
/// A wrong rank or dtype, or a NaN among the logits.
pub fn topk(logits: &Tensor, k: usize) -> Result<Tensor> {
    let _span = tracing::trace_span!("topk").entered();
    let [tokens, columns] = args::shape(OP.name, "logits", logits, ["T", "N"].map(any))?;
    args::dtype(OP.name, "logits", logits, &[DType::F32])?;
    check_size(OP.name, tokens, columns, k)?;
    match OP.backend([logits]) {
        Backend::Cpu => cpu::topk(logits, k),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::topk(logits, k),
        Backend::Reference => reference::topk(&logits.detach(), k),
    }
}

/// Refuses columns that an i32 cannot name and results that memory cannot hold.
pub(crate) fn check_size(op: &str, tokens: usize, columns: usize, k: usize) -> Result<()> {
    if columns > i32::MAX as usize {
        candle::bail!("{op}: {columns} columns, the limit is {}", i32::MAX);
    }
    if tokens.checked_mul(k).is_none_or(|elements| elements > isize::MAX as usize / 4) {
        candle::bail!("{op}: a result of [{tokens}, {k}] is too large");
    }
    Ok(())
}
