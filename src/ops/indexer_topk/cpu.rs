//! `indexer_topk` on CPU: scores a block of rows, selects, forgets the scores.

use candle::{Result, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use crate::ops::cpu::scratch::Scratch;
use crate::ops::layout::{BatchLayout, Span};
use crate::ops::mqa_logits::cpu::{ROW_BLOCK, Scorer, with_scorer};
use crate::ops::mqa_logits::mqa_logits;
use crate::ops::topk::cpu::{nan, select};

pub(super) fn indexer_topk(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    k: usize,
) -> Result<Tensor> {
    let tokens = q.dim(0)?;
    let mut indices = vec![-1i32; tokens * k];
    if k > 0 {
        select_rows(q, index_k, weights, layout, k, &mut indices)?;
    }
    Tensor::from_vec(indices, (tokens, k), q.device())
}

fn select_rows(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    k: usize,
    indices: &mut [i32],
) -> Result<()> {
    with_scorer(q, index_k, weights, |scorer| {
        let mut rest = indices;
        let mut items = Vec::new();
        for span in &layout.spans {
            // Rows that see no more than k positions take them all, without a score.
            let whole = k.saturating_sub(span.start).min(span.tokens.len());
            let (out, later) = std::mem::take(&mut rest).split_at_mut(span.tokens.len() * k);
            rest = later;
            let (unscored, scored) = out.split_at_mut(whole * k);
            let slots = span.context_slots().take(if whole == 0 { 0 } else { span.start + whole });
            let slots = slots.map(|slot| slot as i32).collect::<Vec<_>>();
            for (i, out) in unscored.chunks_exact_mut(k).enumerate() {
                out[..=span.start + i].copy_from_slice(&slots[..=span.start + i]);
            }
            let first = span.tokens.start + whole;
            for (i, out) in scored.chunks_mut(ROW_BLOCK * k).enumerate() {
                items.push((span, first + i * ROW_BLOCK, out));
            }
        }
        let run = |(span, row, out)| block(scorer, span, row, k, out);
        if scorer.split_keys(layout) {
            // Few rows over long contexts: the scores of one block after the other, on all threads.
            items.into_iter().try_for_each(|(span, row, out)| {
                let rows = out.len() / k;
                let start = span.start + row - span.tokens.start;
                let chunk = Span { tokens: 0..rows, start, block_table: span.block_table.clone(), prefill: None };
                let (q, weights) = (q.narrow(0, row, rows)?, weights.narrow(0, row, rows)?);
                let logits = mqa_logits(&q, index_k, &weights, &BatchLayout { spans: vec![chunk] })?;
                let logits = logits.flatten_all()?.to_vec1::<f32>()?;
                select_block(scorer, span, row, k, &logits, out)
            })
        } else if scorer.parallel(layout) {
            items.into_par_iter().map(run).collect::<Vec<_>>().into_iter().collect()
        } else {
            items.into_iter().try_for_each(run)
        }
    })
}

/// Scores and selects for the rows from `row` on, `out: [rows, k]`, on this thread.
fn block(scorer: &Scorer, span: &Span, row: usize, k: usize, out: &mut [i32]) -> Result<()> {
    let rows = out.len() / k;
    let columns = span.start + row - span.tokens.start + rows;
    let mut logits = Scratch::new(rows * columns);
    scorer.block(span, row, rows, 0, &mut logits, columns);
    select_block(scorer, span, row, k, &logits, out)
}

/// Selects for the rows from `row` on by their `logits: [rows, columns]`.
fn select_block(scorer: &Scorer, span: &Span, row: usize, k: usize, logits: &[f32], out: &mut [i32]) -> Result<()> {
    let rows = out.len() / k;
    let seen = span.start + row - span.tokens.start + 1;
    let columns = seen + rows - 1;
    for (i, (out, logits)) in out.chunks_exact_mut(k).zip(logits.chunks_exact(columns)).enumerate() {
        let chosen = select(scorer.isa, &logits[..seen + i], k, out);
        let chosen = chosen.map_err(|position| nan("indexer_topk: score", row + i, position))?;
        for out in &mut out[..chosen] {
            *out = span.slot(*out as usize) as i32;
        }
    }
    Ok(())
}
