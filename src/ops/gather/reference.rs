//! Rows of a table by candle.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// `gather` on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn gather(table: &Tensor, indices: &Tensor, dtype: DType) -> Result<Tensor> {
    table.contiguous()?.index_select(indices, 0)?.to_dtype(dtype)
}
