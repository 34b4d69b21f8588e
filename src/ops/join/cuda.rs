//! Two tensors side by side on a GPU: one thread an element.

use candle::{D, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, Rows, blocks, copy_to, device_of, empty, modules};

/// [`join`](super::join) of tensors on one GPU, of elements of 16 or 32 bits.
pub(super) fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let bits = 8 * a.dtype().size_in_bytes();
    let is_empty = a.dim(D::Minus1)? == 0 || b.dim(D::Minus1)? == 0;
    if is_empty || (bits != 16 && bits != 32) {
        return super::reference::join(a, b);
    }
    let device = device_of(a)?;
    let (a_width, width) = (a.dim(D::Minus1)?, a.dim(D::Minus1)? + b.dim(D::Minus1)?);
    let mut dims = a.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    let out = empty(dims, a.dtype(), device)?;
    let ((a, a_rows), (b, b_rows)) = (Rows::of(a)?, Rows::of(b)?);
    let elements = out.elem_count();
    Launch::new(&modules::JOIN, format!("join_{bits}bit"))
        .rows("a", &a, a_rows)
        .rows("b", &b, b_rows)
        .tensor("out", &out)
        .int(a_width)
        .int(width)
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}

/// [`join_rows`](super::join_rows) of tensors on one GPU: copies of the driver.
pub(super) fn join_rows(parts: &[Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { return super::reference::join_rows(parts) };
    let alike =
        |part: &Tensor| part.dtype() == first.dtype() && part.rank() > 0 && part.dims()[1..] == first.dims()[1..];
    if !parts.iter().all(alike) {
        return super::reference::join_rows(parts);
    }
    let counts = parts.iter().map(|part| part.dims()[0]);
    let mut dims = first.dims().to_vec();
    dims[0] = counts.clone().sum();
    let out = empty(dims, first.dtype(), device_of(first)?)?;
    let mut row = 0;
    for (part, count) in parts.iter().zip(counts).filter(|(_, count)| *count > 0) {
        copy_to(part, &out.narrow(0, row, count)?)?;
        row += count;
    }
    Ok(out)
}
