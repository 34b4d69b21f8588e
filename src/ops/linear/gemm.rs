//! `x · weightᵀ` on one thread.
//!
//! Every output is the sum over `k` of `weight[n][k] · x[m][k]`, kept in the lanes of one vector register: lane `i`
//! adds the products of `k = i, i + LANES, ..` in this order, and the lanes are added at the end in a fixed order. Both
//! loops below do just this, so the bits of an output row do not depend on how many rows are computed with it.

use std::ops::Range;

use float8::F8E4M3;
use half::{bf16, f16};

use crate::ops::cpu::scratch::Scratch;
use crate::ops::cpu::simd::Isa;
#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::vector::{Avx2, Avx512, Avx512Bf16};
use crate::ops::cpu::vector::{Element, Portable, Vector};
use crate::ops::fp8::BLOCK;

/// Elements of `k` that a tile runs over at a time, so that its rows stay in the first-level cache; whole blocks.
const K_CHUNK: usize = 1024;
/// Rows of the weight that are widened to f32 at a time.
const WEIGHT_ROWS: usize = 32;
/// Rows of `x` that are kept in the second-level cache while the weight passes by.
pub(super) const X_ROWS: usize = 96;
/// Rows of the weight in a tile.
const TILE_WEIGHT_ROWS: usize = 4;

/// A weight `[N, K]` in row-major order.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) codes: Codes<'a>,
    pub(crate) k: usize,
    /// `[ceil(N/128), ceil(K/128)]`, or empty.
    pub(crate) scale: &'a [f32],
}

/// The elements of a weight.
#[derive(Clone, Copy)]
pub(crate) enum Codes<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    F8e4m3(&'a [F8E4M3]),
}

/// `out[m][j] = x[m] · weight[rows.start + j]` for every row `m` of `x` `[out.len(), K]`; each `out[m]` has
/// `rows.len()` elements.
pub(crate) fn gemm(isa: Isa, x: &[f32], weight: Weight, rows: Range<usize>, out: &mut [&mut [f32]]) {
    let (k, n) = (weight.k, rows.len());
    assert!(x.len() == out.len() * k && out.iter().all(|row| row.len() == n), "x and out must fit the weight");
    match weight.codes {
        Codes::F32(codes) => run(isa, x, codes, weight, rows, out),
        Codes::Bf16(codes) => run(isa, x, codes, weight, rows, out),
        Codes::F16(codes) => run(isa, x, codes, weight, rows, out),
        Codes::F8e4m3(codes) => run(isa, x, codes, weight, rows, out),
    }
}

/// [`gemm`] of a bf16 weight with `x` `[out.len(), K/2]`, pairs of bf16 as the bits of f32, where [`pairs`] has them.
/// The processor must have AVX512-BF16.
#[cfg(target_arch = "x86_64")]
pub(super) fn gemm_pairs(x: &[f32], weight: Weight, rows: Range<usize>, out: &mut [&mut [f32]]) {
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn avx512bf16(x: &[f32], matrix: Matrix<f32>, rows: Range<usize>, out: &mut [&mut [f32]]) {
        // SAFETY: the slices were checked, and this function has the instruction set.
        unsafe { product::<Avx512Bf16, f32>(x, matrix, rows, out) }
    }
    let codes = pairs(weight).unwrap_or_default();
    let (k, n) = (weight.k / 2, rows.len());
    assert!(is_x86_feature_detected!("avx512bf16"), "the processor must have AVX512-BF16");
    assert!(
        x.len() == out.len() * k && out.iter().all(|row| row.len() == n) && codes.len() >= rows.end * k,
        "x and out must fit the weight"
    );
    let matrix = Matrix { codes, k, scale: &[], scale_columns: 0 };
    // SAFETY: the feature was seen above.
    unsafe { avx512bf16(x, matrix, rows, out) }
}

/// See the other: there is no such processor.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn gemm_pairs(_: &[f32], _: Weight, _: Range<usize>, _: &mut [&mut [f32]]) {}

/// A bf16 weight as pairs of neighbours in a row, `[N, K/2]`, as the bits of f32, unless it lies or ends in the middle of
/// one.
pub(super) fn pairs(weight: Weight<'_>) -> Option<&[f32]> {
    let Codes::Bf16(codes) = weight.codes else { return None };
    // SAFETY: any bits are an f32.
    let (before, pairs, after) = unsafe { codes.align_to::<f32>() };
    (weight.k.is_multiple_of(2) && before.is_empty() && after.is_empty()).then_some(pairs)
}

fn run<W: Element>(isa: Isa, x: &[f32], codes: &[W], weight: Weight, rows: Range<usize>, out: &mut [&mut [f32]]) {
    let scale_columns = weight.k.div_ceil(BLOCK);
    let fits = codes.len() >= rows.end * weight.k
        && (weight.scale.is_empty() || weight.scale.len() >= rows.end.div_ceil(BLOCK) * scale_columns);
    assert!(fits, "the weight must have the rows asked for");
    let matrix = Matrix { codes, k: weight.k, scale: weight.scale, scale_columns };

    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<W: Element>(x: &[f32], matrix: Matrix<W>, rows: Range<usize>, out: &mut [&mut [f32]]) {
            // SAFETY: `run` checked the slices, and this function has the instruction set.
            unsafe { product::<Avx2, W>(x, matrix, rows, out) }
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512<W: Element>(x: &[f32], matrix: Matrix<W>, rows: Range<usize>, out: &mut [&mut [f32]]) {
            // SAFETY: `run` checked the slices, and this function has the instruction set.
            unsafe { product::<Avx512, W>(x, matrix, rows, out) }
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
    unsafe { product::<Portable, W>(x, matrix, rows, out) }
}

/// A weight of known element type.
#[derive(Clone, Copy)]
struct Matrix<'a, W> {
    codes: &'a [W],
    k: usize,
    scale: &'a [f32],
    scale_columns: usize,
}

impl<W> Matrix<'_, W> {
    /// # Safety
    /// The weight must have this row.
    #[inline(always)]
    unsafe fn row(&self, n: usize) -> *const W {
        // SAFETY: the caller vouches for the row.
        unsafe { self.codes.as_ptr().add(n * self.k) }
    }

    /// Factor of what is loaded of row `n` in the 128 columns that begin with column `k`.
    #[inline(always)]
    fn factor(&self, n: usize, k: usize) -> f32
    where
        W: Element,
    {
        match self.scale {
            [] => W::UNIT,
            scale => scale[n / BLOCK * self.scale_columns + k / BLOCK] * W::UNIT,
        }
    }

    /// Whether loaded values are the weights as they are.
    #[inline(always)]
    fn is_plain(&self) -> bool
    where
        W: Element,
    {
        W::UNIT == 1.0 && self.scale.is_empty()
    }
}

/// # Safety
/// The processor must have `V`; `x` is `[out.len(), k]`, the weight has `rows`, and rows of `out` are `rows.len()` long.
#[inline(always)]
unsafe fn product<V: Vector, W: Element>(x: &[f32], weight: Matrix<W>, rows: Range<usize>, out: &mut [&mut [f32]]) {
    // SAFETY: the same contract.
    unsafe {
        match out {
            [] => {}
            [out] => matrix_vector::<V, W>(x, weight, rows, out),
            _ => matrix_matrix::<V, W>(x, weight, rows, out),
        }
    }
}

// ---- one row of x: the weight streams through once, widened in registers

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn matrix_vector<V: Vector, W: Element>(x: &[f32], weight: Matrix<W>, rows: Range<usize>, out: &mut [f32]) {
    let mut done = 0;
    // SAFETY: all rows are within `rows`.
    unsafe {
        if V::STREAMS == 8 {
            while done + 8 <= out.len() {
                let sums = dot_rows::<V, W, 8>(x, weight, rows.start + done);
                let [a, b, c, d, e, f, g, h] = sums;
                out[done..done + 4].copy_from_slice(&V::sum4([a, b, c, d]));
                out[done + 4..done + 8].copy_from_slice(&V::sum4([e, f, g, h]));
                done += 8;
            }
        }
        while done + 4 <= out.len() {
            let sums = dot_rows::<V, W, 4>(x, weight, rows.start + done);
            out[done..done + 4].copy_from_slice(&V::sum4(sums));
            done += 4;
        }
        while done < out.len() {
            let [sum] = dot_rows::<V, W, 1>(x, weight, rows.start + done);
            out[done] = sum.sum();
            done += 1;
        }
    }
}

/// Lanes of the products of `x` with the rows `n..n + R`.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn dot_rows<V: Vector, W: Element, const R: usize>(x: &[f32], weight: Matrix<W>, n: usize) -> [V; R] {
    // SAFETY: reads stay below `k` elements of `x` and of each row.
    unsafe {
        let mut sums = [V::zero(); R];
        let start: [*const W; R] = std::array::from_fn(|r| weight.row(n + r));
        if weight.is_plain() {
            let mut k = 0;
            while k + V::LANES <= weight.k {
                let values = V::load(x.as_ptr().add(k));
                for r in 0..R {
                    sums[r] = W::load::<V>(start[r].add(k)).mul_add(values, sums[r]);
                }
                k += V::LANES;
            }
            if k < weight.k {
                let values: V = f32::load_partial(x.as_ptr().add(k), weight.k - k);
                for r in 0..R {
                    sums[r] = W::load_partial::<V>(start[r].add(k), weight.k - k).mul_add(values, sums[r]);
                }
            }
            return sums;
        }
        let mut k = 0;
        while k < weight.k {
            let end = weight.k.min(k + BLOCK);
            let factors: [V; R] = std::array::from_fn(|r| V::splat(weight.factor(n + r, k)));
            while k + V::LANES <= end {
                let values = V::load(x.as_ptr().add(k));
                for r in 0..R {
                    sums[r] = W::load::<V>(start[r].add(k)).mul(factors[r]).mul_add(values, sums[r]);
                }
                k += V::LANES;
            }
            if k < end {
                let values: V = f32::load_partial(x.as_ptr().add(k), end - k);
                for r in 0..R {
                    let widened = W::load_partial::<V>(start[r].add(k), end - k).mul(factors[r]);
                    sums[r] = widened.mul_add(values, sums[r]);
                }
                k = end;
            }
        }
        sums
    }
}

// ---- several rows of x: tiles of outputs, each weight widened once for many rows

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn matrix_matrix<V: Vector, W: Element>(
    x: &[f32],
    weight: Matrix<W>,
    rows: Range<usize>,
    out: &mut [&mut [f32]],
) {
    let k = weight.k;
    let padded = k.next_multiple_of(V::LANES);
    let chunk = K_CHUNK.min(padded);
    let mut widened = Scratch::new(WEIGHT_ROWS * chunk);
    let mut packed = Scratch::new(X_ROWS.min(out.len()) * padded);
    let tiles_per_column = X_ROWS.div_ceil(V::TILE_ROWS);
    let tile_lanes = TILE_WEIGHT_ROWS * V::TILE_ROWS * V::LANES;
    // Lanes of the unfinished outputs between chunks of k.
    let unfinished = if k > chunk { WEIGHT_ROWS.div_ceil(TILE_WEIGHT_ROWS) * tiles_per_column * tile_lanes } else { 0 };
    let mut lanes = Scratch::new(unfinished);

    for (x, out) in x.chunks(X_ROWS * k.max(1)).zip(out.chunks_mut(X_ROWS)) {
        // Rows of a tile side by side, a register of each in turn.
        for (x, packed) in x.chunks(V::TILE_ROWS * k.max(1)).zip(packed.chunks_mut(V::TILE_ROWS * padded.max(1))) {
            let count = x.len() / k.max(1);
            for (row, x) in x.chunks_exact(k.max(1)).enumerate() {
                // SAFETY: `packed` has `count` rows of `padded` elements.
                unsafe { interleave::<V, f32>(x.as_ptr(), k, |value| value, packed.as_mut_ptr(), row, count) };
            }
        }
        let mut first_row = rows.start;
        while first_row < rows.end {
            let block = WEIGHT_ROWS.min(rows.end - first_row);
            let mut start = 0;
            while start == 0 || start < k {
                let len = chunk.min(k - start);
                let mut n = 0;
                while n < block {
                    let count = if block - n >= TILE_WEIGHT_ROWS { TILE_WEIGHT_ROWS } else { 1 };
                    for row in 0..count {
                        // SAFETY: the row exists and `widened` has `chunk` elements for each row of the block.
                        unsafe {
                            let to = widened[n * chunk..].as_mut_ptr();
                            widen::<V, W>(weight, first_row + n + row, start, len, to, row, count);
                        }
                    }
                    n += count;
                }
                let span = Span { steps: len.div_ceil(V::LANES), first: start == 0, last: start + len >= k };
                for (tile, out) in out.chunks_mut(V::TILE_ROWS).enumerate() {
                    let x = &packed[tile * V::TILE_ROWS * padded + start * out.len()..];
                    let mut n = 0;
                    while n < block {
                        let count = if block - n >= TILE_WEIGHT_ROWS { TILE_WEIGHT_ROWS } else { 1 };
                        let column = first_row - rows.start + n;
                        // A row alone uses the lanes of the tile of four that it would be in, at its own place.
                        let at = (n / TILE_WEIGHT_ROWS * tiles_per_column + tile) * tile_lanes
                            + n % TILE_WEIGHT_ROWS * V::TILE_ROWS * V::LANES;
                        let lanes = lanes.get_mut(at..).unwrap_or_default();
                        // SAFETY: `out` has at most `TILE_ROWS` rows, `x` and `widened` hold the span of them and of
                        // `count` rows of the weight, and `lanes` a tile's, unless one chunk is all.
                        unsafe { any_tile::<V>(count, &widened[n * chunk..], x, span, lanes, column, out) };
                        n += count;
                    }
                }
                start += chunk;
            }
            first_row += block;
        }
    }
}

/// The part of k that a tile runs over.
#[derive(Clone, Copy)]
struct Span {
    /// Registers of each row.
    steps: usize,
    first: bool,
    last: bool,
}

/// Writes `len` elements from `from` on to the row `row` of `count` rows that lie side by side at `to`, a register of
/// each in turn, and zeros behind the last element.
///
/// # Safety
/// The processor must have `V`; `from` has `len` elements, and `to` room for `count` rows of whole registers.
#[inline(always)]
unsafe fn interleave<V: Vector, W: Element>(
    from: *const W,
    len: usize,
    scaled: impl Fn(V) -> V,
    to: *mut f32,
    row: usize,
    count: usize,
) {
    // SAFETY: reads stay below `len`, writes in the row's registers.
    unsafe {
        let mut to = to.add(row * V::LANES);
        let mut at = 0;
        while at + V::LANES <= len {
            scaled(W::load::<V>(from.add(at))).store(to);
            to = to.add(count * V::LANES);
            at += V::LANES;
        }
        if at < len {
            scaled(W::load_partial::<V>(from.add(at), len - at)).store(to);
        }
    }
}

/// Writes `weight[n][start..start + len]`, scaled, to the row `row` of `count` at `to`, as [`interleave`] does.
///
/// # Safety
/// As [`interleave`]; the weight has the row, and `start` is a multiple of 128.
#[inline(always)]
unsafe fn widen<V: Vector, W: Element>(
    weight: Matrix<W>,
    n: usize,
    start: usize,
    len: usize,
    to: *mut f32,
    row: usize,
    count: usize,
) {
    // SAFETY: reads and writes stay below `len`.
    unsafe {
        let from = weight.row(n).add(start);
        if weight.is_plain() {
            return interleave::<V, W>(from, len, |value| value, to, row, count);
        }
        for at in (0..len).step_by(BLOCK) {
            let factor = V::splat(weight.factor(n, start + at));
            let (from, len) = (from.add(at), BLOCK.min(len - at));
            interleave::<V, W>(from, len, |value| value.mul(factor), to.add(at * count), row, count);
        }
    }
}

/// [`tile`] of the size that `count` rows of the weight and `out.len()` rows of `x` need.
///
/// # Safety
/// As [`tile`]; `count` is 1 or 4 and `out` has `1..=V::TILE_ROWS` rows.
#[inline(always)]
unsafe fn any_tile<V: Vector>(
    count: usize,
    weight: &[f32],
    x: &[f32],
    span: Span,
    lanes: &mut [f32],
    column: usize,
    out: &mut [&mut [f32]],
) {
    macro_rules! choose {
        ($($rows:literal)*) => {
            match (count, out.len()) {
                $((4, $rows) if $rows <= V::TILE_ROWS => {
                    // SAFETY: the same contract.
                    let sums = unsafe { tile::<V, 4, $rows>(weight, x, span, lanes) };
                    if let Some(sums) = sums {
                        for (out, sums) in out.iter_mut().zip(sums) {
                            // SAFETY: the processor has `V`.
                            out[column..column + 4].copy_from_slice(&unsafe { V::sum4(sums) });
                        }
                    }
                })*
                $((1, $rows) if $rows <= V::TILE_ROWS => {
                    // SAFETY: the same contract.
                    let sums = unsafe { tile::<V, 1, $rows>(weight, x, span, lanes) };
                    if let Some(sums) = sums {
                        for (out, [sum]) in out.iter_mut().zip(sums) {
                            // SAFETY: the processor has `V`.
                            out[column] = unsafe { sum.sum() };
                        }
                    }
                })*
                _ => {}
            }
        };
    }
    choose!(6 5 4 3 2 1)
}

/// Adds the products of `N` rows of the weight with `M` rows of `x` over a span of k; the finished lanes if it is the
/// last, else none, and `lanes` keeps them.
///
/// # Safety
/// The processor must have `V`; `weight` and `x` hold the span of `N` and `M` rows as [`interleave`] writes them, and
/// `lanes` has `N * M * LANES` elements unless the span is first and last.
#[allow(clippy::needless_range_loop)] // The indices name rows of several arrays.
#[inline(always)]
unsafe fn tile<V: Vector, const N: usize, const M: usize>(
    weight: &[f32],
    x: &[f32],
    span: Span,
    lanes: &mut [f32],
) -> Option<[[V; N]; M]> {
    // SAFETY: by the contract every pointer stays in its slice.
    unsafe {
        let mut sums = [[V::zero(); N]; M];
        if !span.first {
            for m in 0..M {
                for n in 0..N {
                    sums[m][n] = V::load(lanes.as_ptr().add((m * N + n) * V::LANES));
                }
            }
        }
        let (mut weight, mut x) = (weight.as_ptr(), x.as_ptr());
        for _ in 0..span.steps {
            let mut values = [V::zero(); M];
            for m in 0..M {
                values[m] = V::load(x.add(m * V::LANES));
            }
            for n in 0..N {
                let row = V::load(weight.add(n * V::LANES));
                for m in 0..M {
                    sums[m][n] = row.mul_add(values[m], sums[m][n]);
                }
            }
            weight = weight.add(N * V::LANES);
            x = x.add(M * V::LANES);
        }
        if span.last {
            return Some(sums);
        }
        for m in 0..M {
            for n in 0..N {
                sums[m][n].store(lanes.as_mut_ptr().add((m * N + n) * V::LANES));
            }
        }
        None
    }
}
