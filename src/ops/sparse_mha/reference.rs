//! `sparse_mha` as a composition of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::indices_i64;
use crate::ops::sparse_mla::attend;

/// Elements of the gathered `[rows, K, H, Dq]` keys that are alive at a time without gradients.
const CHUNK_ELEMENTS: usize = 1 << 25;

/// [`sparse_mha`](crate::ops::sparse_mha::sparse_mha) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions; an index outside `k`.
pub fn sparse_mha(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    indices: &Tensor,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, dim) = q.dims3()?;
    let (keys, chosen, value_dim) = (k.dim(0)?, indices.dim(1)?, v.dim(2)?);
    if tokens == 0 || heads == 0 || chosen == 0 || keys == 0 {
        let out = Tensor::zeros((tokens, heads, value_dim), q.dtype(), q.device())?;
        return Ok((out, Tensor::full(f32::NEG_INFINITY, (tokens, heads), q.device())?));
    }
    let indices = indices_i64(indices)?;
    let (dtype, q) = (q.dtype(), q.to_dtype(DType::F32)?);
    let (k, v) = (k.to_dtype(DType::F32)?.contiguous()?, v.to_dtype(DType::F32)?.contiguous()?);
    let step = (CHUNK_ELEMENTS / (chosen * heads * dim).max(1)).max(1);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for row in (0..tokens).step_by(step) {
        let rows = step.min(tokens - row);
        let indices = indices.narrow(0, row, rows)?;
        let mask = indices.ge(0i64)?.reshape((rows, 1, 1, chosen))?.broadcast_as((rows, heads, 1, chosen))?;
        let mask = mask.reshape((rows * heads, 1, chosen))?;
        // -1 becomes row 0, which the mask hides; another number below 0 is an error of the gather.
        let places = (&indices + mask_of(&indices)?)?.flatten_all()?;
        let gather = |x: &Tensor, width: usize| {
            let x = x.index_select(&places, 0)?.reshape((rows, chosen, heads, width))?;
            x.transpose(1, 2)?.contiguous()?.reshape((rows * heads, chosen, width))
        };
        let queries = q.narrow(0, row, rows)?.contiguous()?.reshape((rows * heads, 1, dim))?;
        let (out, lse) = attend(&queries, &gather(&k, dim)?, &gather(&v, value_dim)?, &mask, softmax_scale)?;
        outs.push(out.reshape((rows, heads, value_dim))?);
        lses.push(lse.reshape((rows, heads))?);
    }
    Ok((Tensor::cat(&outs, 0)?.to_dtype(dtype)?, Tensor::cat(&lses, 0)?))
}

/// 1 where an index is -1, else 0.
fn mask_of(indices: &Tensor) -> Result<Tensor> {
    indices.eq(-1i64)?.to_dtype(DType::I64)
}
