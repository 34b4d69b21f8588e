//! SwiGLU on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::exp::exp;
use crate::ops::cpu::floats::{Floats, for_rows, to_tensor};
use crate::ops::cpu::simd::{isa, simd_kernel};

/// Elements that a thread takes at a time.
const PIECE: usize = 1024;

/// [`swiglu`](super::swiglu) of CPU tensors.
pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let up = Floats::new(up)?;
    let mut out = Floats::new(gate)?.into_vec();
    swiglu_in_place(&mut out, up.as_slice());
    to_tensor(out, gate.dims(), gate.dtype())
}

/// `gate = silu(gate) · up`; an element's bits do not depend on its place.
pub(crate) fn swiglu_in_place(gate: &mut [f32], up: &[f32]) {
    let isa = isa();
    for_rows(gate, PIECE, |piece, gate| activate(isa, gate, &up[piece * PIECE..][..gate.len()]));
}

#[inline(always)]
fn body<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp::<FMA>(-*gate)) * up;
    }
}
simd_kernel! {
    fn activate(gate: &mut [f32], up: &[f32]) = body
}
