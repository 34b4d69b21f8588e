//! The Walsh-Hadamard transform on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::floats::{Floats, for_rows, to_tensor};
use crate::ops::cpu::simd::{isa, simd_kernel};

/// [`hadamard`](super::hadamard) of a CPU tensor.
pub(super) fn hadamard(x: &Tensor) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1);
    let isa = isa();
    let mut out = Floats::new(x)?.into_vec();
    for_rows(&mut out, width, |_, row| transform(isa, row));
    to_tensor(out, x.dims(), x.dtype())
}

#[inline(always)]
fn body<const FMA: bool>(row: &mut [f32]) {
    let scale = (row.len() as f64).powf(-0.5) as f32;
    let mut half = 1;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    row.iter_mut().for_each(|value| *value *= scale);
}
simd_kernel! {
    fn transform(row: &mut [f32]) = body
}
