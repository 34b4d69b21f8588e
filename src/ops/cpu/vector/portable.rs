//! [`Vector`] in plain Rust.

use float8::F8E4M3;
use half::{bf16, f16};

use super::{Element, Vector};

/// 4 lanes in plain Rust, for any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 3;
    const STREAMS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees `LANES` elements.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as in `load`.
        let bits = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        Self(bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as in `load`.
        let bits = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        Self(bits.map(f16_to_f32))
    }

    #[inline(always)]
    unsafe fn load_f8e4m3(from: *const F8E4M3) -> Self {
        // SAFETY: as in `load`; an e4m3 code is one byte.
        let codes = unsafe { from.cast::<[u8; 4]>().read_unaligned() };
        Self(codes.map(|code| crate::ops::fp8::e4m3::decode(code) / F8E4M3::UNIT))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees `LANES` elements.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i] + addend.0[i]))
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|x| if x < 0.0 { 0.0 } else { x }))
    }

    #[inline(always)]
    unsafe fn load_columns(from: *const f32, stride: usize) -> [Self; 4] {
        // SAFETY: the caller guarantees four elements of each row.
        let rows: [[f32; 4]; 4] =
            std::array::from_fn(|row| unsafe { from.add(row * stride).cast::<[f32; 4]>().read_unaligned() });
        std::array::from_fn(|column| Self(rows.map(|row| row[column])))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }

    #[inline(always)]
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4] {
        // SAFETY: `sum` needs nothing of the processor.
        vectors.map(|vector| unsafe { vector.sum() })
    }
}

/// The value of an f16's bits. Crate `half` looks for F16C on every call, which costs more than this.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    /// 2^112, the difference of the exponents' biases; the product is exact, subnormals included.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    const EXPONENT: u16 = 0x7c00;

    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * REBIAS;
    let special = if bits & EXPONENT == EXPONENT { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (u32::from(bits & 0x8000) << 16))
}
