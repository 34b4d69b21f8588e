//! `mqa_logits` as a composition of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::fp8::{Fp8Row, float_rows};
use crate::ops::layout::{BatchLayout, Span};
use crate::ops::sparse_mla::causal_mask;

/// Elements of the `[rows, H_I, context]` intermediate that are alive at a time.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// See the op's documentation.
pub fn mqa_logits(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    let (tokens, heads, dim) = q.dims3()?;
    layout.check(tokens, index_k.dim(0)?)?;
    let columns = layout.max_context();
    if tokens == 0 || columns == 0 {
        return Tensor::zeros((tokens, columns), DType::F32, q.device());
    }
    let index_k = float_rows(index_k, Fp8Row { quantized: dim, plain: 0 })?.contiguous()?;
    let (q, weights) = (q.to_dtype(DType::F32)?, weights.to_dtype(DType::F32)?);
    let mut blocks = Vec::new();
    for span in layout.spans.iter().filter(|span| !span.tokens.is_empty()) {
        let slots = span.context_slots().map(|slot| slot as u32).collect::<Vec<_>>();
        let slots = Tensor::from_vec(slots, span.context(), q.device())?;
        let keys = index_k.index_select(&slots, 0)?.to_dtype(DType::F32)?;
        let step = (CHUNK_ELEMENTS / (heads.max(1) * span.context())).max(1);
        for row in span.tokens.clone().step_by(step) {
            let rows = step.min(span.tokens.end - row);
            let scores = q.narrow(0, row, rows)?.reshape((rows * heads, dim))?.matmul(&keys.t()?)?;
            // Not `relu`, which turns NaN into 0.
            let scores = scores.le(0f32)?.where_cond(&scores.zeros_like()?, &scores)?;
            let scores = scores.reshape((rows, heads, span.context()))?;
            let scores = scores.broadcast_mul(&weights.narrow(0, row, rows)?.unsqueeze(2)?)?.sum(1)?;
            blocks.push(hide_future(&scores, span, row, columns)?);
        }
    }
    Tensor::cat(&blocks, 0)
}

/// Sets what lies beyond each row's position to -inf and widens `scores`, the rows from `row` on, to `columns`.
fn hide_future(scores: &Tensor, span: &Span, row: usize, columns: usize) -> Result<Tensor> {
    let (rows, context) = scores.dims2()?;
    let first = span.start + row - span.tokens.start;
    let mask = causal_mask(first, rows, context, scores.device())?;
    let hidden = Tensor::full(f32::NEG_INFINITY, (rows, columns), scores.device())?;
    let scores = mask.where_cond(scores, &hidden.narrow(1, 0, context)?)?;
    if context == columns {
        return Ok(scores);
    }
    Tensor::cat(&[&scores, &hidden.narrow(1, context, columns - context)?], 1)
}
