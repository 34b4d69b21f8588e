//! RMS normalisation on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::floats::{Floats, map_rows};
use crate::ops::cpu::lanes;
use crate::ops::cpu::simd::{isa, mul_add, simd_kernel};

/// [`rms_norm`](super::rms_norm) of CPU tensors.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (isa, weight) = (isa(), Floats::new(weight)?);
    let weight = weight.as_slice();
    map_rows(x, |row, out| normalise(isa, row, weight, eps, out))
}

#[inline(always)]
fn body<const FMA: bool>(x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) {
    let squares = lanes::sum(x, |value, sum| mul_add::<FMA>(value, value, sum));
    let factor = 1.0 / (squares / x.len() as f32 + eps as f32).sqrt();
    for ((out, value), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = value * factor * weight;
    }
}
simd_kernel! {
    fn normalise(x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) = body
}
