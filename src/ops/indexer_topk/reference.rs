//! `indexer_topk` from `mqa_logits` and `topk`, a chunk of rows at a time.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::layout::{BatchLayout, Span};
use crate::ops::mqa_logits::mqa_logits;
use crate::ops::topk::topk;

/// Logits that are alive at a time.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// See the op's documentation. The selection has no gradient.
pub fn indexer_topk(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout, k: usize) -> Result<Tensor> {
    let tokens = q.dim(0)?;
    layout.check(tokens, index_k.dim(0)?)?;
    let (q, index_k, weights) = (q.detach(), index_k.detach(), weights.detach());
    let device = q.device();
    if tokens == 0 || k == 0 {
        return Tensor::zeros((tokens, k), DType::I32, device);
    }
    let mut blocks = Vec::new();
    for span in layout.spans.iter().filter(|span| !span.tokens.is_empty()) {
        // Behind the context's slots one that stands for none.
        let slots = span.context_slots().map(|slot| slot as i64).chain([-1]).collect::<Vec<_>>();
        let slots = Tensor::from_vec(slots, span.context() + 1, device)?;
        let slots_of = |positions: &Tensor| {
            let positions = positions.to_dtype(DType::I64)?;
            let none = Tensor::full(span.context() as i64, positions.dims(), device)?;
            let positions = positions.lt(0i64)?.where_cond(&none, &positions)?;
            slots.index_select(&positions.flatten_all()?, 0)?.reshape(positions.dims())
        };
        // Rows that see no more than k positions take them all; the others follow them and are scored.
        let whole = k.saturating_sub(span.start).min(span.tokens.len());
        if whole > 0 {
            let last = Tensor::arange(span.start as i64, (span.start + whole) as i64, device)?.reshape((whole, 1))?;
            let positions = Tensor::arange(0, k as i64, device)?.reshape((1, k))?.broadcast_as((whole, k))?;
            let none = Tensor::full(-1i64, (whole, k), device)?;
            let positions = positions.broadcast_le(&last)?.where_cond(&positions.contiguous()?, &none)?;
            blocks.push(slots_of(&positions)?);
        }
        let step = (CHUNK_ELEMENTS / span.context().max(1)).max(1);
        for row in (span.tokens.start + whole..span.tokens.end).step_by(step) {
            let rows = step.min(span.tokens.end - row);
            let start = span.start + row - span.tokens.start;
            let chunk = Span { tokens: 0..rows, start, block_table: span.block_table.clone(), prefill: None };
            let (q, weights) = (q.narrow(0, row, rows)?, weights.narrow(0, row, rows)?);
            let logits = mqa_logits(&q, &index_k, &weights, &BatchLayout { spans: vec![chunk] })?;
            blocks.push(slots_of(&topk(&logits, k)?)?);
        }
    }
    Tensor::cat(&blocks, 0)?.to_dtype(DType::I32)
}
