//! `dense_mla` as a composition of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::fp8::{Fp8Row, float_rows};
use crate::ops::layout::BatchLayout;
use crate::ops::sparse_mla::{attend, causal_mask};

/// Scores `[rows, H, context]` that are alive at a time without gradients.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// See the op's documentation.
pub fn dense_mla(
    q: &Tensor,
    kv: &Tensor,
    layout: &BatchLayout,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, dim) = q.dims3()?;
    layout.check(tokens, kv.dim(0)?)?;
    if tokens == 0 || heads == 0 {
        let out = Tensor::zeros((tokens, heads, value_dim), q.dtype(), q.device())?;
        return Ok((out, Tensor::zeros((tokens, heads), DType::F32, q.device())?));
    }
    let row = Fp8Row { quantized: value_dim, plain: dim - value_dim };
    let kv = float_rows(kv, row)?.contiguous()?;
    let q32 = q.to_dtype(DType::F32)?;
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for span in layout.spans.iter().filter(|span| !span.tokens.is_empty()) {
        let context = span.context();
        let slots = span.context_slots().map(|slot| slot as u32).collect::<Vec<_>>();
        let keys = kv.index_select(&Tensor::from_vec(slots, context, q.device())?, 0)?.to_dtype(DType::F32)?;
        let keys = keys.unsqueeze(0)?;
        let values = keys.narrow(2, 0, value_dim)?;
        let step = (CHUNK_ELEMENTS / (heads * context)).max(1);
        for row in span.tokens.clone().step_by(step) {
            let rows = step.min(span.tokens.end - row);
            let first = span.start + row - span.tokens.start;
            let mask = causal_mask(first, rows, context, q.device())?.unsqueeze(1)?;
            let mask = mask.broadcast_as((rows, heads, context))?.reshape((1, rows * heads, context))?;
            let queries = q32.narrow(0, row, rows)?.reshape((1, rows * heads, dim))?;
            let (out, lse) = attend(&queries, &keys, &values, &mask, softmax_scale)?;
            outs.push(out.reshape((rows, heads, value_dim))?);
            lses.push(lse.reshape((rows, heads))?);
        }
    }
    Ok((Tensor::cat(&outs, 0)?.to_dtype(q.dtype())?, Tensor::cat(&lses, 0)?))
}
