//! Functions over slices that the compiler turns into vector instructions inside a [`simd_kernel!`](super::simd_kernel).

use super::mul_add;

/// Partial sums that a reduction keeps.
const LANES: usize = 32;

/// Folds every element into one of 32 sums with `add(value, sum)`, then adds these in a fixed order.
#[inline(always)]
pub(crate) fn sum(values: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum = add(value, *sum);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum = add(value, *sum);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// `e^x` to about 2 ulp for `x` in `-87..=88`; clamped to these bounds outside. NaN gives a bound.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding and subtracting this rounds to an integer, which then lies in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    /// ln 2 in two parts; products of the first with small integers are exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Coefficients of r^7 down to r^3, fitted to |r| <= ln 2 / 2.
    const TERMS: [f32; 5] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1];

    let x = clamp(x, -87.0, 88.0);
    let rounded = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUNDER);
    let power = rounded - ROUNDER;
    let rest = mul_add::<FMA>(power, -LN2[1], mul_add::<FMA>(power, -LN2[0], x));
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = mul_add::<FMA>(sum, rest, *term);
    }
    sum = mul_add::<FMA>(sum, rest, 0.5);
    let mantissa = mul_add::<FMA>(sum, rest * rest, rest) + 1.0;
    mantissa * f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// `clamp` that compiles to two instructions; NaN gives `low`.
#[inline(always)]
fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let raised = if value > low { value } else { low };
    if raised < high { raised } else { high }
}
