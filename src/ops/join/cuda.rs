//! Two tensors side by side on a GPU: one thread an element.

use candle::{D, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, Rows, blocks, device_of, empty, modules};

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
