//! `topk` on CPU: a histogram of the leading bits finds the bin of the k-th largest entry, a selection among that
//! bin's entries finds its value, one more pass lists the columns. Linear in `N`.

use candle::{CpuStorage, Result, Storage, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use crate::ops::cpu::simd::{Isa, isa, simd_kernel};

/// Leading bits of an entry's key that choose its bin: sign, exponent and two bits of mantissa.
const BIN_BITS: u32 = 11;
/// Rows with fewer entries are selected from without a histogram.
const SMALL: usize = 256;
/// Entries from which spreading rows over threads pays.
const PARALLEL_ENTRIES: usize = 1 << 16;
/// Entries that are looked at together for whether one of them matters.
const BLOCK: usize = 32;

pub(super) fn topk(logits: &Tensor, k: usize) -> Result<Tensor> {
    let (tokens, columns) = logits.dims2()?;
    let logits = logits.contiguous()?;
    let mut indices = vec![-1i32; tokens * k];
    let (storage, layout) = logits.storage_and_layout();
    let start = layout.start_offset();
    let rows = match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => data.get(start..start + tokens * columns),
        _ => None,
    };
    let Some(rows) = rows else { candle::bail!("topk: expected f32 logits on the CPU") };
    let isa = isa();
    let run = |t: usize, row: &[f32], out: &mut [i32]| {
        select(isa, row, k, out).map(|_| ()).map_err(|column| nan("topk: logits", t, column))
    };
    if k == 0 || columns == 0 {
        // Nothing to choose: only a NaN matters.
        rows.chunks(columns.max(1)).enumerate().try_for_each(|(t, row)| run(t, row, &mut []))?;
    } else if tokens > 1 && tokens * columns >= PARALLEL_ENTRIES {
        let pairs = indices.par_chunks_mut(k).zip(rows.par_chunks(columns)).enumerate();
        let done = pairs.map(|(t, (out, row))| run(t, row, out)).collect::<Vec<_>>();
        done.into_iter().collect::<Result<()>>()?;
    } else {
        let mut pairs = indices.chunks_mut(k).zip(rows.chunks(columns)).enumerate();
        pairs.try_for_each(|(t, (out, row))| run(t, row, out))?;
    }
    Tensor::from_vec(indices, (tokens, k), logits.device())
}

/// The error about a NaN.
pub(crate) fn nan(what: &str, row: usize, column: usize) -> candle::Error {
    candle::Error::Msg(format!("{what}[{row}, {column}] is NaN")).bt()
}

/// Writes the columns of the `k` largest entries of a row above -inf to the front of `out`, ascending, and leaves the
/// rest of `out` alone; returns how many there are, or the column of a NaN.
pub(crate) fn select(isa: Isa, row: &[f32], k: usize, out: &mut [i32]) -> std::result::Result<usize, usize> {
    let (above, nan) = survey(isa, row);
    if nan {
        return Err(row.iter().position(|x| x.is_nan()).unwrap_or(0));
    }
    let k = k.min(above).min(out.len());
    if k == 0 {
        return Ok(0);
    }
    let (threshold, ties) = if k == above { (f32::NEG_INFINITY, 0) } else { threshold(isa, row, k) };
    list(isa, row, threshold, ties, &mut out[..k]);
    Ok(k)
}

/// Maps a number so that integers are ordered as numbers; the two zeros become one.
#[inline(always)]
fn key(x: f32) -> u32 {
    let bits = (x + 0.).to_bits();
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

/// The number that has a key.
fn number(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 0x8000_0000 } else { !key })
}

simd_kernel! {
    /// How many entries are above -inf, and whether one is NaN.
    fn survey(row: &[f32]) -> (usize, bool) = survey_body
}

#[inline(always)]
fn survey_body<const FMA: bool>(row: &[f32]) -> (usize, bool) {
    let (mut above, mut nan) = (0, false);
    for block in row.chunks(1 << 12) {
        let (mut n, mut nans) = (0i32, 0i32);
        for &x in block {
            n += i32::from(x > f32::NEG_INFINITY);
            nans += i32::from(x.is_nan());
        }
        above += n as usize;
        nan |= nans > 0;
    }
    (above, nan)
}

/// The `k`-th largest entry, and how many of the entries equal to it are among the `k` largest.
fn threshold(isa: Isa, row: &[f32], k: usize) -> (f32, usize) {
    if row.len() < SMALL {
        return nth(&mut row.iter().map(|&x| key(x)).collect::<Vec<_>>(), k);
    }
    let mut counts = [0u32; 1 << BIN_BITS];
    for &x in row {
        counts[(key(x) >> (32 - BIN_BITS)) as usize] += 1;
    }
    let (mut bin, mut larger) = (counts.len() - 1, 0);
    while bin > 0 && larger + (counts[bin] as usize) < k {
        larger += counts[bin] as usize;
        bin -= 1;
    }
    let mut candidates = vec![0u32; counts[bin] as usize];
    collect(isa, row, bin as u32, &mut candidates);
    nth(&mut candidates, k - larger)
}

/// [`threshold`] among keys.
fn nth(keys: &mut [u32], k: usize) -> (f32, usize) {
    let at = keys.len() - k;
    let (_, &mut value, larger) = keys.select_nth_unstable(at);
    (number(value), k - larger.iter().filter(|&&key| key > value).count())
}

simd_kernel! {
    /// The keys of a row that fall into a bin.
    fn collect(row: &[f32], bin: u32, keys: &mut [u32]) = collect_body
}

#[inline(always)]
fn collect_body<const FMA: bool>(row: &[f32], bin: u32, keys: &mut [u32]) {
    let mut n = 0;
    for block in row.chunks(BLOCK) {
        let mut hits = 0u32;
        for &x in block {
            hits |= u32::from(key(x) >> (32 - BIN_BITS) == bin);
        }
        if hits == 0 {
            continue;
        }
        for &x in block {
            let key = key(x);
            if n < keys.len() {
                keys[n] = key;
            }
            n += usize::from(key >> (32 - BIN_BITS) == bin);
        }
    }
}

simd_kernel! {
    /// The columns above `threshold` and the first `ties` columns equal to it, as many as `out` holds.
    fn list(row: &[f32], threshold: f32, ties: usize, out: &mut [i32]) = list_body
}

#[inline(always)]
fn list_body<const FMA: bool>(row: &[f32], threshold: f32, ties: usize, out: &mut [i32]) {
    let (mut n, mut ties) = (0, ties);
    for (i, block) in row.chunks(BLOCK).enumerate() {
        let mut hits = 0u32;
        for &x in block {
            hits |= u32::from(x >= threshold);
        }
        if hits == 0 {
            continue;
        }
        for (j, &x) in block.iter().enumerate() {
            if n == out.len() {
                return;
            }
            out[n] = (i * BLOCK + j) as i32;
            let tie = x == threshold && ties > 0;
            ties -= usize::from(tie);
            n += usize::from(x > threshold || tie);
        }
    }
}
