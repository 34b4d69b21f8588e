//! Log-probabilities and their gradients, row by row of logits, in chunks.

use std::ops::Range;

use candle_core::{D, DType, Device, Result, Tensor};

use super::batch::KeptSets;

/// How the tokens of `T` rows were drawn.
pub(super) struct Rows {
    /// `[T]` below `vocab`.
    pub(super) tokens: Vec<u32>,
    /// `[T]`
    pub(super) enters: Vec<bool>,
    pub(super) kept: Option<KeptSets>,
    pub(super) temperature: f64,
    pub(super) vocab: usize,
    /// f32 or f64.
    pub(super) dtype: DType,
    /// Rows in a chunk.
    pub(super) chunk: usize,
}

/// Some rows, `c` of them.
struct Chunk {
    /// `[c, V]` logits over the temperature, less the row's greatest; -infinity outside of the kept set.
    shifted: Tensor,
    /// `[c, V]` u8, 1 at the row's token.
    chosen: Tensor,
    /// `[c, 1]` u8, 1 where the row enters.
    enters: Tensor,
}

impl Rows {
    /// The rows of each chunk.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let rows = self.tokens.len();
        (0..rows).step_by(self.chunk).map(move |start| start..(start + self.chunk).min(rows))
    }

    /// From logits `[c, V]` of any float dtype.
    fn chunk(&self, logits: &Tensor, at: &Range<usize>) -> Result<Chunk> {
        let (device, shape) = (logits.device(), (at.len(), self.vocab));
        let enters = self.enters(at, device)?;
        let mut scaled = (logits.to_dtype(self.dtype)? / self.temperature)?;
        if self.enters[at.clone()].contains(&false) {
            scaled = enters.broadcast_as(shape)?.where_cond(&scaled, &scaled.zeros_like()?)?;
        }
        if let Some(kept) = self.kept_mask(at) {
            let nothing = Tensor::full(f32::NEG_INFINITY, shape, device)?.to_dtype(self.dtype)?;
            scaled = Tensor::from_vec(kept, shape, device)?.where_cond(&scaled, &nothing)?;
        }
        let shifted = scaled.broadcast_sub(&scaled.max_keepdim(D::Minus1)?)?;
        let tokens = Tensor::from_slice(&self.tokens[at.clone()], (at.len(), 1), device)?;
        let ids = Tensor::arange(0, self.vocab as u32, device)?.reshape((1, self.vocab))?;
        Ok(Chunk { shifted, chosen: ids.broadcast_eq(&tokens)?, enters })
    }

    /// `[c, 1]` u8, 1 where the row enters.
    fn enters(&self, at: &Range<usize>, device: &Device) -> Result<Tensor> {
        let enters = self.enters[at.clone()].iter().map(|&enters| u8::from(enters)).collect();
        Tensor::from_vec(enters, (at.len(), 1), device)
    }

    /// `[c * V]` 1 where the id is kept; `None` if all are. Rows that do not enter keep all.
    fn kept_mask(&self, at: &Range<usize>) -> Option<Vec<u8>> {
        let kept = self.kept.as_ref()?;
        let set = |row: usize| kept.row(row).filter(|_| self.enters[row]);
        if at.clone().all(|row| set(row).is_none()) {
            return None;
        }
        let mut mask = vec![1; at.len() * self.vocab];
        for (mask, row) in mask.chunks_mut(self.vocab).zip(at.clone()) {
            if let Some(ids) = set(row) {
                mask.fill(0);
                ids.iter().for_each(|&id| mask[id as usize] = 1);
            }
        }
        Some(mask)
    }

    /// Log-probabilities and entropies, both `[T]`, from logits `[c, V]` of each chunk's rows.
    pub(super) fn forward(&self, logits: impl Fn(&Range<usize>) -> Result<Tensor>) -> Result<(Tensor, Tensor)> {
        /// Ids of an exponent below it have probability 0 in f64, too; keeps 0 times infinity out of the entropy.
        const LEAST: f64 = -1e4;
        let (mut logp, mut entropy) = (Vec::new(), Vec::new());
        for at in self.chunks() {
            let Chunk { shifted, chosen, enters } = self.chunk(&logits(&at)?, &at)?;
            let exp = shifted.exp()?;
            let sum = exp.sum_keepdim(D::Minus1)?;
            let zeros = sum.zeros_like()?;
            let own = chosen.where_cond(&shifted, &shifted.zeros_like()?)?.sum_keepdim(D::Minus1)?;
            let mean = ((exp * shifted.maximum(LEAST)?)?.sum_keepdim(D::Minus1)? / &sum)?;
            let log_sum = sum.log()?;
            logp.push(enters.where_cond(&(own - &log_sum)?, &zeros)?);
            entropy.push(enters.where_cond(&(log_sum - mean)?, &zeros)?);
        }
        Ok((Tensor::cat(&logp, 0)?.squeeze(1)?, Tensor::cat(&entropy, 0)?.squeeze(1)?))
    }

    /// Hands `take` the gradient `[c, V]` of each chunk's logits, given that of the log-probabilities, `[T]`:
    /// `(1[v = token] - p_v) / temperature` times it. `1 - p` of the token is the sum of the others' probabilities, so
    /// that it keeps its digits near 0.
    pub(super) fn backward(
        &self,
        grad: &Tensor,
        logits: impl Fn(&Range<usize>) -> Result<Tensor>,
        mut take: impl FnMut(&Range<usize>, Tensor) -> Result<()>,
    ) -> Result<()> {
        let scaled = (grad.to_dtype(self.dtype)? / self.temperature)?.unsqueeze(1)?;
        for at in self.chunks() {
            let Chunk { shifted, chosen, enters } = self.chunk(&logits(&at)?, &at)?;
            let exp = shifted.exp()?;
            let others = chosen.where_cond(&exp.zeros_like()?, &exp)?;
            let others_sum = others.sum_keepdim(D::Minus1)?;
            let grad = scaled.narrow(0, at.start, at.len())?.contiguous()?;
            let grad = enters.where_cond(&grad, &grad.zeros_like()?)?;
            let factor = (grad / exp.sum_keepdim(D::Minus1)?)?;
            let own = (&factor * others_sum)?.broadcast_as(chosen.shape())?.contiguous()?;
            let others = others.broadcast_mul(&factor.neg()?)?;
            take(&at, chosen.where_cond(&own, &others)?)?;
        }
        Ok(())
    }
}
