//! Scores of a page of keys on one thread: keys in the lanes of registers, so that no lane is idle whatever the number of
//! heads, and the sum over heads needs no lanes to be added.
//!
//! What comes out for a key depends on the row and the key alone, not on how the keys lie: dot products add in the order
//! of the elements, scores in the order of the heads.

use crate::ops::cpu::simd::Isa;
#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::vector::{Avx2, Avx512};
use crate::ops::cpu::vector::{Portable, Vector};
use crate::ops::layout::PAGE_SIZE;

/// Heads whose dot products with a strip of keys are in registers at the same time.
const HEADS: usize = 4;
/// As [`HEADS`], where the keys are columns only in registers.
const ONE_PASS_HEADS: usize = 8;

/// A query row: `[heads, dim]`, and `[heads]`.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) q: &'a [f32],
    pub(super) weights: &'a [f32],
}

/// A page of keys of `dim` elements.
#[derive(Clone, Copy)]
pub(super) enum Keys<'a> {
    /// As [`by_columns`] lays them out, for several passes over them.
    Columns(&'a [f32]),
    /// Rows that lie `stride` apart; `dim` is a multiple of 4.
    Rows { data: &'a [f32], stride: usize, dim: usize },
}

/// Whether laying keys out by columns costs more than it saves: one row whose heads go through the keys once.
pub(super) fn rows_suffice(rows: usize, heads: usize, dim: usize) -> bool {
    rows == 1 && heads <= ONE_PASS_HEADS && dim.is_multiple_of(4)
}

/// `out[i] = sum over heads of weight * relu(q . key i)`.
pub(super) fn score(isa: Isa, row: Row, keys: Keys, out: &mut [f32; PAGE_SIZE]) {
    let dim = row.q.len() / row.weights.len().max(1);
    let fits = row.q.len() == row.weights.len() * dim
        && match keys {
            Keys::Columns(data) => data.len() >= dim * PAGE_SIZE,
            Keys::Rows { data, stride, dim: width } => {
                width == dim && dim.is_multiple_of(4) && stride >= dim && data.len() >= (PAGE_SIZE - 1) * stride + dim
            }
        };
    assert!(fits, "q must fit the keys, and these must be a whole page");

    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(row: Row, keys: Keys, dim: usize, out: &mut [f32; PAGE_SIZE]) {
            // SAFETY: the slices were checked, and this function has the instruction set.
            unsafe { page::<Avx2, 2, 1>(row, keys, dim, out) }
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512(row: Row, keys: Keys, dim: usize, out: &mut [f32; PAGE_SIZE]) {
            // SAFETY: the slices were checked, and this function has the instruction set.
            unsafe { page::<Avx512, 4, 2>(row, keys, dim, out) }
        }
        match isa {
            // SAFETY: `isa()` and `with_isa` only ever hand out what the processor was seen to have.
            Isa::Avx512 => return unsafe { avx512(row, keys, dim, out) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(row, keys, dim, out) },
            Isa::Baseline => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    // SAFETY: the slices were checked; plain Rust runs on any processor.
    unsafe { page::<Portable, 2, 1>(row, keys, dim, out) }
}

/// Writes a page of keys, rows of `dim` elements that lie `stride` apart, as columns: `out[d * PAGE_SIZE + key]`.
pub(super) fn by_columns(isa: Isa, keys: &[f32], stride: usize, out: &mut [f32]) {
    let dim = out.len() / PAGE_SIZE;
    assert!(stride >= dim && keys.len() >= (PAGE_SIZE - 1) * stride + dim, "a whole page of keys is needed");

    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(keys: &[f32], stride: usize, dim: usize, out: &mut [f32]) {
            // SAFETY: the slices were checked, and this function has the instruction set.
            unsafe { columns::<Avx2>(keys, stride, dim, out) }
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512(keys: &[f32], stride: usize, dim: usize, out: &mut [f32]) {
            // SAFETY: the slices were checked, and this function has the instruction set.
            unsafe { columns::<Avx512>(keys, stride, dim, out) }
        }
        match isa {
            // SAFETY: `isa()` and `with_isa` only ever hand out what the processor was seen to have.
            Isa::Avx512 => return unsafe { avx512(keys, stride, dim, out) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(keys, stride, dim, out) },
            Isa::Baseline => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    // SAFETY: the slices were checked; plain Rust runs on any processor.
    unsafe { columns::<Portable>(keys, stride, dim, out) }
}

/// # Safety
/// The processor must have `V`; `keys` holds a page of rows of `dim` elements at `stride`, and `out` as many elements.
#[inline(always)]
unsafe fn columns<V: Vector>(keys: &[f32], stride: usize, dim: usize, out: &mut [f32]) {
    for key in (0..PAGE_SIZE).step_by(V::LANES) {
        let mut d = 0;
        while d + 4 <= dim {
            // SAFETY: rows up to `key + LANES` are in the page, four elements from `d` on in a row.
            unsafe {
                let columns = V::load_columns(keys.as_ptr().add(key * stride + d), stride);
                for (i, column) in columns.into_iter().enumerate() {
                    column.store(out.as_mut_ptr().add((d + i) * PAGE_SIZE + key));
                }
            }
            d += 4;
        }
        for d in d..dim {
            for key in key..key + V::LANES {
                out[d * PAGE_SIZE + key] = keys[key * stride + d];
            }
        }
    }
}

/// # Safety
/// The processor must have `V`; `row` and `keys` fit one another. `COLUMNS` and `ROWS` registers must divide the page.
#[inline(always)]
unsafe fn page<V: Vector, const COLUMNS: usize, const ROWS: usize>(
    row: Row,
    keys: Keys,
    dim: usize,
    out: &mut [f32; PAGE_SIZE],
) {
    // SAFETY: the strips are in the page.
    unsafe {
        match keys {
            Keys::Columns(data) => {
                for key in (0..PAGE_SIZE).step_by(COLUMNS * V::LANES) {
                    let keys = data.as_ptr().add(key);
                    strip::<V, COLUMNS, HEADS, false>(row, dim, keys, PAGE_SIZE, &mut out[key..]);
                }
            }
            Keys::Rows { data, stride, .. } => {
                for key in (0..PAGE_SIZE).step_by(ROWS * V::LANES) {
                    let keys = data.as_ptr().add(key * stride);
                    strip::<V, ROWS, ONE_PASS_HEADS, true>(row, dim, keys, stride, &mut out[key..]);
                }
            }
        }
    }
}

/// Scores of `R` registers of keys: in rows, or in columns, `stride` apart.
///
/// # Safety
/// The processor must have `V`; `keys` and `out` hold the strip.
#[inline(always)]
unsafe fn strip<V: Vector, const R: usize, const H: usize, const ROWS: bool>(
    row: Row,
    dim: usize,
    keys: *const f32,
    stride: usize,
    out: &mut [f32],
) {
    let heads = row.weights.len();
    // SAFETY: the heads named are in the row.
    unsafe {
        let mut sums = [V::zero(); R];
        let mut head = 0;
        while head + H <= heads {
            sums = add_heads::<V, R, H, ROWS>(row, head, dim, keys, stride, sums);
            head += H;
        }
        if H > 4 && head + 4 <= heads {
            sums = add_heads::<V, R, 4, ROWS>(row, head, dim, keys, stride, sums);
            head += 4;
        }
        while head < heads {
            sums = add_heads::<V, R, 1, ROWS>(row, head, dim, keys, stride, sums);
            head += 1;
        }
        let (out, _) = out.split_at_mut(R * V::LANES);
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store(out.as_mut_ptr().add(i * V::LANES));
        }
    }
}

/// Adds what `H` heads from `head` on say of a strip of keys to `sums`.
///
/// # Safety
/// The processor must have `V`; the row has the heads, and `keys` the strip.
#[inline(always)]
unsafe fn add_heads<V: Vector, const R: usize, const H: usize, const ROWS: bool>(
    row: Row,
    head: usize,
    dim: usize,
    keys: *const f32,
    stride: usize,
    mut sums: [V; R],
) -> [V; R] {
    // SAFETY: by the contract every pointer stays in its slice.
    unsafe {
        let q = row.q.as_ptr().add(head * dim);
        let mut dots = [[V::zero(); R]; H];
        if ROWS {
            for d in (0..dim).step_by(4) {
                let mut columns = [[V::zero(); 4]; R];
                for (r, columns) in columns.iter_mut().enumerate() {
                    *columns = V::load_columns(keys.add(r * V::LANES * stride + d), stride);
                }
                for i in 0..4 {
                    let mut column = [V::zero(); R];
                    for (column, columns) in column.iter_mut().zip(&columns) {
                        *column = columns[i];
                    }
                    add_column(q.add(d + i), dim, column, &mut dots);
                }
            }
        } else {
            for d in 0..dim {
                let mut column = [V::zero(); R];
                for (r, column) in column.iter_mut().enumerate() {
                    *column = V::load(keys.add(d * stride + r * V::LANES));
                }
                add_column(q.add(d), dim, column, &mut dots);
            }
        }
        for (h, dots) in dots.into_iter().enumerate() {
            let weight = V::splat(row.weights[head + h]);
            for (sum, dot) in sums.iter_mut().zip(dots) {
                *sum = dot.relu().mul_add(weight, *sum);
            }
        }
        sums
    }
}

/// Adds the products of one element of the keys with that of `H` heads, `dim` apart from `q` on.
///
/// # Safety
/// The processor must have `V`; the heads' elements can be read.
#[inline(always)]
unsafe fn add_column<V: Vector, const R: usize, const H: usize>(
    q: *const f32,
    dim: usize,
    column: [V; R],
    dots: &mut [[V; R]; H],
) {
    for (h, dots) in dots.iter_mut().enumerate() {
        // SAFETY: by the contract.
        unsafe {
            let q = V::splat(*q.add(h * dim));
            for (dot, column) in dots.iter_mut().zip(column) {
                *dot = q.mul_add(column, *dot);
            }
        }
    }
}
