//! `sparse_mha` on a GPU: one warp a head of a row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    ATTENTION_BLOCK, ATTENTION_PAIRS, Launch, attention_kernel, blocks, contiguous_indices, device_of, empty, modules,
    unit_step,
};

/// [`sparse_mha`](super::sparse_mha) of tensors on one GPU; a row that names one outside `k` is NaN.
pub(super) fn sparse_mha(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    indices: &Tensor,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let ((tokens, heads, dim), (keys, _, value_dim)) = (q.dims3()?, v.dims3()?);
    let kernel = match attention_kernel("sparse_mha", q.dtype(), k.dtype(), dim, value_dim) {
        Some(kernel) if k.dtype() == v.dtype() => kernel,
        _ => return super::reference::sparse_mha(q, k, v, indices, softmax_scale),
    };
    let device = device_of(q)?;
    let (q, k, v, indices) = (unit_step(q)?, unit_step(k)?, unit_step(v)?, contiguous_indices(indices)?);
    let out = empty((tokens, heads, value_dim), q.dtype(), device)?;
    let lse = empty((tokens, heads), DType::F32, device)?;
    let pairs = tokens * heads;
    Launch::new(&modules::SPARSE_MHA, kernel)
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("k", &k)
        .long(k.stride()[0])
        .long(k.stride()[1])
        .tensor("v", &v)
        .long(v.stride()[0])
        .long(v.stride()[1])
        .tensor("indices", &indices)
        .tensor("out", &out)
        .tensor("softmax_lse", &lse)
        .long(pairs)
        .int(heads)
        .int(dim)
        .int(value_dim)
        .int(keys)
        .int(indices.dim(1)?)
        .int(usize::from(indices.dtype() == DType::I64))
        .float(softmax_scale)
        .run(device, [blocks(pairs, ATTENTION_PAIRS), 1], ATTENTION_BLOCK, 0)?;
    Ok((out, lse))
}
