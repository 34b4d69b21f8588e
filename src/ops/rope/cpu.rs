//! Rotary position embedding on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::floats::{Floats, for_rows, to_tensor};
use crate::ops::cpu::simd::{isa, simd_kernel};

/// [`rope`](super::rope) of CPU tensors.
pub(super) fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let (_, heads, width) = x.dims3()?;
    let (cos, sin) = (Floats::new(cos)?, Floats::new(sin)?);
    let (cos, sin) = (cos.as_slice(), sin.as_slice());
    let half = width / 2;
    let isa = isa();
    let mut out = Floats::new(x)?.into_vec();
    for_rows(&mut out, heads * width, |token, heads| {
        let (cos, sin) = (&cos[token * half..][..half], &sin[token * half..][..half]);
        if interleaved { rotate_pairs(isa, heads, cos, sin) } else { rotate_halves(isa, heads, cos, sin) }
    });
    to_tensor(out, x.dims(), x.dtype())
}

#[inline(always)]
fn pairs_body<const FMA: bool>(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in heads.chunks_exact_mut(2 * cos.len()) {
        let (pairs, _) = head.as_chunks_mut::<2>();
        for (([a, b], cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
simd_kernel! {
    fn rotate_pairs(heads: &mut [f32], cos: &[f32], sin: &[f32]) = pairs_body
}

#[inline(always)]
fn halves_body<const FMA: bool>(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in heads.chunks_exact_mut(2 * cos.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
simd_kernel! {
    fn rotate_halves(heads: &mut [f32], cos: &[f32], sin: &[f32]) = halves_body
}
