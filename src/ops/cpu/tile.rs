//! Attention of a few query rows ("lanes") over a tile of keys that they share, with online softmax.
//!
//! Lanes lie in SIMD lanes for the scores, value elements do for the sums. What a lane computes depends on its own
//! query and on the tiles, not on the other lanes nor on how many there are.

use super::exp::exp_nonpositive as exp;
use super::simd::{Isa, mul_add, simd_kernel};

/// Keys in a tile.
pub(crate) const TILE: usize = 64;

/// Elements that a row of values is padded to.
pub(crate) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(16)
}

/// Lanes to give the next group when `left` rows have none yet: 8, 16 or 32.
pub(crate) fn lane_width(isa: Isa, left: usize) -> usize {
    match left {
        0..=8 => 8,
        9..=16 => 16,
        _ if isa == Isa::Avx512 => 32,
        _ => 16,
    }
}

/// The keys and values of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// Keys in this tile, at most [`TILE`].
    pub(crate) count: usize,
    /// Key elements.
    pub(crate) dim: usize,
    /// Rows of at least `dim` elements, `key_stride` apart.
    pub(crate) keys: &'a [f32],
    pub(crate) key_stride: usize,
    /// Rows of at least `padded(value_dim)` elements, `value_stride` apart; what is beyond `value_dim` is arbitrary.
    pub(crate) values: &'a [f32],
    pub(crate) value_stride: usize,
    /// Keys of the tile that each lane sees, where some see less than all.
    pub(crate) visible: Option<&'a [usize]>,
}

/// The running softmax of some lanes.
pub(crate) struct Softmax<'a> {
    /// Lanes in use; the kernel's width is `max.len()`.
    pub(crate) lanes: usize,
    /// Largest score of each lane.
    pub(crate) max: &'a mut [f32],
    /// Sum of `exp(score - max)` of each lane.
    pub(crate) sum: &'a mut [f32],
    /// `[lanes, padded value_dim]`: sums of `exp(score - max) * value`.
    pub(crate) acc: &'a mut [f32],
}

impl<'a> Softmax<'a> {
    /// Elements of memory for `width` lanes.
    pub(crate) fn len(width: usize, value_dim: usize) -> usize {
        width * (2 + padded(value_dim))
    }

    /// Takes memory of that length as the state of an earlier call.
    pub(crate) fn of(memory: &'a mut [f32], width: usize, lanes: usize) -> Self {
        let (max, rest) = memory.split_at_mut(width);
        let (sum, acc) = rest.split_at_mut(width);
        Self { lanes, max, sum, acc }
    }

    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        // The smallest number instead of -inf, so that no difference of infinities can turn up.
        self.max.fill(f32::MIN);
        self.sum.fill(0.);
        self.acc.fill(0.);
    }

    /// Adds what `other` has seen (keys that come later) to `self`.
    pub(crate) fn merge(&mut self, other: &Softmax) {
        let padded = self.acc.len() / self.max.len();
        for lane in 0..self.lanes {
            let max = self.max[lane].max(other.max[lane]);
            let (mine, theirs) = (exp::<false>(self.max[lane] - max), exp::<false>(other.max[lane] - max));
            self.max[lane] = max;
            self.sum[lane] = self.sum[lane] * mine + other.sum[lane] * theirs;
            let row = lane * padded..(lane + 1) * padded;
            for (acc, other) in self.acc[row.clone()].iter_mut().zip(&other.acc[row]) {
                *acc = *acc * mine + *other * theirs;
            }
        }
    }

    /// Writes a lane's result, zeros if it has seen nothing, and returns its log-sum-exp.
    pub(crate) fn finish(&self, lane: usize, out: &mut [f32]) -> f32 {
        let sum = self.sum[lane];
        if sum == 0. {
            out.fill(0.);
            return f32::NEG_INFINITY;
        }
        let padded = self.acc.len() / self.max.len();
        for (out, acc) in out.iter_mut().zip(&self.acc[lane * padded..]) {
            *out = acc * (1. / sum);
        }
        self.max[lane] + sum.ln()
    }
}

/// Lets the lanes, queries `q_t: [dim, width]`, see a tile.
pub(crate) fn step(isa: Isa, q_t: &[f32], softmax_scale: f32, tile: Tile, state: &mut Softmax) {
    match (isa, state.max.len()) {
        (Isa::Avx512, 32) => step_32_wide(isa, q_t, softmax_scale, tile, state),
        (Isa::Avx512, 16) => step_16_wide(isa, q_t, softmax_scale, tile, state),
        (_, 16) => step_16(isa, q_t, softmax_scale, tile, state),
        _ => step_8(isa, q_t, softmax_scale, tile, state),
    }
}

simd_kernel! { fn step_32_wide(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) = body_32_wide }
simd_kernel! { fn step_16_wide(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) = body_16_wide }
simd_kernel! { fn step_16(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) = body_16 }
simd_kernel! { fn step_8(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) = body_8 }

#[inline(always)]
fn body_32_wide<const FMA: bool>(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) {
    body::<FMA, 32, 8, 64>(q_t, scale, tile, state);
}

#[inline(always)]
fn body_16_wide<const FMA: bool>(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) {
    body::<FMA, 16, 8, 64>(q_t, scale, tile, state);
}

#[inline(always)]
fn body_16<const FMA: bool>(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) {
    body::<FMA, 16, 4, 16>(q_t, scale, tile, state);
}

#[inline(always)]
fn body_8<const FMA: bool>(q_t: &[f32], scale: f32, tile: Tile, state: &mut Softmax) {
    body::<FMA, 8, 8, 16>(q_t, scale, tile, state);
}

/// `L` lanes, scores of `KEYS` keys at a time, sums of `VALUES` value elements at a time.
#[inline(always)]
fn body<const FMA: bool, const L: usize, const KEYS: usize, const VALUES: usize>(
    q_t: &[f32],
    scale: f32,
    tile: Tile,
    state: &mut Softmax,
) {
    let mut scores = [[0f32; L]; TILE];
    let scores = &mut scores[..tile.count];
    let q_t = &q_t.as_chunks::<L>().0[..tile.dim];
    let mut key = 0;
    while key + KEYS <= scores.len() {
        let dots = dots::<FMA, L, KEYS>(q_t, &tile.keys[key * tile.key_stride..], tile.key_stride);
        scores[key..key + KEYS].copy_from_slice(&dots);
        key += KEYS;
    }
    while key < scores.len() {
        let dots = dots::<FMA, L, 1>(q_t, &tile.keys[key * tile.key_stride..], tile.key_stride);
        scores[key..key + 1].copy_from_slice(&dots);
        key += 1;
    }
    let rescale = softmax::<FMA, L>(scores, scale, tile.visible, state);

    let padded = state.acc.len() / L;
    let mut at = 0;
    while at + VALUES <= padded {
        sums::<FMA, L, VALUES>(scores, &rescale, &tile, at, state);
        at += VALUES;
    }
    while at < padded {
        sums::<FMA, L, 16>(scores, &rescale, &tile, at, state);
        at += 16;
    }
}

/// Dot products of `L` queries, `q_t: [dim, L]`, with `KEYS` keys that lie `stride` apart.
#[inline(always)]
pub(crate) fn dots<const FMA: bool, const L: usize, const KEYS: usize>(
    q_t: &[[f32; L]],
    keys: &[f32],
    stride: usize,
) -> [[f32; L]; KEYS] {
    let mut rows = [&keys[..q_t.len()]; KEYS];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &keys[i * stride..][..q_t.len()];
    }
    let mut acc = [[0f32; L]; KEYS];
    for (d, q) in q_t.iter().enumerate() {
        for (acc, row) in acc.iter_mut().zip(&rows) {
            let key = row[d];
            for lane in 0..L {
                acc[lane] = mul_add::<FMA>(key, q[lane], acc[lane]);
            }
        }
    }
    acc
}

/// Turns dot products into `exp(score - max)`, brings `max` and `sum` up to date and returns the factor by which each
/// lane's earlier sums shrink.
#[inline(always)]
fn softmax<const FMA: bool, const L: usize>(
    scores: &mut [[f32; L]],
    scale: f32,
    visible: Option<&[usize]>,
    state: &mut Softmax,
) -> [f32; L] {
    for score in scores.iter_mut() {
        for score in score {
            *score *= scale;
        }
    }
    for (lane, &visible) in visible.unwrap_or_default().iter().enumerate().take(L) {
        for score in scores.iter_mut().skip(visible) {
            score[lane] = f32::NEG_INFINITY;
        }
    }
    let mut max = [0f32; L];
    max.copy_from_slice(state.max);
    let old = max;
    for score in scores.iter() {
        for lane in 0..L {
            max[lane] = if score[lane] > max[lane] { score[lane] } else { max[lane] };
        }
    }
    let mut rescale = [0f32; L];
    let mut sum = [0f32; L];
    for lane in 0..L {
        rescale[lane] = exp::<FMA>(old[lane] - max[lane]);
        sum[lane] = state.sum[lane] * rescale[lane];
    }
    for score in scores {
        for lane in 0..L {
            score[lane] = exp::<FMA>(score[lane] - max[lane]);
            sum[lane] += score[lane];
        }
    }
    state.max.copy_from_slice(&max);
    state.sum.copy_from_slice(&sum);
    rescale
}

/// `acc = acc * rescale + weights . values` for the value elements `at..at + N` of all lanes, four lanes at a time.
#[inline(always)]
fn sums<const FMA: bool, const L: usize, const N: usize>(
    weights: &[[f32; L]],
    rescale: &[f32; L],
    tile: &Tile,
    at: usize,
    state: &mut Softmax,
) {
    let padded = state.acc.len() / L;
    for lane in (0..L).step_by(4) {
        if lane >= state.lanes {
            break;
        }
        let mut acc = [[0f32; N]; 4];
        for (i, acc) in acc.iter_mut().enumerate() {
            let old = &state.acc[(lane + i) * padded + at..][..N];
            for (acc, old) in acc.iter_mut().zip(old) {
                *acc = *old * rescale[lane + i];
            }
        }
        for (key, weights) in weights.iter().enumerate() {
            let values = &tile.values[key * tile.value_stride + at..][..N];
            for (i, acc) in acc.iter_mut().enumerate() {
                let weight = weights[lane + i];
                for (acc, value) in acc.iter_mut().zip(values) {
                    *acc = mul_add::<FMA>(weight, *value, *acc);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            state.acc[(lane + i) * padded + at..][..N].copy_from_slice(acc);
        }
    }
}
