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

/// [`rope_join`](super::rope_join) of tensors on one GPU: one thread an element.
pub(super) fn rope_join(
    pe: &Tensor,
    rest: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    interleaved: bool,
    pe_first: bool,
) -> Result<Tensor> {
    let device = device_of(pe)?;
    let ((tokens, heads, rotated), rest_width) = (pe.dims3()?, rest.dim(2)?);
    let ((pe, pe_rows), (rest, rest_rows)) = (Rows::of(pe)?, Rows::of(rest)?);
    let (cos, sin) = (cos.to_dtype(DType::F32)?.contiguous()?, sin.to_dtype(DType::F32)?.contiguous()?);
    let out = empty((tokens, heads, rotated + rest_width), pe.dtype(), device)?;
    let elements = out.elem_count();
    Launch::new(&modules::ROPE, format!("rope_join_{}", pe.dtype().as_str()))
        .rows("pe", &pe, pe_rows)
        .rows("rest", &rest, rest_rows)
        .tensor("cos", &cos)
        .tensor("sin", &sin)
        .tensor("out", &out)
        .int(heads)
        .int(rotated / 2)
        .int(rest_width)
        .int(usize::from(interleaved))
        .int(usize::from(pe_first))
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}
