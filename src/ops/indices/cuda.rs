//! The conversion of indices on a GPU: one thread an index.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, Rows, blocks, device_of, empty, modules};

/// [`indices_i64`](super::indices_i64) of i32 on a GPU.
pub(super) fn indices_i64(indices: &Tensor) -> Result<Tensor> {
    let (device, elements) = (device_of(indices)?, indices.elem_count());
    let out = empty(indices.dims(), DType::I64, device)?;
    let width = indices.dims().last().copied().unwrap_or(1);
    let (source, rows) = Rows::of(&if indices.rank() == 0 { indices.unsqueeze(0)? } else { indices.clone() })?;
    Launch::new(&modules::INDICES_I64, "indices_i64")
        .rows("indices", &source, rows)
        .tensor("out", &out)
        .int(width)
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}
