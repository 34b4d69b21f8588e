//! `dense_mla` on a GPU: on Hopper `sparse_mla` of all slots that a row sees, elsewhere one warp a head of a row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    ATTENTION_BLOCK, BLOCK, DeviceLayout, Launch, attention_grid, attention_kernel, device_of, empty, modules,
    unit_step,
};
use crate::ops::layout::BatchLayout;
use crate::ops::sparse_mla::sm90;

/// [`dense_mla`](super::dense_mla) of tensors on one GPU.
pub(super) fn dense_mla(
    q: &Tensor,
    kv: &Tensor,
    layout: &BatchLayout,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, dim) = q.dims3()?;
    if q.elem_count() > 0 && sm90::takes(q, kv, value_dim, softmax_scale)? {
        return by_lists(q, kv, layout, value_dim, softmax_scale);
    }
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

/// Lists the slots that each row sees, for a chunk of rows at a time, and attends to these.
fn by_lists(
    q: &Tensor,
    kv: &Tensor,
    layout: &BatchLayout,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    /// Slots that are listed at a time.
    const CHUNK_ELEMENTS: usize = 1 << 26;
    /// Rows of a chunk at the most: the lists are as long as that of its last row.
    const CHUNK_ROWS: usize = 1024;

    let (device, tokens) = (device_of(q)?, q.dim(0)?);
    let step = (CHUNK_ELEMENTS / layout.max_context().max(1)).clamp(1, CHUNK_ROWS);
    let mut parts = Vec::with_capacity(tokens.div_ceil(step));
    for row in (0..tokens).step_by(step) {
        let rows = step.min(tokens - row);
        let some;
        let part = if rows == tokens {
            layout
        } else {
            some = layout.part(row, rows);
            &some
        };
        let columns = part.max_context();
        let slots = empty((rows, columns), DType::I32, device)?;
        // No row sees more than there are columns, so that all are taken.
        Launch::new(&modules::INDEXER_SLOTS, "indexer_slots")
            .maybe("positions", None)
            .layout(&DeviceLayout::of(part, device)?)
            .tensor("slots", &slots)
            .int(columns)
            .run(device, [rows, 1], BLOCK, 0)?;
        let q = q.narrow(0, row, rows)?;
        match sm90::sparse_mla(&q, kv, &slots, value_dim, softmax_scale)? {
            Some(part) => parts.push(part),
            None => candle::bail!("no kernel takes queries of {:?}", q.layout()),
        }
    }
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    let (outs, lses): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    Ok((Tensor::cat(&outs, 0)?, Tensor::cat(&lses, 0)?))
}
