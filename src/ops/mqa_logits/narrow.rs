//! `mqa_logits` of narrow f32 keys on a GPU: one thread a key.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{DeviceLayout, Launch, blocks, converted, device_of, modules, unit_step};
use crate::ops::layout::BatchLayout;

/// The widest key, threads of a block and its rows.
const DIM: usize = 32;
const BLOCK: usize = 128;
const ROWS: usize = 8;
/// Bytes of shared memory of a block at most.
const SHARED: usize = 48 << 10;

/// Whether the kernel takes these queries and keys.
pub(super) fn takes(q: &Tensor, index_k: &Tensor) -> Result<bool> {
    let (_, heads, dim) = q.dims3()?;
    Ok((q.dtype(), index_k.dtype()) == (DType::F32, DType::F32) && dim <= DIM && shared(heads) <= SHARED)
}

fn shared(heads: usize) -> usize {
    ROWS * heads * (DIM + 1) * size_of::<f32>()
}

/// Writes the scores to `logits: [T, layout.max_context()]` f32, -inf where a row does not see a position.
pub(super) fn mqa_logits(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    logits: &Tensor,
) -> Result<()> {
    let (device, (tokens, heads, dim), columns) = (device_of(q)?, q.dims3()?, logits.dim(1)?);
    let layout = DeviceLayout::of(layout, device)?;
    let (q, index_k, weights) = (unit_step(q)?, unit_step(index_k)?, converted(weights, DType::F32)?);
    Launch::new(&modules::MQA_LOGITS_NARROW, "mqa_logits_narrow_f32")
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("index_k", &index_k)
        .long(index_k.stride()[0])
        .tensor("weights", &weights)
        .layout(&layout)
        .tensor("logits", logits)
        .long(logits.stride()[0])
        .int(tokens)
        .int(heads)
        .int(dim)
        .int(columns)
        .run(device, [blocks(tokens, ROWS), blocks(columns, BLOCK)], BLOCK, shared(heads))
}
