//! One vector register of f32 lanes per instruction set, for the kernels that the compiler does not vectorise well.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use float8::F8E4M3;
use half::{bf16, f16};

/// A vector register of f32 lanes.
///
/// # Safety
/// Every method needs a processor with the implementing type's instruction set; pointers must be valid for the number
/// of elements named, with any alignment.
pub(crate) trait Vector: Copy {
    /// Lanes of a register.
    const LANES: usize;
    /// Rows of `x` that a matrix tile covers, so that its accumulators fit in the registers.
    const TILE_ROWS: usize;
    /// Rows of the weight that a matrix-vector product runs at once.
    const STREAMS: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` elements.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads `LANES` elements, exactly widened.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// Reads `LANES` elements, exactly widened.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// Reads `LANES` elements, widened to their value over [`Element::UNIT`].
    unsafe fn load_f8e4m3(from: *const F8E4M3) -> Self;
    /// Writes `LANES` elements.
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * other + addend`, in one rounding where the instruction set has it.
    unsafe fn mul_add(self, other: Self, addend: Self) -> Self;
    /// Zero in the lanes below zero; NaN stays.
    unsafe fn relu(self) -> Self;
    /// The first four elements of `LANES` rows that lie `stride` apart, column by column.
    unsafe fn load_columns(from: *const f32, stride: usize) -> [Self; 4];
    /// Sum of the lanes: each step adds the upper half of what is left to the lower half.
    unsafe fn sum(self) -> f32;
    /// [`Vector::sum`] of four vectors, with the same bits.
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4];
}

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
        // SAFETY: the caller vouches for `LANES` elements.
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
        // SAFETY: the caller vouches for `LANES` elements.
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
        // SAFETY: the caller vouches for four elements of each row.
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

/// 8 lanes of AVX2 with FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

// SAFETY of every block below: the trait's callers vouch for the instruction set and the pointers.
#[cfg(target_arch = "x86_64")]
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

/// 16 lanes of AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY of every block below: the trait's callers vouch for the instruction set and the pointers.
#[cfg(target_arch = "x86_64")]
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

/// 16 lanes that each hold two bf16 as the bits of one f32, of AVX512-BF16: products add both to an f32 lane.
///
/// What is loaded, multiplied and stored are pairs; sums are f32.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(__m512);

// SAFETY of every block below: the trait's callers vouch for the instruction set and the pointers.
#[cfg(target_arch = "x86_64")]
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

/// A weight element that vectors are loaded from.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// What loaded values are to be multiplied by; a power of two.
    const UNIT: f32;

    /// Reads `V::LANES` elements, exactly widened, over `UNIT`.
    ///
    /// # Safety
    /// As [`Vector`].
    unsafe fn load<V: Vector>(from: *const Self) -> V;

    /// Reads `count` elements, fewer than `V::LANES`, and zeros after them.
    ///
    /// # Safety
    /// As [`Vector`].
    #[inline(always)]
    unsafe fn load_partial<V: Vector>(from: *const Self, count: usize) -> V {
        let mut padded = [Self::default(); 16];
        // SAFETY: the caller vouches for `count` elements, fewer than a register has lanes, at most 16.
        unsafe {
            std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), count);
            Self::load(padded.as_ptr())
        }
    }
}

macro_rules! element {
    ($type:ty, $load:ident, $unit:literal) => {
        impl Element for $type {
            const UNIT: f32 = $unit;

            #[inline(always)]
            unsafe fn load<V: Vector>(from: *const Self) -> V {
                // SAFETY: the same contract.
                unsafe { V::$load(from) }
            }
        }
    };
}
element!(f32, load, 1.0);
element!(bf16, load_bf16, 1.0);
element!(f16, load_f16, 1.0);
element!(F8E4M3, load_f8e4m3, 256.0);
