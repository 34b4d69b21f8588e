//! Products with numbers on a GPU: one thread an element.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, blocks, contiguous, device_of, empty, modules};

/// [`scale`](super::scale) of f32 tensors on one GPU.
pub(super) fn scale(x: &Tensor, factor: f64, by: Option<&Tensor>) -> Result<Tensor> {
    let (device, elements) = (device_of(x)?, x.elem_count());
    let (x, by) = (contiguous(x)?, by.map(contiguous).transpose()?);
    let out = empty(x.dims(), x.dtype(), device)?;
    Launch::new(&modules::COPY, "scale_f32")
        .tensor("x", &x)
        .maybe("by", by.as_ref())
        .tensor("out", &out)
        .float(factor)
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}
