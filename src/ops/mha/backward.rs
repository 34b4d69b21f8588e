//! `mha` as an operation that gradients pass through: only its arguments and results are kept.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

use crate::ops::deferred::with_gradient;
use crate::ops::layout::BatchLayout;
use crate::ops::sparse_mla::causal_mask;

/// Scores `[H, rows, context]` that are alive at a time.
const CHUNK_ELEMENTS: usize = 1 << 22;

/// An implementation of the op without gradients.
type Forward = fn(&Tensor, &Tensor, &Tensor, &BatchLayout, f64) -> Result<(Tensor, Tensor)>;

/// `forward` in f32 with gradients for `q`, `k` and `v`.
pub(super) fn tracked(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    layout: &BatchLayout,
    softmax_scale: f64,
    forward: Forward,
) -> Result<(Tensor, Tensor)> {
    let wide = |x: &Tensor| x.to_dtype(DType::F32)?.contiguous();
    let (dtype, value_dim, q, k, v) = (q.dtype(), v.dim(2)?, wide(q)?, wide(k)?, wide(v)?);
    let (out, lse) = forward(&q.detach(), &k.detach(), &v.detach(), layout, softmax_scale)?;
    let packed = Tensor::cat(&[out, lse.unsqueeze(2)?], 2)?;
    let (layout, kept) = (layout.clone(), [&q, &k, &v].map(Tensor::detach));
    let packed = with_gradient(&packed, &[&q, &k, &v], move |packed, grad| {
        let [q, k, v] = &kept;
        gradients(q, k, v, packed, grad, &layout, softmax_scale)
    })?;
    let out = packed.narrow(D::Minus1, 0, value_dim)?.contiguous()?.to_dtype(dtype)?;
    Ok((out, packed.narrow(D::Minus1, value_dim, 1)?.squeeze(D::Minus1)?.contiguous()?))
}

/// The gradients of `q`, `k` and `v` from `packed`, `out` and behind it `lse`, and its gradient `grad`; all f32.
fn gradients(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    packed: &Tensor,
    grad: &Tensor,
    layout: &BatchLayout,
    softmax_scale: f64,
) -> Result<Vec<Tensor>> {
    let (heads, value_dim) = (q.dim(1)?, v.dim(2)?);
    let rows_of_heads = |x: &Tensor| x.transpose(0, 1)?.contiguous();
    let transposed = |x: &Tensor| x.transpose(1, 2)?.contiguous();
    let (mut d_q, mut d_k, mut d_v) = (Vec::new(), Vec::new(), Vec::new());
    let mut base = 0;
    for span in layout.spans.iter().filter(|_| heads > 0) {
        let context = span.context();
        let (k, v) = (rows_of_heads(&k.narrow(0, base, context)?)?, rows_of_heads(&v.narrow(0, base, context)?)?);
        let (mut d_k_span, mut d_v_span) = (k.zeros_like()?, v.zeros_like()?);
        let step = (CHUNK_ELEMENTS / (heads * context.max(1))).max(1);
        for row in span.tokens.clone().step_by(step) {
            let rows = step.min(span.tokens.end - row);
            let first = span.start + row - span.tokens.start;
            let seen = first + rows;
            let part = |x: &Tensor| rows_of_heads(&x.narrow(0, row, rows)?);
            let (q, packed, grad) = (part(q)?, part(packed)?, part(grad)?);
            let (k, v) = (k.narrow(1, 0, seen)?.contiguous()?, v.narrow(1, 0, seen)?.contiguous()?);
            let (out, d_out) = (packed.narrow(2, 0, value_dim)?, grad.narrow(2, 0, value_dim)?.contiguous()?);
            let (lse, d_lse) = (packed.narrow(2, value_dim, 1)?, grad.narrow(2, value_dim, 1)?);

            let scores = (q.matmul(&transposed(&k)?)? * softmax_scale)?;
            let p = scores.broadcast_sub(&lse)?.exp()?;
            let mask = causal_mask(first, rows, seen, q.device())?.unsqueeze(0)?.broadcast_as(p.dims())?;
            let p = mask.where_cond(&p, &p.zeros_like()?)?;
            // d_score = p (d_out . v - d_out . out + d_lse)
            let (d_p, shift) = match value_dim {
                0 => (p.zeros_like()?, d_lse.neg()?),
                _ => (d_out.matmul(&transposed(&v)?)?, ((&d_out * out)?.sum_keepdim(2)? - d_lse)?),
            };
            let d_scores = ((&p * d_p.broadcast_sub(&shift)?)? * softmax_scale)?;
            d_q.push(d_scores.matmul(&k)?.transpose(0, 1)?);
            let unseen = context - seen;
            d_k_span = (d_k_span + transposed(&d_scores)?.matmul(&q)?.pad_with_zeros(1, 0, unseen)?)?;
            if value_dim > 0 {
                d_v_span = (d_v_span + transposed(&p)?.matmul(&d_out)?.pad_with_zeros(1, 0, unseen)?)?;
            }
        }
        d_k.push(d_k_span.transpose(0, 1)?);
        d_v.push(d_v_span.transpose(0, 1)?);
        base += context;
    }
    let join = |parts: Vec<Tensor>, like: &Tensor| match parts.len() {
        0 => like.zeros_like(),
        _ => Tensor::cat(&parts, 0)?.contiguous(),
    };
    Ok(vec![join(d_q, q)?, join(d_k, k)?, join(d_v, v)?])
}
