//! [`Vector`] in AVX2.
//!
//! SAFETY of every block below: the trait's callers guarantee the instruction set and the pointers.

use std::arch::x86_64::*;

use float8::F8E4M3;
use half::{bf16, f16};

use super::Vector;

/// 8 lanes of AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(super) __m256);

impl Vector for Avx2 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 3;
    const STREAMS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }

    #[inline(always)]
    unsafe fn load_f8e4m3(from: *const F8E4M3) -> Self {
        unsafe {
            // As f16 bits the code is its value / 256, subnormals included; 0x7f is not NaN there, so it is put in.
            let code = _mm_cvtepi8_epi16(_mm_loadl_epi64(from.cast()));
            let magnitude = _mm_set1_epi16(0x7f);
            let nan = _mm_cmpeq_epi16(_mm_and_si128(code, magnitude), magnitude);
            let bits = _mm_and_si128(_mm_slli_epi16::<7>(code), _mm_set1_epi16(!0x4000));
            Self(_mm256_cvtph_ps(_mm_or_si128(bits, _mm_and_si128(nan, _mm_set1_epi16(0x7e00)))))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, addend: Self) -> Self {
        Self(unsafe { _mm256_fmadd_ps(self.0, other.0, addend.0) })
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // The second operand is what comes out where one is NaN.
        Self(unsafe { _mm256_max_ps(_mm256_setzero_ps(), self.0) })
    }

    #[inline(always)]
    unsafe fn load_columns(from: *const f32, stride: usize) -> [Self; 4] {
        unsafe {
            // A half of the register for each of rows i and 4 + i.
            let rows = |i: usize| {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(i * stride)));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add((4 + i) * stride)))
            };
            let [a, b, c, d] = [rows(0), rows(1), rows(2), rows(3)];
            let [ab, cd] = [_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d)].map(|v| _mm256_castps_pd(v));
            let [ab_high, cd_high] = [_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d)].map(|v| _mm256_castps_pd(v));
            [
                _mm256_unpacklo_pd(ab, cd),
                _mm256_unpackhi_pd(ab, cd),
                _mm256_unpacklo_pd(ab_high, cd_high),
                _mm256_unpackhi_pd(ab_high, cd_high),
            ]
            .map(|v| Self(_mm256_castpd_ps(v)))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        unsafe {
            let halves = |v: __m256, w: __m256| {
                _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(v, w), _mm256_permute2f128_ps::<0x31>(v, w))
            };
            let (ab, cd) = (_mm256_castps_pd(halves(a.0, b.0)), _mm256_castps_pd(halves(c.0, d.0)));
            // Lanes a a c c | b b d d.
            let twos = _mm256_add_ps(
                _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
            );
            let ones = _mm256_add_ps(twos, _mm256_shuffle_ps::<0b11_11_01_01>(twos, twos));
            let (ac, bd) = (_mm256_castps256_ps128(ones), _mm256_extractf128_ps::<1>(ones));
            let sums =
                _mm_unpacklo_ps(_mm_shuffle_ps::<0b10_00_10_00>(ac, ac), _mm_shuffle_ps::<0b10_00_10_00>(bd, bd));
            std::mem::transmute::<__m128, [f32; 4]>(sums)
        }
    }
}
