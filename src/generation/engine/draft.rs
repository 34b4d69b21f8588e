//! Guessing tokens with the MTP layer.

use std::ops::Range;
use std::time::Instant;

use candle_core::Tensor;

use super::super::error::Result;
use super::super::token_model::TokenModel;
use super::step::{Work, expect_largest, expect_rows, gather};
use super::{Engine, Sequence};
use crate::ops;
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};

/// The latest guess of each sequence that drafts.
pub(super) struct Drafting {
    /// Index into the step's work, for each row of `hidden`.
    work: Vec<usize>,
    /// The MTP layer's output `[n, hidden]` that the latest guesses came from.
    hidden: Option<Tensor>,
}

impl<M: TokenModel> Engine<M> {
    /// Brings the MTP layer's rows up to the main layers' and makes the first guess of every sequence that wants one.
    ///
    /// Prompts and answers are treated alike: at this point the token after every cached one is known.
    pub(super) fn first_drafts(&mut self, plan: &mut [Work]) -> Result<Drafting> {
        let mut layout = BatchLayout::default();
        let mut next_ids = Vec::new();
        let mut hidden = Vec::new();
        let mut last_row = vec![None; self.running.len()];
        let mut prompt_rows = 0;
        let began = Instant::now();
        for (at, sequence) in self.running.iter().enumerate() {
            let Some(pending) = &sequence.pending else { continue };
            let start = sequence.cached - pending.dim(0)?;
            next_ids.extend_from_slice(&sequence.answer.ids[start + 1..=sequence.cached]);
            let prefill = sequence.prefill(start);
            push_span(&mut layout, start, sequence.cached - start, &sequence.block_table, prefill);
            hidden.push(pending.clone());
            prompt_rows += sequence.answer.usage.prompt_tokens.min(sequence.cached).saturating_sub(start);
            last_row[at] = Some(next_ids.len() - 1);
        }
        let mut drafting = Drafting { work: Vec::new(), hidden: None };
        if !hidden.is_empty() {
            let hidden = ops::join_rows(&hidden)?;
            let mut rows = Vec::new();
            for (index, work) in plan.iter().enumerate().filter(|(_, work)| work.max_drafts > 0) {
                if let Some(row) = last_row[work.sequence] {
                    rows.push(row);
                    drafting.work.push(index);
                }
            }
            let hidden = self.guess(&next_ids, &hidden, &layout, &rows, &drafting.work, plan)?;
            if !rows.is_empty() {
                drafting.hidden = Some(gather(&hidden, &rows)?);
            }
            for sequence in self.running.iter_mut().filter(|sequence| sequence.pending.is_some()) {
                sequence.pending = None;
                sequence.whole = sequence.cached;
            }
            self.stats.add_time(began.elapsed().as_secs_f64(), prompt_rows, next_ids.len() - prompt_rows);
        }
        Ok(drafting)
    }

    /// Makes the further guesses, each from the MTP layer's own output at the guess before. The step's tokens must
    /// have their slots: `layout` is that of the pass that will verify.
    pub(super) fn further_drafts(
        &mut self,
        plan: &mut [Work],
        mut drafting: Drafting,
        layout: &BatchLayout,
    ) -> Result<()> {
        while let Some(hidden) = drafting.hidden.take() {
            let wants_more = |&row: &usize| {
                let work: &Work = &plan[drafting.work[row]];
                work.drafts.len() < work.max_drafts
            };
            let rows: Vec<usize> = (0..drafting.work.len()).filter(wants_more).collect();
            if rows.is_empty() {
                break;
            }
            let hidden = gather(&hidden, &rows)?;
            drafting.work = rows.iter().map(|&row| drafting.work[row]).collect();
            let mut positions = BatchLayout::default();
            let mut next_ids = Vec::new();
            for &index in &drafting.work {
                let work = &plan[index];
                next_ids.extend(work.drafts.last());
                // The first guess stands one position after the token that is being fed, and takes that one's slot.
                let start = layout.spans[index].start + work.drafts.len() - 1;
                push_span(&mut positions, start, 1, &layout.spans[index].block_table, None);
            }
            let all: Vec<usize> = (0..next_ids.len()).collect();
            let hidden = self.guess(&next_ids, &hidden, &positions, &all, &drafting.work, plan)?;
            drafting.hidden = Some(hidden);
        }
        Ok(())
    }

    /// Runs the MTP layer and adds the most probable token of each of `rows` to the drafts of its work. Returns the layer's
    /// output `[T, hidden]`.
    fn guess(
        &mut self,
        next_ids: &[u32],
        hidden: &Tensor,
        layout: &BatchLayout,
        rows: &[usize],
        work: &[usize],
        plan: &mut [Work],
    ) -> Result<Tensor> {
        let in_one =
            if rows.is_empty() { None } else { self.model.forward_mtp_largest(next_ids, hidden, layout, rows)? };
        let (hidden, largest) = match in_one {
            Some((hidden, largest)) => {
                expect_rows("MTP hidden states", &hidden, next_ids.len())?;
                (hidden, largest)
            }
            None => {
                let hidden = self.model.forward_mtp(next_ids, hidden, layout)?;
                expect_rows("MTP hidden states", &hidden, next_ids.len())?;
                let largest =
                    if rows.is_empty() { Vec::new() } else { self.model.mtp_argmax(&gather(&hidden, rows)?)? };
                (hidden, largest)
            }
        };
        let largest = expect_largest("largest MTP logits", largest, rows.len(), self.model.vocab_size())?;
        for (&index, largest) in work.iter().zip(largest) {
            plan[index].drafts.push(largest.id);
        }
        Ok(hidden)
    }

    /// The hidden states that the MTP layer has to see next: rows `start..start + rows`, if the sequence may still
    /// draft.
    pub(super) fn keep_hidden(
        &self,
        sequence: &Sequence<M::Sequence>,
        hidden: &Tensor,
        start: usize,
        rows: usize,
    ) -> Result<Option<Tensor>> {
        if self.options.draft_tokens == 0 || sequence.answer.room() < 2 {
            return Ok(None);
        }
        Ok(Some(hidden.narrow(0, start, rows)?))
    }
}

/// Appends a span of `rows` positions from `start` on, a part of `prefill` or a step of decoding.
fn push_span(layout: &mut BatchLayout, start: usize, rows: usize, block_table: &[u32], prefill: Option<Range<usize>>) {
    let pages = (start + rows).div_ceil(PAGE_SIZE).min(block_table.len());
    let first = layout.tokens();
    let block_table = block_table[..pages].to_vec();
    layout.spans.push(Span { tokens: first..first + rows, start, block_table, prefill });
}
