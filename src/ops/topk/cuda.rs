//! `topk` on a GPU. Here its kernel is chosen.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, device_of, empty, modules, row_block, unit_step};

/// [`topk`](super::topk) of a tensor on a GPU; as in the reference there, a row with a NaN selects nothing.
pub(super) fn topk(logits: &Tensor, k: usize) -> Result<Tensor> {
    let device = device_of(logits)?;
    let (tokens, columns) = logits.dims2()?;
    let indices = empty((tokens, k), DType::I32, device)?;
    if indices.elem_count() > 0 {
        radix(&unit_step(logits)?, columns, k, &indices)?;
    }
    Ok(indices)
}

/// One block a row, in passes over the digits of the entries.
fn radix(logits: &Tensor, columns: usize, k: usize, indices: &Tensor) -> Result<()> {
    Launch::new(&modules::TOPK_RADIX, "topk_radix_f32")
        .tensor("logits", logits)
        .long(logits.stride()[0])
        .tensor("indices", indices)
        .int(columns)
        .int(k)
        .run(device_of(logits)?, [indices.dim(0)?, 1], row_block(columns), 0)
}
