//! Rows of a table by index: token ids in an embedding, slots in a cache, rows in a batch.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any};
use crate::ops::dispatch::{Backend, FastPath, Op};

#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "gather", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_KEYS };

/// Returns row `indices[t]` of the table for each `t`.
///
/// # Shapes
/// - `table`: `[N, ..]`, any dtype
/// - `indices`: `[T]` u32, each below `N`
/// - result: `[T, ..]` in `dtype`
///
/// # Errors
/// If a shape or dtype is not as above, the table's dtype cannot be converted, or, on CPU, an index is out of range. On a
/// GPU the indices are not read, and a row that is out of range comes out as NaN, or as zeros where there is no NaN.
pub fn gather(table: &Tensor, indices: &Tensor, dtype: DType) -> Result<Tensor> {
    let _span = tracing::trace_span!("gather").entered();
    args::dtype(OP.name, "indices", indices, &[DType::U32])?;
    args::shape(OP.name, "indices", indices, [any("T")])?;
    if table.rank() == 0 {
        candle::bail!("gather: table must be [N, ..], got a scalar")
    }
    match OP.backend([table, indices]) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::gather(table, indices, dtype),
        Backend::Cpu | Backend::Reference => reference::gather(table, indices, dtype),
    }
}
