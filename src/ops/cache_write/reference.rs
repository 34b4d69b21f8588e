//! `cache_write` as a scatter.

use candle::{Result, Tensor};
use candle_core as candle;

/// [`cache_write`](crate::ops::cache_write::cache_write) on any device.
///
/// # Errors
/// Those of the tensor functions.
pub fn cache_write(cache: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let rows = rows.detach().to_dtype(cache.dtype())?.contiguous()?;
    let slots = slots.unsqueeze(1)?.broadcast_as(rows.shape())?.contiguous()?;
    cache.scatter_set(&slots, &rows, 0)
}
