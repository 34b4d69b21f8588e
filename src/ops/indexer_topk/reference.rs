//! `indexer_topk` from `mqa_logits` and `topk`, a chunk of rows at a time.

use candle::{Result, Tensor};
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
    let mut indices = vec![-1i32; tokens * k];
    for span in &layout.spans {
        let position = |row: usize| span.start + row - span.tokens.start;
        let mut row = span.tokens.start;
        // Rows that see no more than k positions take them all; the others follow them and are scored.
        while row < span.tokens.end && position(row) < k {
            for (seen, index) in indices[row * k..][..=position(row)].iter_mut().enumerate() {
                *index = span.slot(seen) as i32;
            }
            row += 1;
        }
        let step = (CHUNK_ELEMENTS / span.context().max(1)).max(1);
        while k > 0 && row < span.tokens.end {
            let rows = step.min(span.tokens.end - row);
            let chunk =
                Span { tokens: 0..rows, start: position(row), block_table: span.block_table.clone(), prefill: None };
            let (q, weights) = (q.narrow(0, row, rows)?, weights.narrow(0, row, rows)?);
            let logits = mqa_logits(&q, &index_k, &weights, &BatchLayout { spans: vec![chunk] })?;
            let chosen = topk(&logits, k)?.flatten_all()?.to_vec1::<i32>()?;
            for (index, position) in indices[row * k..].iter_mut().zip(chosen) {
                *index = usize::try_from(position).map_or(-1, |position| span.slot(position) as i32);
            }
            row += rows;
        }
    }
    Tensor::from_vec(indices, (tokens, k), q.device())
}
