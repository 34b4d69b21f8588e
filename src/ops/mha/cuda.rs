//! `mha` on a GPU: one warp a head of a row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    ATTENTION_BLOCK, ATTENTION_PAIRS, DeviceLayout, Launch, attention_kernel, blocks, device_of, empty, modules,
    unit_step,
};
use crate::ops::layout::BatchLayout;

/// [`mha`](super::mha) of tensors on one GPU.
pub(super) fn mha(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    layout: &BatchLayout,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let ((tokens, heads, dim), value_dim) = (q.dims3()?, v.dim(2)?);
    let kernel = match attention_kernel("mha", q.dtype(), k.dtype(), dim, value_dim) {
        Some(kernel) if k.dtype() == v.dtype() => kernel,
        _ => return super::reference::mha(q, k, v, layout, softmax_scale),
    };
    let device = device_of(q)?;
    let layout = DeviceLayout::of(layout, device)?;
    let (q, k, v) = (unit_step(q)?, unit_step(k)?, unit_step(v)?);
    let out = empty((tokens, heads, value_dim), q.dtype(), device)?;
    let lse = empty((tokens, heads), DType::F32, device)?;
    let pairs = tokens * heads;
    Launch::new(&modules::MHA, kernel)
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("k", &k)
        .long(k.stride()[0])
        .long(k.stride()[1])
        .tensor("v", &v)
        .long(v.stride()[0])
        .long(v.stride()[1])
        .layout(&layout)
        .tensor("out", &out)
        .tensor("softmax_lse", &lse)
        .long(pairs)
        .int(heads)
        .int(dim)
        .int(value_dim)
        .float(softmax_scale)
        .run(device, [blocks(pairs, ATTENTION_PAIRS), 1], ATTENTION_BLOCK, 0)?;
    Ok((out, lse))
}
