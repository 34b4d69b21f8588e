//! `sparse_mla` on a GPU. Here its kernel is chosen.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    ATTENTION_BLOCK, Launch, attention_grid, attention_kernel, contiguous_indices, device_of, empty, modules, unit_step,
};
use crate::ops::fp8::{Fp8Row, float_rows};

/// [`sparse_mla`](super::sparse_mla) of tensors on one GPU; as in the reference there, a row that names a slot outside
/// the cache is NaN, and so are the gradients of what it names.
pub(super) fn sparse_mla(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (_, _, dim) = q.dims3()?;
    if q.track_op() || kv.track_op() {
        // A cache of packed rows has no gradient, but queries beside it do.
        let kv = &float_rows(kv, Fp8Row { quantized: value_dim, plain: dim - value_dim })?;
        let is_empty = q.elem_count() == 0 || kv.elem_count() == 0 || indices.elem_count() == 0 || value_dim == 0;
        if is_empty || attention_kernel("sparse_mla", q.dtype(), kv.dtype(), dim, value_dim).is_none() {
            return super::reference::sparse_mla(q, kv, indices, value_dim, softmax_scale);
        }
        let result = sparse_mla(&q.detach(), &kv.detach(), indices, value_dim, softmax_scale)?;
        return super::backward::tracked(q, kv, indices, softmax_scale, result);
    }
    if q.elem_count() > 0
        && let Some(result) = super::sm90::sparse_mla(q, kv, indices, value_dim, softmax_scale)?
    {
        return Ok(result);
    }
    if q.elem_count() > 0
        && let Some(result) = super::narrow::sparse_mla(q, kv, indices, value_dim, softmax_scale)?
    {
        return Ok(result);
    }
    match attention_kernel("sparse_mla", q.dtype(), kv.dtype(), dim, value_dim) {
        Some(kernel) => any_gpu(kernel, q, kv, indices, value_dim, softmax_scale),
        None => super::reference::sparse_mla(q, kv, indices, value_dim, softmax_scale),
    }
}

/// One warp a head of a row.
fn any_gpu(
    kernel: String,
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let device = device_of(q)?;
    let ((tokens, heads, dim), (slots, k)) = (q.dims3()?, (kv.dim(0)?, indices.dim(1)?));
    let (q, kv, indices) = (unit_step(q)?, unit_step(kv)?, contiguous_indices(indices)?);
    let out = empty((tokens, heads, value_dim), q.dtype(), device)?;
    let lse = empty((tokens, heads), DType::F32, device)?;
    let pairs = tokens * heads;
    let (module, kernel, grid) = attention_grid(&modules::SPARSE_MLA, kernel, pairs);
    Launch::new(module, kernel)
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("kv", &kv)
        .long(kv.stride()[0])
        .tensor("indices", &indices)
        .tensor("out", &out)
        .tensor("softmax_lse", &lse)
        .long(pairs)
        .int(heads)
        .int(dim)
        .int(value_dim)
        .int(slots)
        .int(k)
        .int(usize::from(indices.dtype() == DType::I64))
        .float(softmax_scale)
        .run(device, [grid, 1], ATTENTION_BLOCK, 0)?;
    Ok((out, lse))
}
