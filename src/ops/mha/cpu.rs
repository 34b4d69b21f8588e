//! `mha` on CPU: query rows in SIMD lanes, blocks of rows against tiles of keys, online softmax.

use candle::{Result, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use crate::ops::cpu::PARALLEL_WORK;
use crate::ops::cpu::rows::{Rows, readable};
use crate::ops::cpu::scratch::Scratch;
use crate::ops::cpu::simd::{Isa, isa};
use crate::ops::cpu::tile::{Softmax, TILE, Tile, lane_width, padded, step};
use crate::ops::layout::BatchLayout;

/// Query rows that share a copied tile of keys.
const ROW_BLOCK: usize = 128;
/// Work items whose results wait in memory before they are written to their places.
const WAVE: usize = 1024;

pub(super) fn mha(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    layout: &BatchLayout,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let ((tokens, heads, dim), value_dim) = (q.dims3()?, v.dim(2)?);
    let (q_source, k_source, v_source) = (readable(q)?, readable(k)?, readable(v)?);
    let ((q_storage, q_layout), (k_storage, k_layout), (v_storage, v_layout)) =
        (q_source.storage_and_layout(), k_source.storage_and_layout(), v_source.storage_and_layout());
    let mha = Mha {
        isa: isa(),
        q: Rows::new(&q_storage, q_layout)?,
        k: Rows::new(&k_storage, k_layout)?,
        v: Rows::new(&v_storage, v_layout)?,
        heads,
        softmax_scale: softmax_scale as f32,
    };
    let (mut items, mut base, mut work) = (Vec::new(), 0, 0usize);
    for span in &layout.spans {
        for row in span.tokens.clone().step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(span.tokens.end - row);
            let seen = span.start + row - span.tokens.start + 1;
            let item = |head| Item { head, row, rows, base, seen };
            items.extend((0..heads).map(item));
            work = work.saturating_add((seen + rows).saturating_mul(rows * heads * (dim + value_dim)));
        }
        base += span.context();
    }
    let mut out = vec![0f32; tokens * heads * value_dim];
    let mut lse = vec![0f32; tokens * heads];
    let mut place = |item: &Item, (block_out, block_lse): (Scratch, Scratch)| {
        for i in 0..item.rows {
            let at = (item.row + i) * heads + item.head;
            out[at * value_dim..][..value_dim].copy_from_slice(&block_out[i * value_dim..][..value_dim]);
            lse[at] = block_lse[i];
        }
    };
    if rayon::current_num_threads() > 1 && work >= PARALLEL_WORK {
        for wave in items.chunks(WAVE) {
            let results = wave.par_iter().with_max_len(1).map(|item| mha.block(item)).collect::<Vec<_>>();
            wave.iter().zip(results).for_each(|(item, result)| place(item, result));
        }
    } else {
        items.iter().for_each(|item| place(item, mha.block(item)));
    }
    let out = Tensor::from_vec(out, (tokens, heads, value_dim), q.device())?.to_dtype(q.dtype())?;
    Ok((out, Tensor::from_vec(lse, (tokens, heads), q.device())?))
}

/// Rows of one head.
struct Item {
    head: usize,
    row: usize,
    rows: usize,
    /// Row of `k` and `v` that holds the sequence's position 0.
    base: usize,
    /// Positions that the first row sees.
    seen: usize,
}

struct Mha<'a> {
    isa: Isa,
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    heads: usize,
    softmax_scale: f32,
}

/// Query rows that share SIMD lanes, with their queries `[dim, width]` and the memory of their state.
struct Group {
    first: usize,
    lanes: usize,
    width: usize,
    q_t: Scratch,
    state: Scratch,
}

impl Mha<'_> {
    /// `([rows, V], lse [rows])` of an item.
    fn block(&self, item: &Item) -> (Scratch, Scratch) {
        let (dim, value_dim) = (self.q.width(), self.v.width());
        let mut groups = self.groups(item);
        let (key_stride, value_stride) = (dim, padded(value_dim));
        let mut keys = Scratch::new(TILE * key_stride);
        let mut values = Scratch::new(TILE * value_stride);
        let last = item.seen + item.rows - 1;
        for start in (0..last).step_by(TILE) {
            for j in 0..TILE.min(last - start) {
                let row = (item.base + start + j) * self.heads + item.head;
                self.k.copy(row, &mut keys[j * key_stride..]);
                self.v.copy(row, &mut values[j * value_stride..]);
            }
            for group in &mut groups {
                let sees = |lane: usize| (item.seen + group.first + lane).saturating_sub(start).min(TILE);
                let mut visible = [TILE; 32];
                for (lane, visible) in visible.iter_mut().enumerate().take(group.lanes) {
                    *visible = sees(lane);
                }
                let count = sees(group.lanes - 1);
                if count == 0 {
                    continue;
                }
                let visible = if sees(0) < count { Some(&visible[..group.width]) } else { None };
                let tile = Tile { count, dim, keys: &keys, key_stride, values: &values, value_stride, visible };
                let mut state = Softmax::of(&mut group.state, group.width, group.lanes);
                step(self.isa, &group.q_t, self.softmax_scale, tile, &mut state);
            }
        }
        let (mut out, mut lse) = (Scratch::new(item.rows * value_dim), Scratch::new(item.rows));
        for group in &mut groups {
            let state = Softmax::of(&mut group.state, group.width, group.lanes);
            for lane in 0..group.lanes {
                let row = group.first + lane;
                lse[row] = state.finish(lane, &mut out[row * value_dim..][..value_dim]);
            }
        }
        (out, lse)
    }

    /// The item's rows in groups, none of which has seen a key.
    fn groups(&self, item: &Item) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut first = 0;
        while first < item.rows {
            let width = lane_width(self.isa, item.rows - first);
            let lanes = width.min(item.rows - first);
            let mut q_t = Scratch::new(self.q.width() * width);
            self.q.transpose((item.row + first) * self.heads + item.head, self.heads, lanes, width, &mut q_t);
            let mut state = Scratch::new(Softmax::len(width, self.v.width()));
            Softmax::of(&mut state, width, lanes).clear();
            groups.push(Group { first, lanes, width, q_t, state });
            first += lanes;
        }
        groups
    }
}
