//! Operands laid out as the matrix unit reads them.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use float8::F8E4M3;
use half::bf16;
use rayon::prelude::*;

use super::{Line, MIN_ROWS, PANEL, TILE_K, TILE_ROWS, usable};
use crate::ops::cpu::simd::Isa;
use crate::ops::linear::gemm::{Codes, Weight};

/// Rows `[M, K]` cut into parts, laid out for the unit: panel by panel, in each 32 elements of `k` after another, in
/// these part by part, in these two tiles of 16 rows, transposed by pairs of `k`.
pub(in crate::ops::linear) struct Packed {
    pub(super) lines: Vec<MaybeUninit<Line>>,
    /// Parts of each panel that are not all zero.
    pub(super) parts: Vec<usize>,
    pub(super) rows: usize,
    pub(super) k: usize,
}

/// Whether the product of `x` with an `[n, K]` weight is for the unit.
pub(in crate::ops::linear) fn takes(isa: Isa, x: &[f32], weight: Weight, n: usize) -> bool {
    let fits = weight.k >= TILE_K && n >= TILE_ROWS && x.len() / weight.k >= MIN_ROWS;
    let exact = matches!(weight.codes, Codes::Bf16(_) | Codes::F8e4m3(_));
    fits && exact && isa == Isa::Avx512 && usable()
}

impl Packed {
    /// None if the unit does not [take](takes) the product.
    pub(in crate::ops::linear) fn new(isa: Isa, x: &[f32], weight: Weight, n: usize) -> Option<Self> {
        if !takes(isa, x, weight, n) {
            return None;
        }
        let k = weight.k;
        let rows = x.len() / k;
        let stride = panel_lines(k);
        let mut lines: Vec<MaybeUninit<Line>> = Vec::with_capacity(rows.div_ceil(PANEL) * stride);
        // SAFETY: elements need no value, and there is room for them.
        unsafe { lines.set_len(rows.div_ceil(PANEL) * stride) };
        let panels = lines.par_chunks_mut(stride).zip(x.par_chunks(PANEL * k));
        // SAFETY: the instruction set is there; a panel has room for its lines.
        let parts = panels.map(|(lines, x)| unsafe { pack_x(x, k, lines.as_mut_ptr().cast()) }).collect();
        Some(Self { lines, parts, rows, k })
    }
}

/// Lines that a panel of `x` has room for.
pub(super) fn panel_lines(k: usize) -> usize {
    k.div_ceil(TILE_K) * 3 * PANEL
}

/// Packs a panel; its number of parts.
///
/// # Safety
/// The processor must have the features; `to` must have room for [`panel_lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack_x(x: &[f32], k: usize, to: *mut Line) -> usize {
    let used = x.iter().fold(0, |used, value| used | value.to_bits());
    let parts = if used & 0xffff == 0 {
        1
    } else if used & 0xff == 0 {
        2
    } else {
        3
    };
    let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // Cuts 16 values into parts, each in the upper half of its lane. A NaN stays one, and it and infinity are part 1 alone.
    let split = |value: __m512| {
        const QUIET: i32 = 0x0040_0000;
        let special = _mm512_fpclass_ps_mask::<0x99>(value);
        let nan = _mm512_fpclass_ps_mask::<0x81>(value);
        let bits = _mm512_and_si512(_mm512_castps_si512(value), high);
        let first = _mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(QUIET));
        let rest = _mm512_maskz_sub_ps(!special, value, _mm512_castsi512_ps(first));
        let second = _mm512_and_si512(_mm512_castps_si512(rest), high);
        // Masked for what lies below the subnormals of bf16.
        let third = _mm512_and_si512(_mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(second))), high);
        [first, second, third]
    };
    for start in (0..k).step_by(TILE_K) {
        for tile in 0..2 {
            for half in 0..2 {
                let from = start + 16 * half;
                let mask = tail_mask(k.saturating_sub(from)) as __mmask16;
                let mut values = [_mm512_setzero_ps(); 16];
                for (value, row) in values.iter_mut().zip(x.chunks(k).skip(TILE_ROWS * tile)) {
                    // SAFETY: the mask ends with the row; masked lanes are not read.
                    *value = unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(from)) };
                }
                let values = transpose(values);
                for pair in 0..8 {
                    let (even, odd) = (split(values[2 * pair]), split(values[2 * pair + 1]));
                    for part in 0..parts {
                        let line = _mm512_or_si512(_mm512_srli_epi32::<16>(even[part]), odd[part]);
                        let at = start / TILE_K * parts * PANEL + (part * 2 + tile) * TILE_ROWS + 8 * half + pair;
                        // SAFETY: `at` is below `panel_lines`.
                        unsafe { _mm512_store_si512(to.add(at).cast(), line) };
                    }
                }
            }
        }
    }
    parts
}

/// A bit for each of the first `count` of up to 32 lanes.
pub(super) fn tail_mask(count: usize) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    let mut fours = [_mm512_setzero_ps(); 16];
    for (to, from) in fours.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        let double = |v: __m512| _mm512_castps_pd(v);
        let low = [_mm512_unpacklo_ps(from[0], from[1]), _mm512_unpacklo_ps(from[2], from[3])].map(double);
        let high = [_mm512_unpackhi_ps(from[0], from[1]), _mm512_unpackhi_ps(from[2], from[3])].map(double);
        to[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1]));
        to[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1]));
        to[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1]));
        to[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1]));
    }
    let mut columns = rows;
    for i in 0..4 {
        let [a, b, c, d] = [fours[i], fours[4 + i], fours[8 + i], fours[12 + i]];
        let (ab, cd) = (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d));
        columns[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
        columns[8 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd);
        let (ab, cd) = (_mm512_shuffle_f32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
        columns[4 + i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
        columns[12 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd);
    }
    columns
}

/// A weight element that widens to bf16 exactly.
pub(super) trait Code: Copy {
    /// The elements under the mask as bf16, zeros elsewhere.
    ///
    /// # Safety
    /// The processor must have the features, and memory the elements under the mask.
    unsafe fn load(from: *const Self, mask: u32) -> __m512i;
}

impl Code for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn load(from: *const Self, mask: u32) -> __m512i {
        // SAFETY: the same contract.
        unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) }
    }
}

impl Code for F8E4M3 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn load(from: *const Self, mask: u32) -> __m512i {
        /// The exponents' biases differ by 120.
        const REBIAS: i16 = 120 << 7;
        // SAFETY: the same contract.
        let codes = unsafe { _mm256_maskz_loadu_epi8(mask, from.cast()) };
        let wide = _mm512_slli_epi16::<4>(_mm512_cvtepi8_epi16(codes));
        let normal = _mm512_and_si512(wide, _mm512_set1_epi16(0x87f0_u16 as i16));
        let bits = _mm512_add_epi16(normal, _mm512_set1_epi16(REBIAS));
        // Magnitudes 0x7f (NaN) and 0..8 (zero and subnormals) are 0..9 after one is added.
        let next = _mm256_add_epi8(_mm256_add_epi8(codes, codes), _mm256_set1_epi8(2));
        let special = _mm256_cmplt_epu8_mask(next, _mm256_set1_epi8(18));
        if special == 0 {
            return bits;
        }
        const fn bits_of(value: f32) -> i16 {
            (value.to_bits() >> 16) as i16
        }
        const UNIT: f32 = 1.0 / 512.0;
        #[rustfmt::skip]
        const TABLE: [i16; 16] = [
            bits_of(f32::NAN), 0, bits_of(UNIT), bits_of(2.0 * UNIT), bits_of(3.0 * UNIT), bits_of(4.0 * UNIT),
            bits_of(5.0 * UNIT), bits_of(6.0 * UNIT), bits_of(7.0 * UNIT), 0, 0, 0, 0, 0, 0, 0,
        ];
        // SAFETY: the table has 32 bytes.
        let table = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(TABLE.as_ptr().cast()) });
        let index = _mm512_srli_epi16::<1>(_mm512_cvtepu8_epi16(next));
        let sign = _mm512_and_si512(wide, _mm512_set1_epi16(i16::MIN));
        let value = _mm512_or_si512(_mm512_permutexvar_epi16(index, table), sign);
        _mm512_mask_mov_epi16(bits, special, value)
    }
}

/// Writes `count` rows of `len` elements as tiles, 32 elements after another, with zeros where there are none.
///
/// # Safety
/// The processor must have the features, and `codes` these rows, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn pack_weight<W: Code>(codes: *const W, stride: usize, count: usize, len: usize, to: &mut [Line]) {
    for row in 0..PANEL {
        for (step, to) in to.chunks_exact_mut(PANEL).take(len.div_ceil(TILE_K)).enumerate() {
            // SAFETY: the mask ends with the row's elements.
            unsafe {
                let values = match row < count {
                    true => W::load(codes.add(row * stride + step * TILE_K), tail_mask(len - step * TILE_K)),
                    false => _mm512_setzero_si512(),
                };
                _mm512_store_si512((&raw mut to[row]).cast(), values);
            }
        }
    }
}
