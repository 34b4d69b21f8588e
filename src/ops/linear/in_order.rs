//! `x · weightᵀ` in the order of the reference's FP8 products, on one thread.
//!
//! An output adds the products of a block of 128 columns in the order of `k`, scales their sum and adds it to those of
//! the blocks before. So it has the same bits in any batch, on any number of threads and with registers of any width;
//! products of two e4m3 codes are exact in f32, so for them even fused multiply-add makes no difference. FP8 arithmetic
//! needs this: what comes out is rounded to e4m3 later, where a last bit can grow to a whole step.

use std::ops::Range;

use super::cpu::Activations;
use super::gemm::{Codes, Weight, X_ROWS};
use crate::ops::cpu::simd::Isa;
#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::vector::{Avx2, Avx512};
use crate::ops::cpu::vector::{Element, Portable, Vector};
use crate::ops::fp8::BLOCK;

/// Rows and columns of the weight that are transposed at a time.
const SQUARE: usize = 16;
/// Rows of `x` in a tile at most.
const TILE_ROWS: usize = 6;
/// Rows of `x` from which on widening a panel once for all of them pays.
const MIN_WIDENED: usize = TILE_ROWS + 1;

/// `out[m][j] = x[m] · weight[rows.start + j]` for every row `m` of `x` `[out.len(), K]`; each `out[m]` has
/// `rows.len()` elements. `x` must have scales.
pub(super) fn gemm_in_order(isa: Isa, x: Activations, weight: Weight, rows: Range<usize>, out: &mut [&mut [f32]]) {
    match weight.codes {
        Codes::F32(codes) => run(isa, x, codes, weight, rows, out),
        Codes::Bf16(codes) => run(isa, x, codes, weight, rows, out),
        Codes::F16(codes) => run(isa, x, codes, weight, rows, out),
        Codes::F8e4m3(codes) => run(isa, x, codes, weight, rows, out),
    }
}

fn run<W: Element>(isa: Isa, x: Activations, codes: &[W], weight: Weight, rows: Range<usize>, out: &mut [&mut [f32]]) {
    let (k, blocks) = (weight.k, weight.k.div_ceil(BLOCK));
    assert!(
        x.values.len() == out.len() * k
            && x.scale.len() == out.len() * blocks
            && out.iter().all(|row| row.len() == rows.len())
            && codes.len() >= rows.end * k
            && (weight.scale.is_empty() || weight.scale.len() >= rows.end.div_ceil(BLOCK) * blocks),
        "x, its scales, the weight's and out must fit the weight"
    );
    let matrix = Matrix { codes, k, blocks, scale: weight.scale };

    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<W: Element>(x: Activations, matrix: Matrix<W>, rows: Range<usize>, out: &mut [&mut [f32]]) {
            // SAFETY: the slices were checked, and this function has the instruction set.
            unsafe { product::<Avx2, W, 2>(x, matrix, rows, out) }
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512<W: Element>(x: Activations, matrix: Matrix<W>, rows: Range<usize>, out: &mut [&mut [f32]]) {
            // SAFETY: the slices were checked, and this function has the instruction set.
            unsafe { product::<Avx512, W, 2>(x, matrix, rows, out) }
        }
        match isa {
            // SAFETY: `isa()` and `with_isa` only ever hand out what the processor was seen to have.
            Isa::Avx512 => return unsafe { avx512(x, matrix, rows, out) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(x, matrix, rows, out) },
            Isa::Baseline => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    // SAFETY: the slices were checked above; plain Rust runs on any processor.
    unsafe { product::<Portable, W, 4>(x, matrix, rows, out) }
}

#[derive(Clone, Copy)]
struct Matrix<'a, W> {
    codes: &'a [W],
    k: usize,
    /// Blocks of a row.
    blocks: usize,
    scale: &'a [f32],
}

/// Panels of `N` registers of rows of the weight, with the lanes over these rows.
///
/// # Safety
/// The processor must have `V`; sizes are as [`run`] checks them; `N * V::LANES` is a multiple of [`SQUARE`].
#[inline(always)]
unsafe fn product<V: Vector, W: Element, const N: usize>(
    x: Activations,
    weight: Matrix<W>,
    rows: Range<usize>,
    out: &mut [&mut [f32]],
) {
    let panel_rows = N * V::LANES;
    let mut codes = vec![W::default(); BLOCK * panel_rows];
    let mut widened = vec![0.0f32; if out.len() < MIN_WIDENED { 0 } else { BLOCK * panel_rows }];
    let mut sums = vec![0.0f32; out.len().min(X_ROWS) * panel_rows];
    let mut factors = vec![0.0f32; panel_rows];
    for (chunk, out) in out.chunks_mut(X_ROWS).enumerate() {
        let first_x = chunk * X_ROWS;
        let sums = &mut sums[..out.len() * panel_rows];
        for first in rows.clone().step_by(panel_rows) {
            let count = panel_rows.min(rows.end - first);
            sums.fill(0.0);
            for block in 0..weight.blocks {
                let columns = block * BLOCK..weight.k.min((block + 1) * BLOCK);
                for (n, factor) in factors[..count].iter_mut().enumerate() {
                    // What is loaded is the element over `UNIT`, a power of two.
                    *factor = match weight.scale {
                        [] => W::UNIT,
                        scale => scale[(first + n) / BLOCK * weight.blocks + block] * W::UNIT,
                    };
                }
                if first + panel_rows < rows.end {
                    prefetch(weight, first, panel_rows, block);
                }
                pack(weight, first..first + count, columns.clone(), panel_rows, &mut codes);
                let wide = out.len() >= MIN_WIDENED;
                if wide {
                    for at in (0..columns.len() * panel_rows).step_by(V::LANES) {
                        // SAFETY: both have `panel_rows` elements for each column.
                        unsafe { W::load::<V>(codes.as_ptr().add(at)).store(widened.as_mut_ptr().add(at)) };
                    }
                }
                for (tile, sums) in sums.chunks_mut(TILE_ROWS * panel_rows).enumerate() {
                    let row = first_x + tile * TILE_ROWS;
                    let tile = Tile {
                        x: &x.values[row * weight.k + columns.start..],
                        stride: weight.k,
                        x_scale: &x.scale[row * weight.blocks + block..],
                        blocks: weight.blocks,
                        factors: &factors,
                        columns: columns.len(),
                    };
                    // SAFETY: `sums` has 1 to 6 rows, and so have `x` and its scales; the panel has all columns.
                    unsafe {
                        match wide {
                            true => any_rows::<V, f32, N>(tile, &widened, sums),
                            false => any_rows::<V, W, N>(tile, &codes, sums),
                        }
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(sums.chunks(panel_rows)) {
                out[first - rows.start..][..count].copy_from_slice(&sums[..count]);
            }
        }
    }
}

/// What a tile is computed from, beside the panel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    /// From the block's first column of the tile's first row on.
    x: &'a [f32],
    stride: usize,
    /// From the scale of the block in the tile's first row on.
    x_scale: &'a [f32],
    blocks: usize,
    /// Of the panel's rows.
    factors: &'a [f32],
    columns: usize,
}

/// [`add_block`] for as many rows of `x` as `sums` has.
///
/// # Safety
/// As [`add_block`]; `sums` has 1 to [`TILE_ROWS`] rows.
#[inline(always)]
unsafe fn any_rows<V: Vector, W: Element, const N: usize>(tile: Tile, panel: &[W], sums: &mut [f32]) {
    // SAFETY: the same contract.
    unsafe {
        match sums.len() / (N * V::LANES) {
            1 => add_block::<V, W, N, 1>(tile, panel, sums),
            2 => add_block::<V, W, N, 2>(tile, panel, sums),
            3 => add_block::<V, W, N, 3>(tile, panel, sums),
            4 => add_block::<V, W, N, 4>(tile, panel, sums),
            5 => add_block::<V, W, N, 5>(tile, panel, sums),
            _ => add_block::<V, W, N, 6>(tile, panel, sums),
        }
    }
}

/// `sums += scale · (block of x · panel)` for `M` rows of `x`.
///
/// # Safety
/// The processor must have `V`; `panel` has `N * V::LANES` elements for each column, `sums` as many for each of `M`
/// rows, `tile.factors` as many; `tile.x` and `tile.x_scale` have `M` rows.
#[allow(clippy::needless_range_loop)] // The indices name rows of several arrays.
#[inline(always)]
unsafe fn add_block<V: Vector, W: Element, const N: usize, const M: usize>(tile: Tile, panel: &[W], sums: &mut [f32]) {
    let width = N * V::LANES;
    // SAFETY: by the contract every pointer stays in its slice.
    unsafe {
        let mut dots = [[V::zero(); N]; M];
        let (panel, x) = (panel.as_ptr(), tile.x.as_ptr());
        for column in 0..tile.columns {
            let codes: [V; N] = std::array::from_fn(|n| W::load::<V>(panel.add(column * width + n * V::LANES)));
            for m in 0..M {
                let value = V::splat(*x.add(m * tile.stride + column));
                for n in 0..N {
                    dots[m][n] = codes[n].mul_add(value, dots[m][n]);
                }
            }
        }
        for m in 0..M {
            let x_scale = V::splat(*tile.x_scale.as_ptr().add(m * tile.blocks));
            for n in 0..N {
                let factor = V::load(tile.factors.as_ptr().add(n * V::LANES)).mul(x_scale);
                let sum = sums.as_mut_ptr().add(m * width + n * V::LANES);
                V::load(sum).add(dots[m][n].mul(factor)).store(sum);
            }
        }
    }
}

/// Writes the elements of these rows and columns column by column, `panel_rows` to each; rows that are missing become 0.
#[inline(always)]
fn pack<W: Element>(weight: Matrix<W>, rows: Range<usize>, columns: Range<usize>, panel_rows: usize, to: &mut [W]) {
    assert!(to.len() >= BLOCK * panel_rows && panel_rows.is_multiple_of(SQUARE) && columns.len() <= BLOCK);
    for first in (0..panel_rows).step_by(SQUARE) {
        // Copied first: rows that lie a power of two apart push each other out of the cache.
        let mut lines = [[W::default(); BLOCK]; SQUARE];
        for (i, line) in lines.iter_mut().enumerate().take(rows.len().saturating_sub(first)) {
            let row = &weight.codes[(rows.start + first + i) * weight.k..][columns.clone()];
            match row.first_chunk::<BLOCK>() {
                Some(whole) => *line = *whole,
                None => line[..row.len()].copy_from_slice(row),
            }
        }
        for column in (0..columns.len()).step_by(SQUARE) {
            // SAFETY: `to` has `panel_rows` elements for each column of a block, and `first + SQUARE` is not beyond.
            unsafe { transpose(&lines, column, to.as_mut_ptr().add(column * panel_rows + first), panel_rows) };
        }
    }
}

/// Fetches a block's share of the panel after the one that begins with row `first`. Panels lie one after the other in
/// memory but are read across, in too many places at a time for the processor to see what comes.
#[inline(always)]
fn prefetch<W: Element>(weight: Matrix<W>, first: usize, panel_rows: usize, block: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let from = weight.codes.as_ptr().wrapping_add((first + panel_rows) * weight.k + block * BLOCK * panel_rows);
        for line in 0..BLOCK * panel_rows * size_of::<W>() / 64 {
            // SAFETY: a prefetch may name any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast::<i8>().wrapping_add(64 * line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (weight, first, panel_rows, block);
}

/// Writes the square of `lines` that begins with `column`, rows and columns exchanged, to lines `stride` apart.
///
/// # Safety
/// `to` must have room for [`SQUARE`] such lines, and `column + SQUARE` must not be beyond the block.
#[inline(always)]
unsafe fn transpose<W: Element>(lines: &[[W; BLOCK]; SQUARE], column: usize, to: *mut W, stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if size_of::<W>() == 1 {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi8, _mm_unpacklo_epi8};
        // Interleaving line i with line i + 8 moves the bits of an element's address (4 of row, 4 of column) one place
        // round: four times exchange row and column.
        #[inline(always)]
        unsafe fn interleave([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [__m128i; SQUARE]) -> [__m128i; SQUARE] {
            // SAFETY: every x86-64 processor has these instructions.
            unsafe {
                let (low, high) = (|a, b| _mm_unpacklo_epi8(a, b), |a, b| _mm_unpackhi_epi8(a, b));
                [
                    low(a, i),
                    high(a, i),
                    low(b, j),
                    high(b, j),
                    low(c, k),
                    high(c, k),
                    low(d, l),
                    high(d, l),
                    low(e, m),
                    high(e, m),
                    low(f, n),
                    high(f, n),
                    low(g, o),
                    high(g, o),
                    low(h, p),
                    high(h, p),
                ]
            }
        }
        // SAFETY: an element is one byte; reads and writes are those that the caller vouches for.
        unsafe {
            let square = std::array::from_fn(|i| _mm_loadu_si128(lines[i].as_ptr().add(column).cast()));
            let square = interleave(interleave(interleave(interleave(square))));
            for (i, line) in square.iter().enumerate() {
                _mm_storeu_si128(to.add(i * stride).cast(), *line);
            }
        }
        return;
    }
    for i in 0..SQUARE {
        for (j, line) in lines.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { to.add(i * stride + j).write(line[column + i]) };
        }
    }
}
