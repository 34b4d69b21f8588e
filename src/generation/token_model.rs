//! What the engine asks of a model.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::draw::{Draw, Drawn};
use super::largest::{Largest, largest};
use super::record::RouteShape;
use crate::model::Model;
use crate::ops::layout::BatchLayout;

/// Pages of a cache, 64 token slots each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pages {
    /// Pages that sequences own, those of kept prefixes included.
    pub used: usize,
    /// Pages that are allocated and that no sequence owns.
    pub free: usize,
}

/// A model together with its cache, as the engine sees it.
///
/// A sequence's cache holds one row per position for the main layers and, in the same slots, one for the MTP layer.
/// A failed call may leave appended rows; the engine truncates them.
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

    /// The cache's pages; `None` if the model does not count them, the default.
    fn pages(&self) -> Option<Pages> {
        None
    }

    /// What a chunk of a prompt costs beside its rows, in rows: the work that each chunk does on all `context` tokens before
    /// it, whatever its own size. The engine makes chunks at least so large. The default is 0.
    fn chunk_overhead(&self, _context: usize) -> usize {
        0
    }

    /// Replaces the weights by those of another model with the same config. The engine calls this when the cache holds
    /// no sequence. The default refuses.
    ///
    /// # Errors
    /// If this model can't replace its weights, or `weights` is a model of another config, dtype or device.
    fn set_weights(&mut self, _weights: Arc<Model>) -> Result<()> {
        bail!("this model keeps the weights that it was made with")
    }

    /// Reserves slots for new tokens of distinct sequences; returns one span each, in the same order.
    ///
    /// # Errors
    /// If the cache cannot hold them.
    fn append(&mut self, new_tokens: &[(Self::Sequence, usize)]) -> Result<BatchLayout>;

    /// The main layers over a batch: ids `[T]` to hidden states after the final norm `[T, hidden]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor>;

    /// The shape of the routes of [`Self::forward_with_routes`]; `None`, the default, if this model does not report them.
    fn route_shape(&self) -> Option<RouteShape> {
        None
    }

    /// As [`Self::forward`], also returning the batch's routes `[T, layers, experts_per_token]`, row after row.
    ///
    /// # Errors
    /// As [`Self::forward`], and if the model does not report routes.
    fn forward_with_routes(&mut self, _ids: &[u32], _layout: &BatchLayout) -> Result<(Tensor, Vec<u16>)> {
        bail!("this model does not tell the experts that its tokens are sent to")
    }

    /// Hidden states `[n, hidden]` to logits `[n, vocab]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// The largest logit of each row of hidden states `[n, hidden]`: all that a greedy choice needs. The default takes
    /// it from [`Self::logits`] on the logits' device, so that `n` numbers are copied and not `n * vocab`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn argmax(&self, hidden: &Tensor) -> Result<Vec<Largest>> {
        largest(&self.logits(hidden)?)
    }

    /// [`Self::forward`] and the largest logit of each of `rows`, in one pass that waits for the model's device once: hidden
    /// states `[T, hidden]`, valid until the next pass, and as many entries as `rows`. `None`, the default, if the model has
    /// no such pass; the engine then takes it by parts.
    ///
    /// # Errors
    /// As [`Self::forward`].
    fn forward_largest(
        &mut self,
        _ids: &[u32],
        _layout: &BatchLayout,
        _rows: &[usize],
    ) -> Result<Option<(Tensor, Vec<Largest>)>> {
        Ok(None)
    }

    /// As [`Self::forward_largest`], with the logits `[rows, vocab]` f32 of these rows, on the model's device.
    ///
    /// # Errors
    /// As [`Self::forward`].
    fn forward_logits(
        &mut self,
        _ids: &[u32],
        _layout: &BatchLayout,
        _rows: &[usize],
    ) -> Result<Option<(Tensor, Tensor)>> {
        Ok(None)
    }

    /// Chooses a token from each row of logits `[n, vocab]` of [`Self::forward_logits`], so that these need not be copied; as
    /// many results as `draws`. `None`, the default, if the model leaves that to the engine.
    ///
    /// # Errors
    /// If the device fails.
    fn draw(&self, _logits: &Tensor, _draws: &[Draw]) -> Result<Option<Vec<Drawn>>> {
        Ok(None)
    }

    /// As [`Self::forward_largest`], of the MTP layer: the arguments are those of [`Self::forward_mtp`].
    ///
    /// # Errors
    /// As [`Self::forward_mtp`].
    fn forward_mtp_largest(
        &mut self,
        _next_ids: &[u32],
        _hidden: &Tensor,
        _layout: &BatchLayout,
        _rows: &[usize],
    ) -> Result<Option<(Tensor, Vec<Largest>)>> {
        Ok(None)
    }

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

    /// [`Self::argmax`] of the MTP layer's logits.
    ///
    /// # Errors
    /// As [`Self::mtp_logits`].
    fn mtp_argmax(&self, hidden: &Tensor) -> Result<Vec<Largest>> {
        largest(&self.mtp_logits(hidden)?)
    }
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

    fn pages(&self) -> Option<Pages> {
        (**self).pages()
    }

    fn chunk_overhead(&self, context: usize) -> usize {
        (**self).chunk_overhead(context)
    }

    fn route_shape(&self) -> Option<RouteShape> {
        (**self).route_shape()
    }

    fn forward_with_routes(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<(Tensor, Vec<u16>)> {
        (**self).forward_with_routes(ids, layout)
    }

    fn set_weights(&mut self, weights: Arc<Model>) -> Result<()> {
        (**self).set_weights(weights)
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

    fn forward_largest(
        &mut self,
        ids: &[u32],
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Vec<Largest>)>> {
        (**self).forward_largest(ids, layout, rows)
    }

    fn forward_logits(
        &mut self,
        ids: &[u32],
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Tensor)>> {
        (**self).forward_logits(ids, layout, rows)
    }

    fn draw(&self, logits: &Tensor, draws: &[Draw]) -> Result<Option<Vec<Drawn>>> {
        (**self).draw(logits, draws)
    }

    fn forward_mtp_largest(
        &mut self,
        next_ids: &[u32],
        hidden: &Tensor,
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Vec<Largest>)>> {
        (**self).forward_mtp_largest(next_ids, hidden, layout, rows)
    }

    fn argmax(&self, hidden: &Tensor) -> Result<Vec<Largest>> {
        (**self).argmax(hidden)
    }

    fn mtp_argmax(&self, hidden: &Tensor) -> Result<Vec<Largest>> {
        (**self).mtp_argmax(hidden)
    }
}
