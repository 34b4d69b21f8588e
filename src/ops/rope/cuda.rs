//! Rotary position embedding on a GPU: one thread a pair.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, Rows, blocks, device_of, empty, modules};

/// [`rope`](super::rope) of tensors on one GPU.
pub(super) fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let device = device_of(x)?;
    let (_, heads, width) = x.dims3()?;
    let (source, rows) = Rows::of(x)?;
    let (cos, sin) = (cos.to_dtype(DType::F32)?.contiguous()?, sin.to_dtype(DType::F32)?.contiguous()?);
    let (pairs, out) = (x.elem_count() / 2, empty(x.dims(), x.dtype(), device)?);
    Launch::new(&modules::ROPE, format!("rope_{}", x.dtype().as_str()))
        .rows("x", &source, rows)
        .tensor("cos", &cos)
        .tensor("sin", &sin)
        .tensor("out", &out)
        .int(heads)
        .int(width / 2)
        .int(usize::from(interleaved))
        .long(pairs)
        .run(device, [blocks(pairs, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}
