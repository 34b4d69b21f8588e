//! The residual stream on a GPU.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, Rows, blocks, contiguous, converted, device_of, empty, modules, row_block};

/// [`add`](super::add) of tensors on one GPU: one thread an element.
pub(super) fn add(x: &Tensor, a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (device, elements) = (device_of(x)?, x.elem_count());
    let (x, a, b) = (contiguous(x)?, contiguous(a)?, b.map(contiguous).transpose()?);
    let out = empty(x.dims(), x.dtype(), device)?;
    Launch::new(&modules::RESIDUAL, format!("add_{}", x.dtype().as_str()))
        .tensor("x", &x)
        .tensor("a", &a)
        .maybe("b", b.as_ref())
        .tensor("out", &out)
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}

/// [`add_rms_norm`](super::add_rms_norm) of tensors on one GPU: one block a row.
pub(super) fn add_rms_norm(x: &Tensor, a: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let device = device_of(x)?;
    let (x, a, weight) = (contiguous(x)?, contiguous(a)?, converted(weight, DType::F32)?);
    let width = weight.elem_count();
    if x.elem_count() == 0 {
        return Ok((x.clone(), x));
    }
    let (sum, out) = (empty(x.dims(), x.dtype(), device)?, empty(x.dims(), x.dtype(), device)?);
    Launch::new(&modules::RESIDUAL, format!("add_rms_norm_{}", x.dtype().as_str()))
        .tensor("x", &x)
        .tensor("a", &a)
        .tensor("weight", &weight)
        .tensor("sum", &sum)
        .tensor("out", &out)
        .int(width)
        .float(eps)
        .run(device, [x.elem_count() / width, 1], row_block(width), 0)?;
    Ok((sum, out))
}

/// [`mark_not_finite`](super::mark_not_finite) of tensors on one GPU: one block a row, the least of an atomic.
pub(super) fn mark_not_finite(x: &Tensor, index: u32, first: &Tensor) -> Result<()> {
    let device = device_of(x)?;
    let (count, width) = x.dims2()?;
    let (source, rows) = Rows::of(x)?;
    if !first.is_contiguous() || !first.layout().start_offset().is_multiple_of(2) {
        candle::bail!("mark_not_finite: first must be contiguous and at an even offset")
    }
    Launch::new(&modules::RESIDUAL, format!("first_not_finite_{}", x.dtype().as_str()))
        .rows("x", &source, rows)
        .tensor("first", first)
        .int(width)
        .int(index as usize)
        .run(device, [count, usize::from(width > 0)], row_block(width), 0)
}
