//! `cache_write` on a GPU: one thread an element.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, blocks, device_of, modules};

/// `cache` and `rows` have the same dtype and are contiguous.
pub(super) fn cache_write(cache: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let (count, width) = cache.dims2()?;
    let elements = rows.elem_count();
    if elements == 0 {
        return Ok(());
    }
    let slots = slots.contiguous()?;
    Launch::new(&modules::CACHE_WRITE, format!("cache_write_{}bit", 8 * cache.dtype().size_in_bytes()))
        .tensor("cache", cache)
        .tensor("rows", rows)
        .tensor("slots", &slots)
        .int(width)
        .int(count)
        .long(elements)
        .run(device_of(cache)?, [blocks(elements, BLOCK), 1], BLOCK, 0)
}
