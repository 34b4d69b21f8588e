//! `mqa_logits` on CPU: a page of keys is laid out by columns for a block of query rows.

use candle::{Result, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use super::score::{Keys, Row, by_columns, rows_suffice, score};
use crate::ops::cpu::PARALLEL_WORK;
use crate::ops::cpu::rows::{Rows, readable};
use crate::ops::cpu::scratch::Scratch;
use crate::ops::cpu::simd::{Isa, isa};
use crate::ops::fp8::Fp8Row;
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};

/// Query rows that share a page of keys while it is in the cache.
pub(crate) const ROW_BLOCK: usize = 8;
/// Elements of keys that are laid out by columns at a time, at least a page.
const COLUMNS: usize = 1 << 13;
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
    let (_, heads, dim) = q.dims3()?;
    let (q, index_k, weights) = (readable(q)?, readable(index_k)?, readable(weights)?);
    let ((q, q_layout), (keys, keys_layout), (weights, weights_layout)) =
        (q.storage_and_layout(), index_k.storage_and_layout(), weights.storage_and_layout());
    body(&Scorer {
        isa: isa(),
        heads,
        q: Rows::new(&q, q_layout)?,
        keys: Rows::keys(&keys, keys_layout, Fp8Row { quantized: dim, plain: 0 })?,
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
        let (heads, dim) = (self.heads, self.q.width());
        let mut q = Scratch::new(rows * heads * dim);
        let mut weights = Scratch::new(rows * heads);
        for i in 0..rows {
            self.weights.copy(row + i, &mut weights[i * heads..]);
            for head in 0..heads {
                self.q.copy((row + i) * heads + head, &mut q[(i * heads + head) * dim..]);
            }
        }
        let seen = span.start + row - span.tokens.start + 1;
        let last = (seen + rows - 1).min(first + stride);
        let mut scratch =
            PageScratch { converted: Scratch::new(PAGE_SIZE * dim), whole: Scratch::new(PAGE_SIZE * dim) };
        let mut scores = [0.; PAGE_SIZE];
        if rows_suffice(rows, heads, dim) {
            let row = Row { q: &q, weights: &weights };
            for page in (first..last).step_by(PAGE_SIZE) {
                let count = PAGE_SIZE.min(last - page);
                let (data, stride) = self.page(span.slot(page), count, &mut scratch);
                score(self.isa, row, Keys::Rows { data, stride, dim }, &mut scores);
                out[page - first..][..count].copy_from_slice(&scores[..count]);
            }
            return;
        }
        // Several small pages at a time: what was just written takes a while to be read.
        let page_len = (PAGE_SIZE * dim).max(1);
        let mut columns = Scratch::new((COLUMNS / page_len).max(1) * page_len);
        for pages in (first..last).step_by(columns.len() / page_len * PAGE_SIZE) {
            for (page, columns) in (pages..last).step_by(PAGE_SIZE).zip(columns.chunks_exact_mut(page_len)) {
                let (keys, stride) = self.page(span.slot(page), PAGE_SIZE.min(last - page), &mut scratch);
                by_columns(self.isa, keys, stride, &mut columns[..PAGE_SIZE * dim]);
            }
            for i in 0..rows {
                let row = Row { q: &q[i * heads * dim..][..heads * dim], weights: &weights[i * heads..][..heads] };
                let seen = last.min(seen + i);
                for (page, columns) in (pages..seen).step_by(PAGE_SIZE).zip(columns.chunks_exact(page_len)) {
                    score(self.isa, row, Keys::Columns(columns), &mut scores);
                    let count = PAGE_SIZE.min(seen - page);
                    out[i * stride + page - first..][..count].copy_from_slice(&scores[..count]);
                }
            }
        }
    }

    /// The `count` keys from `slot` on and their stride, followed by zeros where a page has more.
    fn page<'s>(&'s self, slot: usize, count: usize, scratch: &'s mut PageScratch) -> (&'s [f32], usize) {
        let dim = self.q.width();
        let (keys, stride) = self.keys.block(slot, count, &mut scratch.converted);
        if count == PAGE_SIZE {
            return (keys, stride);
        }
        for (key, whole) in scratch.whole.chunks_exact_mut(dim.max(1)).enumerate() {
            match keys.get(key * stride..key * stride + dim).filter(|_| key < count) {
                Some(key) => whole.copy_from_slice(key),
                None => whole.fill(0.),
            }
        }
        (&scratch.whole, dim)
    }
}

/// Keys of a page as `f32`, and those of a page that is not full.
struct PageScratch {
    converted: Scratch,
    whole: Scratch,
}
