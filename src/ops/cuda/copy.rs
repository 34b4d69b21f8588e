//! Copies by own kernels: candle's are PTX, which the driver compiles when they are first called.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::{BLOCK, Launch, Rows, blocks, device_of, empty, modules};

/// Returns the tensor, copied if its elements do not lie in order.
pub(crate) fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_contiguous() { Ok(tensor.clone()) } else { converted(tensor, tensor.dtype()) }
}

/// Returns the tensor in `dtype`, its elements in order, copied only if it was not so.
pub(crate) fn converted(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    let floats = [DType::F32, DType::BF16];
    if tensor.dtype() == dtype && tensor.is_contiguous() {
        return Ok(tensor.clone());
    }
    if !floats.contains(&tensor.dtype()) || !floats.contains(&dtype) || tensor.rank() == 0 {
        return tensor.to_dtype(dtype)?.contiguous();
    }
    let (device, elements) = (device_of(tensor)?, tensor.elem_count());
    let out = empty(tensor.dims(), dtype, device)?;
    if elements == 0 {
        return Ok(out);
    }
    let (source, rows) = Rows::of(tensor)?;
    Launch::new(&modules::COPY, format!("copy_{}_{}", tensor.dtype().as_str(), dtype.as_str()))
        .rows("from", &source, rows)
        .tensor("to", &out)
        .int(tensor.dim(candle::D::Minus1)?)
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}
