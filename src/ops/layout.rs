//! Where a flattened batch's tokens sit in their sequences, and where their keys lie in the cache.

use std::ops::Range;

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
}

impl Span {
    /// Tokens of the sequence once this batch is in the cache.
    pub fn context(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// The slot of a position below `64 * block_table.len()`.
    #[inline]
    pub fn slot(&self, position: usize) -> usize {
        self.block_table[position / PAGE_SIZE] as usize * PAGE_SIZE + position % PAGE_SIZE
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

    /// Slot of every row, `[T]`.
    pub fn slots(&self) -> Vec<u32> {
        let slots = |span: &Span| (span.start..span.context()).map(|p| span.slot(p) as u32).collect::<Vec<_>>();
        self.spans.iter().flat_map(slots).collect()
    }

    /// Splits the batch into runs of neighbouring sequences for which `key` says the same.
    pub fn groups(&self, key: impl Fn(&Span) -> bool) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for span in &self.spans {
            let key = key(span);
            if groups.last().map_or(true, |group| group.key != key) {
                let rows = span.tokens.start..span.tokens.start;
                groups.push(Group { key, rows, layout: Self::default() });
            }
            if let Some(group) = groups.last_mut() {
                group.rows.end = span.tokens.end;
                let tokens = span.tokens.start - group.rows.start..span.tokens.end - group.rows.start;
                group.layout.spans.push(Span { tokens, start: span.start, block_table: span.block_table.clone() });
            }
        }
        groups
    }

    /// The layout of one uncached sequence of `tokens` rows whose keys lie in slots `0..tokens`.
    pub fn single(tokens: usize) -> Self {
        let block_table = (0..tokens.div_ceil(PAGE_SIZE) as u32).collect();
        Self { spans: vec![Span { tokens: 0..tokens, start: 0, block_table }] }
    }
}

/// Neighbouring sequences of a batch that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What the sequences have in common.
    pub key: bool,
    /// Their rows in the whole batch.
    pub rows: Range<usize>,
    /// Their layout, with rows counted from 0.
    pub layout: BatchLayout,
}
