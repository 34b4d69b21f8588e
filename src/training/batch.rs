//! What a training pass reads: sequences of token ids, and which of them are learnt.

use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::error::{Result, TrainingError, check_count};
use crate::distributed::Communicator;
use crate::ops::layout::BatchLayout;

/// A sequence to learn from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each id, whether the model is to learn to write it. The first is never learnt: nothing precedes it.
    pub learnt: Vec<bool>,
}

impl Example {
    /// A sequence of which every token is learnt.
    pub fn whole(ids: Vec<u32>) -> Self {
        Self { learnt: vec![true; ids.len()], ids }
    }

    /// How many of the tokens count in the next-token loss.
    pub fn counted(&self) -> usize {
        self.learnt.iter().skip(1).filter(|&&learnt| learnt).count()
    }
}

/// Sequences of a forward pass, one after the other, without padding. Rows of one sequence never see another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    ids: Vec<u32>,
    learnt: Vec<bool>,
    layout: BatchLayout,
}

impl Batch {
    /// Returns the sequences as one batch, in their order.
    ///
    /// # Errors
    /// If an example is empty, or has not as many marks as ids.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Result<Self> {
        let (mut ids, mut learnt, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (at, example) in examples.into_iter().enumerate() {
            check_count("learnt", example.ids.len(), example.learnt.len())?;
            if example.ids.is_empty() {
                return Err(TrainingError::value(format!("example {at}"), "at least one id", "empty"));
            }
            ids.extend_from_slice(&example.ids);
            learnt.extend_from_slice(&example.learnt);
            lengths.push(example.ids.len());
        }
        Ok(Self { ids, learnt, layout: BatchLayout::uncached(&lengths) })
    }

    /// Returns batches of the examples in their order, each of at most `tokens` tokens, or of one longer example.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn in_order(examples: &[Example], tokens: usize) -> Result<Vec<Self>> {
        let (mut batches, mut open) = (Vec::new(), 0..0);
        let mut used = 0;
        for (at, example) in examples.iter().enumerate() {
            if used + example.ids.len() > tokens && !open.is_empty() {
                batches.push(Self::new(&examples[open])?);
                (open, used) = (at..at, 0);
            }
            open.end = at + 1;
            used += example.ids.len();
        }
        if !open.is_empty() {
            batches.push(Self::new(&examples[open])?);
        }
        Ok(batches)
    }

    /// Token ids, `[T]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Rows, `T`.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The sequences.
    pub fn layout(&self) -> &BatchLayout {
        &self.layout
    }

    /// For each row the id that stands `ahead` tokens behind it in its sequence, if there is one and it is learnt, `[T]`.
    pub fn targets(&self, ahead: usize) -> Vec<Option<u32>> {
        self.ahead(ahead, |at| self.learnt[at].then(|| self.ids[at]))
    }

    /// The id behind each row, as the MTP layer takes it, `[T]`; 0 for the last row of a sequence, which no other row
    /// sees.
    pub fn next_ids(&self) -> Vec<u32> {
        self.ahead(1, |at| Some(self.ids[at])).into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Whether a row has another one behind it in its sequence, `[T]`.
    pub fn has_next(&self) -> Vec<bool> {
        self.ahead(1, |_| Some(true)).into_iter().map(Option::unwrap_or_default).collect()
    }

    fn ahead<T>(&self, ahead: usize, of: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
        let of = &of;
        let rows = |span: &'_ crate::ops::layout::Span| {
            let (tokens, end) = (span.tokens.clone(), span.tokens.end);
            tokens.map(move |row| if row + ahead < end { of(row + ahead) } else { None })
        };
        self.layout.spans.iter().flat_map(rows).collect()
    }
}

/// What the means of a step are divided by: counts over all its batches, on all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Denominators {
    /// Rows whose next token is learnt.
    pub next_token: f64,
    /// Rows whose token after the next one is learnt.
    pub mtp: f64,
    /// All rows.
    pub rows: f64,
    /// Rows that have another one behind them, which are all that the MTP layer has.
    pub mtp_rows: f64,
}

impl Denominators {
    /// The counts of one batch; those of a step are the sum over its batches.
    pub fn of(batch: &Batch) -> Self {
        let count = |ahead| batch.targets(ahead).iter().flatten().count() as f64;
        Self {
            next_token: count(1),
            mtp: count(2),
            rows: batch.tokens() as f64,
            mtp_rows: batch.has_next().iter().filter(|&&has| has).count() as f64,
        }
    }

    /// The sum over all ranks.
    ///
    /// # Errors
    /// If the ranks cannot tell each other.
    pub fn all_reduce(self, communicator: &dyn Communicator) -> Result<Self> {
        let own = [self.next_token, self.mtp, self.rows, self.mtp_rows];
        match communicator.all_reduce_numbers(&own)?[..] {
            [next_token, mtp, rows, mtp_rows] => Ok(Self { next_token, mtp, rows, mtp_rows }),
            ref sums => Err(TrainingError::Count { what: "sums over the ranks", expected: 4, got: sums.len() }),
        }
    }
}

impl Add for Denominators {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            next_token: self.next_token + other.next_token,
            mtp: self.mtp + other.mtp,
            rows: self.rows + other.rows,
            mtp_rows: self.mtp_rows + other.mtp_rows,
        }
    }
}

impl Sum for Denominators {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
