//! The Walsh-Hadamard transform on a GPU: one block a row, in shared memory.

use candle::{D, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, Rows, device_of, empty, modules, row_block};

/// The widest row that a block's shared memory holds.
const WIDEST: usize = 8192;

/// [`hadamard`](super::hadamard) of a tensor on a GPU.
pub(super) fn hadamard(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if width > WIDEST {
        return super::reference::hadamard(x);
    }
    let device = device_of(x)?;
    let (source, rows) = Rows::of(x)?;
    let out = empty(x.dims(), x.dtype(), device)?;
    Launch::new(&modules::HADAMARD, format!("hadamard_{}", x.dtype().as_str()))
        .rows("x", &source, rows)
        .tensor("out", &out)
        .int(width)
        .float((width as f64).powf(-0.5))
        .run(device, [x.elem_count() / width, 1], row_block(width / 2), width * size_of::<f32>())?;
    Ok(out)
}
