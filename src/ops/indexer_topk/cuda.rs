//! `indexer_topk` on a GPU: scores a chunk of rows, selects, forgets the scores.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, DeviceLayout, Launch, MAX_SCORES, device_of, empty, modules};
use crate::ops::layout::BatchLayout;
use crate::ops::mqa_logits::cuda::seen_logits;
use crate::ops::mqa_logits::mqa_logits;
use crate::ops::topk::cuda::topk_slots;
use crate::ops::topk::topk;

/// [`indexer_topk`](super::indexer_topk) of tensors on one GPU; a row with a NaN among the scores that are compared
/// selects nothing.
pub(super) fn indexer_topk(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    k: usize,
) -> Result<Tensor> {
    let (device, tokens) = (device_of(q)?, q.dim(0)?);
    let indices = empty((tokens, k), DType::I32, device)?;
    if indices.elem_count() == 0 {
        return Ok(indices);
    }
    let (q, index_k, weights) = (q.detach(), index_k.detach(), weights.detach());
    let step = (MAX_SCORES / layout.max_context().max(1)).clamp(1, tokens);
    for row in (0..tokens).step_by(step) {
        let rows = step.min(tokens - row);
        let part;
        let chunk = if rows == tokens {
            layout
        } else {
            part = layout.part(row, rows);
            &part
        };
        let (q, weights) = (q.narrow(0, row, rows)?, weights.narrow(0, row, rows)?);
        let logits = match seen_logits(&q, &index_k, &weights, chunk, k)? {
            Some(logits) => logits,
            None => mqa_logits(&q, &index_k, &weights, chunk)?,
        };
        let (layout, slots) = (DeviceLayout::of(chunk, device)?, indices.narrow(0, row, rows)?);
        if topk_slots(&logits, k, &layout, &slots)? {
            continue;
        }
        let positions = topk(&logits, k)?;
        Launch::new(&modules::INDEXER_SLOTS, "indexer_slots")
            .tensor("positions", &positions)
            .layout(&layout)
            .tensor("slots", &slots)
            .int(k)
            .run(device, [rows, 1], BLOCK, 0)?;
    }
    Ok(indices)
}
