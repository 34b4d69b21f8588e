//! `sparse_mha` on CPU: one head at a time, as attention in MQA mode.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::mla::mla;
use crate::ops::sparse_mla::cpu::seen;

pub(super) fn sparse_mha(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    indices: &Tensor,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, _) = q.dims3()?;
    let (keys, _, value_dim) = v.dims3()?;
    if heads == 0 {
        let out = Tensor::zeros((tokens, heads, value_dim), q.dtype(), q.device())?;
        return Ok((out, Tensor::zeros((tokens, heads), DType::F32, q.device())?));
    }
    let seen = seen("sparse_mha", indices, keys, &format!("k has {keys} rows"))?;
    // Rows [value, key], and a query that is zero on the value part.
    let q = Tensor::cat(&[&Tensor::zeros((tokens, heads, value_dim), q.dtype(), q.device())?, q], 2)?;
    let rows = Tensor::cat(&[&v.to_dtype(k.dtype())?, k], 2)?;
    let (mut outs, mut lses) = (Vec::with_capacity(heads), Vec::with_capacity(heads));
    for head in 0..heads {
        let rows = rows.narrow(1, head, 1)?.squeeze(1)?.contiguous()?;
        let (out, lse) = mla(&q.narrow(1, head, 1)?, &rows, seen.clone(), value_dim, softmax_scale)?;
        outs.push(out);
        lses.push(lse);
    }
    Ok((Tensor::cat(&outs, 1)?, Tensor::cat(&lses, 1)?))
}
