//! The e4m3fn number format: 4 bits of exponent (bias 7), 3 of mantissa, largest value 448, no infinity.

use super::E4M3_MAX;

/// The least normal value, 2^-6.
const MIN_NORMAL: f32 = 0.015625;
/// Adding this to a value below 2^-6 rounds it to a multiple of 2^-9, the spacing of subnormal codes.
const SUBNORMAL_ROUNDER: f32 = 16384.0;
/// Mantissa bits that an f32 has more.
const DROPPED_BITS: u32 = 20;
/// What the exponent fields of f32 and e4m3 differ by, in the place of e4m3's code.
const BIAS_DIFFERENCE: u32 = (127 - 7) << 3;

static VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = decode_slowly(code as u8);
        code += 1;
    }
    values
};

/// The value of a code; NaN for 0x7f and 0xff.
#[inline(always)]
pub(crate) fn decode(code: u8) -> f32 {
    VALUES[code as usize]
}

const fn decode_slowly(code: u8) -> f32 {
    let (sign, magnitude) = ((code as u32 >> 7) << 31, code as u32 & 0x7f);
    if magnitude == 0x7f {
        return f32::from_bits(sign | 0x7fc0_0000);
    }
    let value = if magnitude < 8 {
        magnitude as f32 / 512.0
    } else {
        f32::from_bits((magnitude + BIAS_DIFFERENCE) << DROPPED_BITS)
    };
    f32::from_bits(value.to_bits() | sign)
}

/// The code nearest to `value` clamped to ±448, ties to even; NaN becomes 0x7f.
#[inline(always)]
pub(crate) fn encode(value: f32) -> u8 {
    let bits = value.abs().min(E4M3_MAX).to_bits();
    let even = (bits >> DROPPED_BITS) & 1;
    let normal = ((bits + (1 << (DROPPED_BITS - 1)) - 1 + even) >> DROPPED_BITS).wrapping_sub(BIAS_DIFFERENCE);
    let subnormal = (f32::from_bits(bits) + SUBNORMAL_ROUNDER).to_bits() - SUBNORMAL_ROUNDER.to_bits();
    let magnitude = if f32::from_bits(bits) < MIN_NORMAL { subnormal } else { normal };
    let magnitude = if value.is_nan() { 0x7f } else { magnitude };
    (magnitude | ((value.to_bits() >> 31) << 7)) as u8
}

/// `decode(encode(value))`.
#[inline(always)]
pub(crate) fn round(value: f32) -> f32 {
    let clamped = value.abs().min(E4M3_MAX);
    let bits = clamped.to_bits();
    let even = (bits >> DROPPED_BITS) & 1;
    let normal = (bits + (1 << (DROPPED_BITS - 1)) - 1 + even) & !((1 << DROPPED_BITS) - 1);
    let subnormal = (clamped + SUBNORMAL_ROUNDER) - SUBNORMAL_ROUNDER;
    let magnitude = if clamped < MIN_NORMAL { subnormal } else { f32::from_bits(normal) };
    if value.is_nan() { value } else { magnitude.copysign(value) }
}

/// The least power of two that is not below a positive `value`; infinity stays.
#[inline(always)]
pub(crate) fn pow2_ceil(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(((bits >> 23) + u32::from(bits & 0x7f_ffff != 0)) << 23)
}
