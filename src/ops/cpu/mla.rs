//! Attention in MQA mode over listed slots, the CPU core of `sparse_mla` and `dense_mla`.

use std::ops::Range;

use candle::{Result, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use super::PARALLEL_WORK;
use super::rows::{Rows, readable};
use super::scratch::Scratch;
use super::simd::{Isa, isa};
use super::tile::{Softmax, TILE, Tile, lane_width, padded, step};
use crate::ops::fp8::{Fp8Row, float_rows};

/// Keys that one work item sees. The parts of a row are merged in order, so that a row has the same bits whether its
/// parts run on one thread or on several.
const SPLIT: usize = 8 * TILE;

/// The slots that each row sees.
#[derive(Clone)]
pub(crate) struct Seen {
    /// All below the slots of the cache.
    pub(crate) slots: Vec<u32>,
    /// The part of `slots` that each row sees.
    pub(crate) rows: Vec<Range<usize>>,
}

impl Seen {
    fn of(&self, row: usize) -> &[u32] {
        &self.slots[self.rows[row].clone()]
    }
}

/// Attention of `q: [T, H, D]` over the slots that its rows see: `out [T, H, value_dim]` of the dtype of `q` and
/// `lse [T, H]`. Gradients pass where one of the tensors is tracked.
pub(crate) fn mla(
    q: &Tensor,
    kv: &Tensor,
    seen: Seen,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, dim) = q.dims3()?;
    let row = Fp8Row { quantized: value_dim, plain: dim - value_dim };
    if q.track_op() || kv.track_op() {
        return super::mla_backward::tracked(q, &float_rows(kv, row)?, seen, value_dim, softmax_scale);
    }
    let (q_source, kv_source) = (readable(q)?, readable(kv)?);
    let ((q_storage, q_layout), (kv_storage, kv_layout)) =
        (q_source.storage_and_layout(), kv_source.storage_and_layout());
    let (q_rows, kv_rows) = (Rows::new(&q_storage, q_layout)?, Rows::keys(&kv_storage, kv_layout, row)?);
    let (out, lse) = attend(q_rows, kv_rows, heads, &seen, value_dim, softmax_scale);
    let out = Tensor::from_vec(out, (tokens, heads, value_dim), q.device())?.to_dtype(q.dtype())?;
    Ok((out, Tensor::from_vec(lse, (tokens, heads), q.device())?))
}

/// [`mla`] of rows: `(out [T, H, value_dim], lse [T, H])`.
pub(super) fn attend(
    q: Rows,
    kv: Rows,
    heads: usize,
    seen: &Seen,
    value_dim: usize,
    softmax_scale: f64,
) -> (Vec<f32>, Vec<f32>) {
    let tokens = seen.rows.len();
    let work = q.width() + value_dim;
    let mla = Mla { isa: isa(), q, kv, heads, value_dim, softmax_scale: softmax_scale as f32 };
    let mut out = vec![0f32; tokens * heads * value_dim];
    let mut lse = vec![f32::NEG_INFINITY; tokens * heads];
    if heads > 0 {
        let keys = seen.rows.iter().map(|seen| seen.len()).sum::<usize>();
        let threads = rayon::current_num_threads();
        if threads == 1 || keys * heads * work < PARALLEL_WORK {
            for t in 0..tokens {
                let (out, lse) = (&mut out[t * heads * value_dim..], &mut lse[t * heads..]);
                mla.row(t, seen.of(t), out, lse);
            }
        } else if tokens >= 2 * threads && value_dim > 0 {
            let rows = out.par_chunks_mut(heads * value_dim).zip(lse.par_chunks_mut(heads));
            rows.enumerate().for_each(|(t, (out, lse))| mla.row(t, seen.of(t), out, lse));
        } else {
            mla.parts(seen, &mut out, &mut lse);
        }
    }
    (out, lse)
}

/// Heads that share SIMD lanes.
#[derive(Clone, Copy)]
struct Group {
    first: usize,
    lanes: usize,
    width: usize,
}

struct Mla<'a> {
    isa: Isa,
    q: Rows<'a>,
    kv: Rows<'a>,
    heads: usize,
    value_dim: usize,
    softmax_scale: f32,
}

impl Mla<'_> {
    fn groups(&self) -> impl Iterator<Item = Group> {
        let (isa, heads) = (self.isa, self.heads);
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = next;
            let width = lane_width(isa, heads - first);
            let lanes = width.min(heads - first);
            next += lanes;
            (lanes > 0).then_some(Group { first, lanes, width })
        })
    }

    /// One row on this thread.
    fn row(&self, t: usize, seen: &[u32], out: &mut [f32], lse: &mut [f32]) {
        for group in self.groups() {
            let q_t = self.queries(t, group);
            let mut memory = self.state(group);
            let mut part_memory = if seen.len() > SPLIT { self.state(group) } else { Scratch::new(0) };
            let mut state = Softmax::of(&mut memory, group.width, group.lanes);
            for (i, seen) in seen.chunks(SPLIT).enumerate() {
                if i == 0 {
                    self.part(&q_t, seen, &mut state);
                } else {
                    let mut part = Softmax::of(&mut part_memory, group.width, group.lanes);
                    self.part(&q_t, seen, &mut part);
                    state.merge(&part);
                }
            }
            if !seen.is_empty() {
                self.finish(group, &state, out, lse);
            }
        }
    }

    /// Few rows with their parts spread over threads.
    fn parts(&self, seen: &Seen, out: &mut [f32], lse: &mut [f32]) {
        for t in 0..seen.rows.len() {
            let seen = seen.of(t);
            let groups = self.groups().map(|group| (group, self.queries(t, group))).collect::<Vec<_>>();
            let parts = groups.iter().flat_map(|(group, q_t)| seen.chunks(SPLIT).map(move |seen| (*group, q_t, seen)));
            let run = |(group, q_t, seen): (Group, &Scratch, &[u32])| {
                let mut memory = self.state(group);
                self.part(q_t, seen, &mut Softmax::of(&mut memory, group.width, group.lanes));
                memory
            };
            let mut states = parts.collect::<Vec<_>>().into_par_iter().map(run).collect::<Vec<_>>().into_iter();
            for (group, _) in &groups {
                let parts = seen.len().div_ceil(SPLIT);
                let Some(mut memory) = states.next() else { break };
                let mut state = Softmax::of(&mut memory, group.width, group.lanes);
                for mut part in states.by_ref().take(parts - 1) {
                    state.merge(&Softmax::of(&mut part, group.width, group.lanes));
                }
                self.finish(*group, &state, &mut out[t * self.heads * self.value_dim..], &mut lse[t * self.heads..]);
            }
        }
    }

    /// The queries of a group of heads as `[D, width]`.
    fn queries(&self, t: usize, group: Group) -> Scratch {
        let mut q_t = Scratch::new(self.q.width() * group.width);
        self.q.transpose(t * self.heads + group.first, 1, group.lanes, group.width, &mut q_t);
        q_t
    }

    /// Memory for the state of a group of heads.
    fn state(&self, group: Group) -> Scratch {
        Scratch::new(Softmax::len(group.width, self.value_dim))
    }

    /// Attention over some keys, from an empty state on.
    fn part(&self, q_t: &[f32], seen: &[u32], state: &mut Softmax) {
        state.clear();
        let dim = self.kv.width();
        let stride = padded(dim);
        let mut rows = Scratch::new(TILE * stride);
        for seen in seen.chunks(TILE) {
            for (row, &slot) in rows.chunks_exact_mut(stride.max(1)).zip(seen) {
                self.kv.copy(slot as usize, row);
            }
            let (count, visible) = (seen.len(), None);
            let tile =
                Tile { count, dim, keys: &rows, key_stride: stride, values: &rows, value_stride: stride, visible };
            step(self.isa, q_t, self.softmax_scale, tile, state);
        }
    }

    /// Writes the results of a group of heads of a row.
    fn finish(&self, group: Group, state: &Softmax, out: &mut [f32], lse: &mut [f32]) {
        for lane in 0..group.lanes {
            let head = group.first + lane;
            lse[head] = state.finish(lane, &mut out[head * self.value_dim..][..self.value_dim]);
        }
    }
}
