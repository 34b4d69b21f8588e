//! `mqa_logits` on CPU: index heads in SIMD lanes, a page of keys shared by a block of query rows.

use candle::{Result, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use crate::ops::attention::PARALLEL_WORK;
use crate::ops::attention::rows::{Rows, readable};
use crate::ops::attention::scratch::Scratch;
use crate::ops::attention::tile::{dots, lane_width};
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use crate::ops::simd::{Isa, isa, mul_add, simd_kernel};

/// Query rows that share a page of keys while it is in the cache.
pub(crate) const ROW_BLOCK: usize = 8;
/// Keys of a work item where there are too few rows to give every thread some.
const KEY_BLOCK: usize = 16 * PAGE_SIZE;

pub(super) fn mqa_logits(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    let (tokens, columns) = (q.dim(0)?, layout.max_context());
    let mut logits = vec![f32::NEG_INFINITY; tokens * columns];
    with_scorer(q, index_k, weights, |scorer| {
        let mut rest = logits.as_mut_slice();
        let mut items = Vec::new();
        let split_keys = scorer.split_keys(layout);
        for span in &layout.spans {
            let block = if split_keys { 1 } else { ROW_BLOCK };
            for row in span.tokens.clone().step_by(block) {
                let rows = block.min(span.tokens.end - row);
                let (out, later) = std::mem::take(&mut rest).split_at_mut(rows * columns);
                rest = later;
                if split_keys {
                    let seen = span.start + row - span.tokens.start + 1;
                    let parts = out[..seen].chunks_mut(KEY_BLOCK).enumerate();
                    items.extend(parts.map(|(i, out)| (span, row, 1, i * KEY_BLOCK, out)));
                } else {
                    items.push((span, row, rows, 0, out));
                }
            }
        }
        let run = |(span, row, rows, first, out): (&Span, usize, usize, usize, &mut [f32])| {
            let stride = if split_keys { out.len() } else { columns };
            scorer.block(span, row, rows, first, out, stride);
        };
        if scorer.parallel(layout) {
            items.into_par_iter().for_each(run);
        } else {
            items.into_iter().for_each(run);
        }
        Ok(())
    })?;
    Tensor::from_vec(logits, (tokens, columns), q.device())
}

/// Calls `body` with a [`Scorer`] of these tensors.
pub(crate) fn with_scorer<R>(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    body: impl FnOnce(&Scorer) -> Result<R>,
) -> Result<R> {
    let heads = q.dim(1)?;
    let (q, index_k, weights) = (readable(q)?, readable(index_k)?, readable(weights)?);
    let ((q, q_layout), (keys, keys_layout), (weights, weights_layout)) =
        (q.storage_and_layout(), index_k.storage_and_layout(), weights.storage_and_layout());
    body(&Scorer {
        isa: isa(),
        heads,
        q: Rows::new(&q, q_layout)?,
        keys: Rows::new(&keys, keys_layout)?,
        weights: Rows::new(&weights, weights_layout)?,
    })
}

/// The tensors of a call.
pub(crate) struct Scorer<'a> {
    pub(crate) isa: Isa,
    heads: usize,
    q: Rows<'a>,
    keys: Rows<'a>,
    weights: Rows<'a>,
}

impl Scorer<'_> {
    /// Whether the work is worth more than one thread.
    pub(crate) fn parallel(&self, layout: &BatchLayout) -> bool {
        let pairs = layout.spans.iter().map(|span| span.tokens.len().saturating_mul(span.context()));
        let pairs = pairs.fold(0usize, usize::saturating_add);
        rayon::current_num_threads() > 1 && pairs.saturating_mul(self.heads * self.q.width()) >= PARALLEL_WORK
    }

    /// Whether the work is worth several threads and has too few rows for them.
    pub(crate) fn split_keys(&self, layout: &BatchLayout) -> bool {
        layout.tokens() < 2 * ROW_BLOCK * rayon::current_num_threads() && self.parallel(layout)
    }

    /// Scores of the positions from `first` on (a multiple of the page size) for the rows `row..row + rows` of a span:
    /// row `i` writes those it sees to `out[i * stride..]`, at most `stride`, and leaves the rest alone.
    pub(crate) fn block(&self, span: &Span, row: usize, rows: usize, first: usize, out: &mut [f32], stride: usize) {
        let dim = self.q.width();
        let mut groups = Vec::new();
        let (mut head, mut lanes_in_all) = (0, 0);
        while head < self.heads {
            let width = lane_width(self.isa, self.heads - head);
            groups.push((head, width));
            head += width;
            lanes_in_all += width;
        }
        // Per row: queries [dim, width] of each group, then the weights of each group.
        let row_len = lanes_in_all * (dim + 1);
        let mut prepared = Scratch::new(rows * row_len);
        let mut weights = Scratch::new(self.heads);
        for (i, prepared) in prepared.chunks_exact_mut(row_len.max(1)).enumerate() {
            self.weights.copy(row + i, &mut weights);
            let mut at = 0;
            for &(head, width) in &groups {
                let lanes = width.min(self.heads - head);
                let (queries, lane_weights) = prepared[at..at + (dim + 1) * width].split_at_mut(dim * width);
                self.q.transpose((row + i) * self.heads + head, 1, lanes, width, queries);
                lane_weights[..lanes].copy_from_slice(&weights[head..head + lanes]);
                lane_weights[lanes..].fill(0.);
                at += (dim + 1) * width;
            }
        }
        let seen = span.start + row - span.tokens.start + 1;
        let last = (seen + rows - 1).min(first + stride);
        let mut converted = Scratch::new(PAGE_SIZE * dim);
        for page in (first..last).step_by(PAGE_SIZE) {
            let slot = span.slot(page);
            let (keys, key_stride) = self.keys.block(slot, PAGE_SIZE.min(last - page), &mut converted);
            for i in 0..rows {
                let count = PAGE_SIZE.min(last.min(seen + i).saturating_sub(page));
                if count == 0 {
                    continue;
                }
                let out = &mut out[i * stride + page - first..][..count];
                out.fill(0.);
                let mut at = i * row_len;
                for &(_, width) in &groups {
                    let prepared = &prepared[at..at + (dim + 1) * width];
                    match (self.isa, width) {
                        (Isa::Avx512, 32) => score_32_wide(self.isa, prepared, keys, key_stride, out),
                        (Isa::Avx512, 16) => score_16_wide(self.isa, prepared, keys, key_stride, out),
                        (_, 16) => score_16(self.isa, prepared, keys, key_stride, out),
                        _ => score_8(self.isa, prepared, keys, key_stride, out),
                    }
                    at += (dim + 1) * width;
                }
            }
        }
    }
}

simd_kernel! { fn score_32_wide(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) = body_32_wide }
simd_kernel! { fn score_16_wide(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) = body_16_wide }
simd_kernel! { fn score_16(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) = body_16 }
simd_kernel! { fn score_8(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) = body_8 }

#[inline(always)]
fn body_32_wide<const FMA: bool>(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) {
    body::<FMA, 32, 8>(q, keys, stride, out);
}

#[inline(always)]
fn body_16_wide<const FMA: bool>(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) {
    body::<FMA, 16, 8>(q, keys, stride, out);
}

#[inline(always)]
fn body_16<const FMA: bool>(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) {
    body::<FMA, 16, 4>(q, keys, stride, out);
}

#[inline(always)]
fn body_8<const FMA: bool>(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) {
    body::<FMA, 8, 8>(q, keys, stride, out);
}

/// Adds the scores of one group of `L` heads, `q: [dim + 1, L]` with the weights last, to `out`.
#[inline(always)]
fn body<const FMA: bool, const L: usize, const KEYS: usize>(q: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) {
    let Some((weights, q_t)) = q.as_chunks::<L>().0.split_last() else { return };
    let mut blocks = out.chunks_exact_mut(KEYS);
    let mut key = 0;
    for out in blocks.by_ref() {
        let dots = dots::<FMA, L, KEYS>(q_t, &keys[key * stride..], stride);
        for (out, dots) in out.iter_mut().zip(&dots) {
            *out += weigh::<FMA, L>(dots, weights);
        }
        key += KEYS;
    }
    for out in blocks.into_remainder() {
        let [dots] = dots::<FMA, L, 1>(q_t, &keys[key * stride..], stride);
        *out += weigh::<FMA, L>(&dots, weights);
        key += 1;
    }
}

/// `sum of weights * relu(dots)`; lanes are added in a fixed tree.
#[inline(always)]
fn weigh<const FMA: bool, const L: usize>(dots: &[f32; L], weights: &[f32; L]) -> f32 {
    let mut sums = [0f32; 8];
    for (dots, weights) in dots.as_chunks::<8>().0.iter().zip(weights.as_chunks::<8>().0) {
        for lane in 0..8 {
            // A comparison that keeps NaN, which the selection reports.
            let relu = if dots[lane] < 0. { 0. } else { dots[lane] };
            sums[lane] = mul_add::<FMA>(relu, weights[lane], sums[lane]);
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
