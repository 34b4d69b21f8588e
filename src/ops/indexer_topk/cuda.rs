//! `indexer_topk` on a GPU: scores a chunk of rows, selects, forgets the scores.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, DeviceLayout, Launch, MAX_SCORES, device_of, empty, modules};
use crate::ops::layout::{BatchLayout, Span};
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
            part = rows_of(layout, row, rows);
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

/// The layout of some rows of a batch.
fn rows_of(layout: &BatchLayout, row: usize, rows: usize) -> BatchLayout {
    let spans = layout.spans.iter().filter_map(|span| {
        let (first, last) = (span.tokens.start.max(row), span.tokens.end.min(row + rows));
        (first < last).then(|| Span {
            tokens: first - row..last - row,
            start: span.start + first - span.tokens.start,
            block_table: span.block_table.clone(),
            prefill: None,
        })
    });
    BatchLayout { spans: spans.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_layout_keep_positions_and_slots() {
        let mut layout = BatchLayout::uncached(&[70, 3, 200]);
        layout.spans[1].start = 64;
        layout.spans[1].block_table = vec![9, 7];
        let (positions, slots) = (layout.positions(), layout.slots());
        for (row, rows) in [(0, 273), (0, 71), (69, 5), (72, 1), (73, 200)] {
            let part = rows_of(&layout, row, rows);
            part.check_rows(rows).unwrap();
            assert_eq!(part.positions(), positions[row..row + rows]);
            assert_eq!(part.slots(), slots[row..row + rows]);
        }
    }
}
