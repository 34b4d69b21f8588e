//! What the engine asks of a model.

use std::fmt::Debug;

use candle_core::{Result, Tensor};

use crate::ops::layout::BatchLayout;

/// A model together with its cache, as the engine sees it.
///
/// A sequence's cache holds one row per position for the main layers and, in the same slots, one for the MTP layer.
/// A failed call may leave appended rows behind; the engine truncates them away.
pub trait TokenModel: Send {
    /// Names a sequence in the cache.
    type Sequence: Copy + Debug + Send;

    /// Number of logits.
    fn vocab_size(&self) -> usize;

    /// Most tokens of a sequence, prompt and answer together.
    fn max_context(&self) -> usize;

    /// Whether the `mtp` functions work.
    fn has_mtp(&self) -> bool;

    /// Adds an empty sequence to the cache.
    fn create(&mut self) -> Self::Sequence;

    /// Removes a sequence and frees its slots.
    fn free(&mut self, sequence: Self::Sequence);

    /// A second sequence with the first `len` rows of one, a multiple of 64 and at most the rows it has. `None` if
    /// this model can't share rows; the default.
    ///
    /// # Errors
    /// If there is no such sequence.
    fn fork(&mut self, _sequence: Self::Sequence, _len: usize) -> Result<Option<Self::Sequence>> {
        Ok(None)
    }

    /// Forgets a sequence's rows from position `len` on; `len` is at most the rows it has.
    ///
    /// # Errors
    /// If there is no such sequence.
    fn truncate(&mut self, sequence: Self::Sequence, len: usize) -> Result<()>;

    /// Makes room for new tokens of distinct sequences; returns one span each, in the same order.
    ///
    /// # Errors
    /// If the cache cannot hold them.
    fn append(&mut self, new_tokens: &[(Self::Sequence, usize)]) -> Result<BatchLayout>;

    /// The main layers over a batch: ids `[T]` to hidden states after the final norm `[T, hidden]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor>;

    /// Hidden states `[n, hidden]` to logits `[n, vocab]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// The MTP layer over rows whose slots exist: row i takes the id at its position + 1 and the hidden state
    /// `[T, hidden]` at its position (of [`Self::forward`], or of this function for a position beyond it).
    ///
    /// # Errors
    /// If a tensor operation fails, or the model has no MTP layer.
    fn forward_mtp(&mut self, next_ids: &[u32], hidden: &Tensor, layout: &BatchLayout) -> Result<Tensor>;

    /// Hidden states of the MTP layer `[n, hidden]` to logits `[n, vocab]` of the token at position + 2.
    ///
    /// # Errors
    /// If a tensor operation fails, or the model has no MTP layer.
    fn mtp_logits(&self, hidden: &Tensor) -> Result<Tensor>;
}

impl<M: TokenModel> TokenModel for &mut M {
    type Sequence = M::Sequence;

    fn vocab_size(&self) -> usize {
        (**self).vocab_size()
    }

    fn max_context(&self) -> usize {
        (**self).max_context()
    }

    fn has_mtp(&self) -> bool {
        (**self).has_mtp()
    }

    fn create(&mut self) -> Self::Sequence {
        (**self).create()
    }

    fn free(&mut self, sequence: Self::Sequence) {
        (**self).free(sequence);
    }

    fn fork(&mut self, sequence: Self::Sequence, len: usize) -> Result<Option<Self::Sequence>> {
        (**self).fork(sequence, len)
    }

    fn truncate(&mut self, sequence: Self::Sequence, len: usize) -> Result<()> {
        (**self).truncate(sequence, len)
    }

    fn append(&mut self, new_tokens: &[(Self::Sequence, usize)]) -> Result<BatchLayout> {
        (**self).append(new_tokens)
    }

    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor> {
        (**self).forward(ids, layout)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        (**self).logits(hidden)
    }

    fn forward_mtp(&mut self, next_ids: &[u32], hidden: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
        (**self).forward_mtp(next_ids, hidden, layout)
    }

    fn mtp_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        (**self).mtp_logits(hidden)
    }
}
