//! `dense_mla` on a GPU: one warp a head of a row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    ATTENTION_BLOCK, DeviceLayout, Launch, attention_grid, attention_kernel, device_of, empty, modules, unit_step,
};
use crate::ops::layout::BatchLayout;

/// [`dense_mla`](super::dense_mla) of tensors on one GPU.
pub(super) fn dense_mla(
    q: &Tensor,
    kv: &Tensor,
    layout: &BatchLayout,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, dim) = q.dims3()?;
    let kernel = match attention_kernel("dense_mla", q.dtype(), kv.dtype(), dim, value_dim) {
        Some(kernel) => kernel,
        None => return super::reference::dense_mla(q, kv, layout, value_dim, softmax_scale),
    };
    let device = device_of(q)?;
    let layout = DeviceLayout::of(layout, device)?;
    let (q, kv) = (unit_step(q)?, unit_step(kv)?);
    let out = empty((tokens, heads, value_dim), q.dtype(), device)?;
    let lse = empty((tokens, heads), DType::F32, device)?;
    let pairs = tokens * heads;
    let (module, kernel, grid) = attention_grid(&modules::DENSE_MLA, kernel, pairs);
    Launch::new(module, kernel)
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("kv", &kv)
        .long(kv.stride()[0])
        .layout(&layout)
        .tensor("out", &out)
        .tensor("softmax_lse", &lse)
        .long(pairs)
        .int(heads)
        .int(dim)
        .int(value_dim)
        .float(softmax_scale)
        .run(device, [grid, 1], ATTENTION_BLOCK, 0)?;
    Ok((out, lse))
}
