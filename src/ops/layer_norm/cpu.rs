//! Layer normalisation on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::floats::{Floats, map_rows};
use crate::ops::cpu::lanes;
use crate::ops::cpu::simd::{isa, mul_add, simd_kernel};

/// [`layer_norm`](super::layer_norm) of CPU tensors.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let (isa, weight, bias) = (isa(), Floats::new(weight)?, Floats::new(bias)?);
    let (weight, bias) = (weight.as_slice(), bias.as_slice());
    map_rows(x, |row, out| normalise(isa, row, weight, bias, eps, out))
}

#[inline(always)]
fn body<const FMA: bool>(x: &[f32], weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) {
    let mean = lanes::sum(x, |value, sum| sum + value) / x.len() as f32;
    let squares = lanes::sum(x, |value, sum| mul_add::<FMA>(value - mean, value - mean, sum));
    let factor = 1.0 / (squares / x.len() as f32 + eps as f32).sqrt();
    for (((out, value), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = mul_add::<FMA>((value - mean) * factor, *weight, *bias);
    }
}
simd_kernel! {
    fn normalise(x: &[f32], weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) = body
}
