//! Conversion on a GPU: one thread an element.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::converted;

/// [`cast`](super::cast) of a tensor on a GPU.
pub(super) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    converted(x, dtype)
}
