//! [`Vector`] in AVX-512.
//!
//! SAFETY of every block below: the trait's callers guarantee the instruction set and the pointers.

use std::arch::x86_64::*;

use float8::F8E4M3;
use half::{bf16, f16};

use super::{Avx2, Vector};

/// 16 lanes of AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(super) __m512);

impl Vector for Avx512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 6;
    const STREAMS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn load_f8e4m3(from: *const F8E4M3) -> Self {
        unsafe {
            // See `Avx2::load_f8e4m3`.
            let code = _mm_loadu_si128(from.cast());
            let magnitude = _mm_set1_epi8(0x7f);
            let nan = _mm_cmpeq_epi8_mask(_mm_and_si128(code, magnitude), magnitude);
            let shifted = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(code));
            let bits = _mm256_and_si256(shifted, _mm256_set1_epi16(!0x4000));
            Self(_mm512_mask_cvtph_ps(_mm512_set1_ps(f32::NAN), !nan, bits))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, addend: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, other.0, addend.0) })
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // The second operand is what comes out where one is NaN.
        Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
    }

    #[inline(always)]
    unsafe fn load_columns(from: *const f32, stride: usize) -> [Self; 4] {
        unsafe {
            // A quarter of the register for each of rows i, 4 + i, 8 + i and 12 + i.
            let rows = |i: usize| {
                let row = |j: usize| _mm_loadu_ps(from.add((4 * j + i) * stride));
                let rows = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(row(0)), row(1));
                _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(rows, row(2)), row(3))
            };
            let [a, b, c, d] = [rows(0), rows(1), rows(2), rows(3)];
            let [ab, cd] = [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)].map(|v| _mm512_castps_pd(v));
            let [ab_high, cd_high] = [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)].map(|v| _mm512_castps_pd(v));
            [
                _mm512_unpacklo_pd(ab, cd),
                _mm512_unpackhi_pd(ab, cd),
                _mm512_unpacklo_pd(ab_high, cd_high),
                _mm512_unpackhi_pd(ab_high, cd_high),
            ]
            .map(|v| Self(_mm512_castpd_ps(v)))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let upper = _mm512_extractf32x8_ps::<1>(self.0);
            Avx2(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper)).sum()
        }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        unsafe {
            let halves = |v: __m512, w: __m512| {
                _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(v, w), _mm512_shuffle_f32x4::<0b11_10_11_10>(v, w))
            };
            let (ab, cd) = (halves(a.0, b.0), halves(c.0, d.0));
            // One quarter of the register for each of a, b, c, d.
            let fours = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            );
            let twos = _mm512_add_ps(fours, _mm512_permute_ps::<0b01_00_11_10>(fours));
            let ones = _mm512_add_ps(twos, _mm512_permute_ps::<0b10_11_00_01>(twos));
            let first_lanes = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
            let sums = _mm512_castps512_ps128(_mm512_permutexvar_ps(first_lanes, ones));
            std::mem::transmute::<__m128, [f32; 4]>(sums)
        }
    }
}
