//! RMS normalisation on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::simd::{
    floats::{Floats, for_rows, to_tensor},
    isa, lanes, mul_add, simd_kernel,
};

/// [`rms_norm`](super::rms_norm) of CPU tensors.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (values, weight) = (Floats::new(x)?, Floats::new(weight)?);
    let (values, weight) = (values.as_slice(), weight.as_slice());
    let width = weight.len();
    let isa = isa();
    let mut out = vec![0.0; values.len()];
    for_rows(&mut out, width, |row, out| normalise(isa, &values[row * width..][..width], weight, eps, out));
    to_tensor(out, x.dims(), x.dtype())
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
