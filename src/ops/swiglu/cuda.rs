//! SwiGLU on a GPU: one thread an element.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{BLOCK, Launch, Rows, blocks, device_of, empty, modules};

/// [`swiglu`](super::swiglu) of tensors on one GPU.
pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dtype() != up.dtype() {
        return super::reference::swiglu(gate, up);
    }
    let device = device_of(gate)?;
    let ((gate_source, gate_rows), (up_source, up_rows)) = (Rows::of(gate)?, Rows::of(up)?);
    let (elements, out) = (gate.elem_count(), empty(gate.dims(), gate.dtype(), device)?);
    Launch::new(&modules::SWIGLU, format!("swiglu_{}", gate.dtype().as_str()))
        .rows("gate", &gate_source, gate_rows)
        .rows("up", &up_source, up_rows)
        .tensor("out", &out)
        .int(gate.dim(candle::D::Minus1)?)
        .long(elements)
        .run(device, [blocks(elements, BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}
