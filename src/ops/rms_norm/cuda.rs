//! RMS normalisation on a GPU: one block a row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, Rows, device_of, empty, modules, row_block};

/// [`rms_norm`](super::rms_norm) of tensors on one GPU.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let device = device_of(x)?;
    let (source, rows) = Rows::of(x)?;
    let weight = weight.to_dtype(DType::F32)?.contiguous()?;
    let (width, out) = (weight.elem_count(), empty(x.dims(), x.dtype(), device)?);
    Launch::new(&modules::RMS_NORM, format!("rms_norm_{}", x.dtype().as_str()))
        .rows("x", &source, rows)
        .tensor("weight", &weight)
        .tensor("out", &out)
        .int(width)
        .float(eps)
        .run(device, [x.elem_count() / width, 1], row_block(width), 0)?;
    Ok(out)
}
