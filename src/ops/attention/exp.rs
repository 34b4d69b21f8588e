//! `exp` of numbers that are not positive, branchless so that it vectorises.

use crate::ops::simd::mul_add;

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
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn is_close_to_f64() {
        let mut worst = [0f64; 2];
        for i in 0..=873_000 {
            let x = -(i as f32) * 1e-4;
            let expected = (x as f64).exp();
            for (worst, got) in worst.iter_mut().zip([exp::<false>(x), exp::<true>(x)]) {
                *worst = worst.max((got as f64 / expected - 1.).abs());
            }
        }
        assert!(worst.iter().all(|&w| w < 2f64.powi(-22)), "{worst:?}");
    }

    #[test]
    fn keeps_the_special_values() {
        for exp in [exp::<false>, exp::<true>] {
            assert_eq!([exp(0.), exp(-0.), exp(f32::NEG_INFINITY), exp(f32::MIN), exp(-88.)], [1., 1., 0., 0., 0.]);
            assert!(exp(f32::NAN).is_nan());
        }
    }
}
