//! `mqa_logits` as an operation that gradients pass through: only its arguments are kept.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::deferred::with_gradient;
use crate::ops::fp8::{Fp8Row, float_rows};
use crate::ops::layout::BatchLayout;
use crate::ops::sparse_mla::causal_mask;

/// Products `[rows, H_I, context]` that are alive at a time.
const CHUNK_ELEMENTS: usize = 1 << 22;

/// An implementation of the op without gradients.
type Forward = fn(&Tensor, &Tensor, &Tensor, &BatchLayout) -> Result<Tensor>;

/// `forward` in f32 with gradients for `q`, `index_k` and `weights`.
pub(super) fn tracked(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    forward: Forward,
) -> Result<Tensor> {
    let wide = |x: &Tensor| x.to_dtype(DType::F32)?.contiguous();
    let keys = float_rows(index_k, Fp8Row { quantized: q.dim(2)?, plain: 0 })?;
    let (q, index_k, weights) = (wide(q)?, wide(&keys)?, wide(weights)?);
    let logits = forward(&q.detach(), &index_k.detach(), &weights.detach(), layout)?;
    let (layout, kept) = (layout.clone(), [&q, &index_k, &weights].map(Tensor::detach));
    with_gradient(&logits, &[&q, &index_k, &weights], move |_, grad| {
        let [q, index_k, weights] = &kept;
        gradients(q, index_k, weights, grad, &layout)
    })
}

/// The gradients of `q`, `index_k` and `weights` from that of the logits; all f32.
fn gradients(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    grad: &Tensor,
    layout: &BatchLayout,
) -> Result<Vec<Tensor>> {
    let (_, heads, dim) = q.dims3()?;
    let (mut d_q, mut d_k, mut d_weights) = (Vec::new(), index_k.zeros_like()?, Vec::new());
    for span in layout.spans.iter().filter(|span| !span.tokens.is_empty() && heads > 0) {
        let context = span.context();
        let slots = span.context_slots().map(|slot| slot as u32).collect();
        let slots = Tensor::from_vec::<_, u32>(slots, context, q.device())?;
        let keys = index_k.index_select(&slots, 0)?;
        let mut d_keys = keys.zeros_like()?;
        let step = (CHUNK_ELEMENTS / (heads * context)).max(1);
        for row in span.tokens.clone().step_by(step) {
            let rows = step.min(span.tokens.end - row);
            let mask = causal_mask(span.start + row - span.tokens.start, rows, context, q.device())?;
            let grad = grad.narrow(0, row, rows)?.narrow(1, 0, context)?.contiguous()?;
            let grad = mask.where_cond(&grad, &grad.zeros_like()?)?.unsqueeze(1)?;
            let flat = q.narrow(0, row, rows)?.reshape((rows * heads, dim))?;
            let scores = flat.matmul(&keys.t()?)?.reshape((rows, heads, context))?;
            let (d_scores, d_w) = score_gradients(&scores, &weights.narrow(0, row, rows)?.unsqueeze(2)?, &grad)?;
            let d_scores = d_scores.reshape((rows * heads, context))?;
            d_q.push(d_scores.matmul(&keys)?.reshape((rows, heads, dim))?);
            d_keys = (d_keys + d_scores.t()?.matmul(&flat)?)?;
            d_weights.push(d_w);
        }
        d_k = d_k.index_add(&slots, &d_keys, 0)?;
    }
    let join = |parts: Vec<Tensor>, like: &Tensor| match parts.len() {
        0 => like.zeros_like(),
        _ => Tensor::cat(&parts, 0),
    };
    Ok(vec![join(d_q, q)?, d_k, join(d_weights, weights)?])
}

/// From the products `scores: [rows, H_I, n]`, `weights: [rows, H_I, 1]` and the gradient `grad: [rows, 1, n]` of the
/// logits: the gradients of the scores `[rows, H_I, n]` and of the weights `[rows, H_I]`.
fn score_gradients(scores: &Tensor, weights: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let (open, none) = (scores.gt(0f32)?, scores.zeros_like()?);
    let d_weights = open.where_cond(&scores.broadcast_mul(grad)?, &none)?.sum(2)?;
    let d_scores = open.where_cond(&weights.broadcast_mul(grad)?, &none)?;
    Ok((d_scores, d_weights))
}
