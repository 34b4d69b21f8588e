//! `mha` as a composition of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::layout::BatchLayout;
use crate::ops::sparse_mla::{attend, causal_mask};

/// Scores `[H, rows, context]` that are alive at a time without gradients.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// See the op's documentation.
pub fn mha(q: &Tensor, k: &Tensor, v: &Tensor, layout: &BatchLayout, softmax_scale: f64) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, _) = q.dims3()?;
    layout.check_rows(tokens)?;
    if tokens == 0 || heads == 0 {
        let out = Tensor::zeros((tokens, heads, v.dim(2)?), q.dtype(), q.device())?;
        return Ok((out, Tensor::zeros((tokens, heads), DType::F32, q.device())?));
    }
    let by_head = |x: &Tensor| x.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous();
    let (q32, k, v) = (by_head(q)?, by_head(k)?, by_head(v)?);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    let mut base = 0;
    for span in &layout.spans {
        let context = span.context();
        let step = (CHUNK_ELEMENTS / (heads * context.max(1))).max(1);
        for row in span.tokens.clone().step_by(step) {
            let rows = step.min(span.tokens.end - row);
            let first = span.start + row - span.tokens.start;
            let seen = first + rows;
            let mask = causal_mask(first, rows, seen, q.device())?.unsqueeze(0)?;
            let (k, v) = (k.narrow(1, base, seen)?, v.narrow(1, base, seen)?);
            let (out, lse) = attend(&q32.narrow(1, row, rows)?, &k, &v, &mask, softmax_scale)?;
            outs.push(out.transpose(0, 1)?);
            lses.push(lse.t()?);
        }
        base += context;
    }
    Ok((Tensor::cat(&outs, 0)?.to_dtype(q.dtype())?, Tensor::cat(&lses, 0)?))
}
