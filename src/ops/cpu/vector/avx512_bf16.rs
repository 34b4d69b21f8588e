//! [`Vector`] in AVX512-BF16.
//!
//! SAFETY of every block below: the trait's callers guarantee the instruction set and the pointers.

use std::arch::x86_64::*;

use float8::F8E4M3;
use half::{bf16, f16};

use super::{Avx512, Vector};

/// 16 lanes that each hold two bf16 as the bits of one f32, of AVX512-BF16: products add both to an f32 lane.
///
/// What is loaded, multiplied and stored are pairs; sums are f32.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(__m512);

impl Vector for Avx512Bf16 {
    const LANES: usize = Avx512::LANES;
    const TILE_ROWS: usize = Avx512::TILE_ROWS;
    const STREAMS: usize = Avx512::STREAMS;

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
        Self(unsafe { Avx512::load_bf16(from) }.0)
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        Self(unsafe { Avx512::load_f16(from) }.0)
    }

    #[inline(always)]
    unsafe fn load_f8e4m3(from: *const F8E4M3) -> Self {
        Self(unsafe { Avx512::load_f8e4m3(from) }.0)
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
        unsafe {
            let pairs = |v: __m512| std::mem::transmute::<__m512, __m512bh>(v);
            Self(_mm512_dpbf16_ps(addend.0, pairs(self.0), pairs(other.0)))
        }
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(unsafe { Avx512(self.0).relu() }.0)
    }

    #[inline(always)]
    unsafe fn load_columns(from: *const f32, stride: usize) -> [Self; 4] {
        unsafe { Avx512::load_columns(from, stride) }.map(|v| Self(v.0))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { Avx512(self.0).sum() }
    }

    #[inline(always)]
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4] {
        unsafe { Avx512::sum4(vectors.map(|v| Avx512(v.0))) }
    }
}
