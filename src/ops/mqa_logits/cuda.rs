//! `mqa_logits` on a GPU. Here its kernel is chosen.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{DeviceLayout, Launch, blocks, device_of, empty, modules, unit_step};
use crate::ops::layout::{BatchLayout, PAGE_SIZE};

/// Widths of keys that the kernels of each name hold in registers.
const WIDTHS: [(&str, usize); 2] = [("narrow", 128), ("wide", 256)];

/// [`mqa_logits`](super::mqa_logits) of tensors on one GPU.
pub(super) fn mqa_logits(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    let (_, _, dim) = q.dims3()?;
    match WIDTHS.iter().find(|(_, width)| dim <= *width) {
        Some((width, _)) => any_gpu(width, q, index_k, weights, layout),
        None => super::reference::mqa_logits(q, index_k, weights, layout),
    }
}

/// One block a row and a page of columns.
fn any_gpu(width: &str, q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    /// Threads of a block: eight keys for each of its warps are a page.
    const BLOCK: usize = PAGE_SIZE / 8 * 32;

    let device = device_of(q)?;
    let ((tokens, heads, dim), columns) = (q.dims3()?, layout.max_context());
    let layout = DeviceLayout::of(layout, device)?;
    let (q, index_k) = (unit_step(q)?, unit_step(index_k)?);
    let weights = weights.to_dtype(DType::F32)?.contiguous()?;
    let logits = empty((tokens, columns), DType::F32, device)?;
    Launch::new(
        &modules::MQA_LOGITS,
        format!("mqa_logits_{}_{}_{width}", q.dtype().as_str(), index_k.dtype().as_str()),
    )
    .tensor("q", &q)
    .long(q.stride()[0])
    .long(q.stride()[1])
    .tensor("index_k", &index_k)
    .long(index_k.stride()[0])
    .tensor("weights", &weights)
    .layout(&layout)
    .tensor("logits", &logits)
    .int(heads)
    .int(dim)
    .int(columns)
    .run(device, [tokens, blocks(columns, PAGE_SIZE)], BLOCK, 0)?;
    Ok(logits)
}
