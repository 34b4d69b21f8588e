//! Where a flattened batch's tokens sit in their sequences, and where their keys lie in the cache.

use std::ops::Range;

use candle::Result;
use candle_core as candle;

/// Token slots in one page of the cache.
pub const PAGE_SIZE: usize = 64;

/// The new tokens of one sequence inside a flattened batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of the batch that belong to this sequence.
    pub tokens: Range<usize>,
    /// Position in the sequence of the first of these tokens (= tokens already cached).
    pub start: usize,
    /// Pages of the sequence in order; position `p` lies in slot `block_table[p / 64] * 64 + p % 64`.
    pub block_table: Vec<u32>,
    /// The positions that are being prefilled as a whole, of which these tokens are a part; `None` for a decode step.
    ///
    /// The model chooses between equivalent forms of attention by this run and not by how many of its tokens are in
    /// the batch, so that the numbers do not depend on how the run was cut.
    pub prefill: Option<Range<usize>>,
}

impl Span {
    /// Tokens of the sequence once this batch is in the cache.
    pub fn context(&self) -> usize {
        self.start.saturating_add(self.tokens.len())
    }

    /// The slot of a position; `usize::MAX`, which every op refuses, where the block table ends before it.
    #[inline]
    pub fn slot(&self, position: usize) -> usize {
        match self.block_table.get(position / PAGE_SIZE) {
            Some(&page) => (page as usize).saturating_mul(PAGE_SIZE).saturating_add(position % PAGE_SIZE),
            None => usize::MAX,
        }
    }

    /// The slots of the sequence's positions `0..context()`, in order.
    pub fn context_slots(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.context()).map(|position| self.slot(position))
    }

    /// The position that lies in a slot, if the slot is this sequence's.
    pub fn position(&self, slot: usize) -> Option<usize> {
        let page = self.block_table.iter().position(|&page| page as usize == slot / PAGE_SIZE)?;
        Some(page * PAGE_SIZE + slot % PAGE_SIZE)
    }
}

/// A flattened batch: rows `[T]` of several sequences, one span after the other, without padding.
///
/// A query row sees the positions `0..=` its own of its own sequence, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchLayout {
    /// The sequences, in the order of their rows; together they cover `0..T`.
    pub spans: Vec<Span>,
}

impl BatchLayout {
    /// Rows of the batch, `T`.
    pub fn tokens(&self) -> usize {
        self.spans.last().map_or(0, |span| span.tokens.end)
    }

    /// The longest context among the sequences.
    pub fn max_context(&self) -> usize {
        self.spans.iter().map(Span::context).max().unwrap_or(0)
    }

    /// Position of every row, `[T]`.
    pub fn positions(&self) -> Vec<u32> {
        self.spans.iter().flat_map(|span| span.start as u32..span.context() as u32).collect()
    }

    /// Slot of every row, `[T]`; `u32::MAX` where a block table ends before the row's position.
    pub fn slots(&self) -> Vec<u32> {
        let slot = |span: &Span, position| u32::try_from(span.slot(position)).unwrap_or(u32::MAX);
        self.spans.iter().flat_map(|span| (span.start..span.context()).map(move |p| slot(span, p))).collect()
    }

    /// Sum of the contexts: rows of the keys that lie one sequence after the other, as `mha` takes them.
    pub fn total_context(&self) -> usize {
        self.spans.iter().fold(0usize, |sum, span| sum.saturating_add(span.context()))
    }

    /// Checks that the spans cover the rows `0..tokens` one after the other.
    ///
    /// # Errors
    /// Names the span that leaves a gap, overlaps, runs backwards, is too long for 31-bit positions or is not covered by
    /// its prefill.
    pub fn check_rows(&self, tokens: usize) -> Result<()> {
        let mut next = 0;
        for (i, span) in self.spans.iter().enumerate() {
            if span.tokens.start != next || span.tokens.end < next {
                candle::bail!("layout: span {i} covers rows {:?}, expected it to start at row {next}", span.tokens);
            }
            if let Some(run) = span.prefill.as_ref().filter(|run| run.start > span.start || run.end < span.context()) {
                let rows = span.start..span.context();
                candle::bail!("layout: span {i} has the positions {rows:?}, which its prefill {run:?} does not cover");
            }
            if span.context() > i32::MAX as usize {
                candle::bail!("layout: span {i} has a context of {}, the limit is {}", span.context(), i32::MAX);
            }
            next = span.tokens.end;
        }
        if next != tokens {
            candle::bail!("layout: the spans cover {next} rows, expected {tokens}");
        }
        Ok(())
    }

    /// [`Self::check_rows`], and that every position of every context lies in one of `slots` cache slots.
    ///
    /// # Errors
    /// Names the span whose block table is too short or points outside the cache.
    pub fn check(&self, tokens: usize, slots: usize) -> Result<()> {
        self.check_rows(tokens)?;
        for (i, span) in self.spans.iter().enumerate() {
            let context = span.context();
            let pages = context.div_ceil(PAGE_SIZE);
            if span.block_table.len() < pages {
                let have = span.block_table.len();
                candle::bail!("layout: span {i} has a context of {context}, its block table {have} of {pages} pages");
            }
            for page in 0..pages {
                let last = span.slot((page * PAGE_SIZE + PAGE_SIZE - 1).min(context - 1));
                if last >= slots {
                    candle::bail!("layout: page {page} of span {i} reaches slot {last}, the cache has {slots}");
                }
            }
        }
        Ok(())
    }

    /// The layout of `rows` rows of the batch from row `row` on, with rows counted from 0.
    #[cfg(feature = "cuda")]
    pub(crate) fn part(&self, row: usize, rows: usize) -> Self {
        let spans = self.spans.iter().filter_map(|span| {
            let (first, last) = (span.tokens.start.max(row), span.tokens.end.min(row + rows));
            (first < last).then(|| Span {
                tokens: first - row..last - row,
                start: span.start + first - span.tokens.start,
                block_table: span.block_table.clone(),
                prefill: None,
            })
        });
        Self { spans: spans.collect() }
    }

    /// The layout of one uncached sequence of `tokens` rows whose keys lie in slots `0..tokens`.
    pub fn single(tokens: usize) -> Self {
        Self::uncached(&[tokens])
    }

    /// The layout of whole uncached sequences of these lengths, each over pages of its own, in order.
    pub fn uncached(lengths: &[usize]) -> Self {
        let (mut spans, mut row, mut page) = (Vec::with_capacity(lengths.len()), 0, 0);
        for &tokens in lengths {
            let pages = tokens.div_ceil(PAGE_SIZE) as u32;
            let block_table = (page..page + pages).collect();
            spans.push(Span { tokens: row..row + tokens, start: 0, block_table, prefill: Some(0..tokens) });
            row += tokens;
            page += pages;
        }
        Self { spans }
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_layout_keep_positions_and_slots() {
        let mut layout = BatchLayout::uncached(&[70, 3, 200]);
        layout.spans[1].start = 64;
        layout.spans[1].block_table = vec![9, 7];
        let (positions, slots) = (layout.positions(), layout.slots());
        for (row, rows) in [(0, 273), (0, 71), (69, 5), (72, 1), (73, 200)] {
            let part = layout.part(row, rows);
            part.check_rows(rows).unwrap();
            assert_eq!(part.positions(), positions[row..row + rows]);
            assert_eq!(part.slots(), slots[row..row + rows]);
        }
    }
}
