//! `exp`, branchless so that the compiler turns it into vector instructions inside a `simd_kernel!`.

use super::simd::mul_add;

/// Below this the result would be subnormal; it is 0 instead.
const SMALLEST: f32 = -87.336_54;
/// Adding it rounds to an integer whose low bits are those of the sum.
const ROUND: f32 = 12_582_912.;
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `exp(x)` for `x <= 0` (also -inf) with a relative error below 2^-22; NaN stays NaN, and `exp(0)` is exactly 1.
///
/// `x = n ln 2 + r`; a polynomial for `exp(r)`, `|r| <= ln 2 / 2`; `2^n` by its bits.
#[inline(always)]
pub(crate) fn exp_nonpositive<const FMA: bool>(x: f32) -> f32 {
    let tiny = x < SMALLEST;
    let x = if tiny { SMALLEST } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN_2_LOW, mul_add::<FMA>(n, -LN_2_HIGH, x));
    let mut p = 1.987_569_2e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = mul_add::<FMA>(p, r, c);
    }
    let p = mul_add::<FMA>(p, r * r, r) + 1.;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if tiny { 0. } else { p * power }
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

#[cfg(test)]
mod tests {
    use super::exp_nonpositive;

    #[test]
    fn is_close_to_f64() {
        let mut worst = [0f64; 2];
        for i in 0..=873_000 {
            let x = -(i as f32) * 1e-4;
            let expected = (x as f64).exp();
            for (worst, got) in worst.iter_mut().zip([exp_nonpositive::<false>(x), exp_nonpositive::<true>(x)]) {
                *worst = worst.max((got as f64 / expected - 1.).abs());
            }
        }
        assert!(worst.iter().all(|&w| w < 2f64.powi(-22)), "{worst:?}");
    }

    #[test]
    fn keeps_the_special_values() {
        for exp in [exp_nonpositive::<false>, exp_nonpositive::<true>] {
            assert_eq!([exp(0.), exp(-0.), exp(f32::NEG_INFINITY), exp(f32::MIN), exp(-88.)], [1., 1., 0., 0., 0.]);
            assert!(exp(f32::NAN).is_nan());
        }
    }
}
