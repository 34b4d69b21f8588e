//! A block of rows: scores, targets, divergences and their gradients.

use std::ops::Range;

use candle_core::{D, DType, Tensor};

use super::{IndexTarget, IndexerBatch, Part};
use crate::ops;
use crate::training::error::{Result, TrainingError};

/// Stands for the score of what a row does not attend to: finite, so that 0 times it is 0.
const HIDDEN: f64 = -1e30;

/// The keys of a block.
pub(super) enum Keys {
    /// Row `i` attends to the first `first + i + 1` of these slots.
    UpTo { slots: Vec<u32>, first: usize },
    /// Row `i` attends to the slots of row `first + i` of the chosen ones.
    Listed { first: usize },
}

/// What one block of rows of a batch has. Columns are keys; they are other ones in every block.
#[derive(Debug, Clone)]
pub struct IndexerBlock {
    /// The rows of the batch.
    pub rows: Range<usize>,
    /// The slot of each column, `[1, C]` where the rows share their columns, else `[rows, C]`, i64; -1 = none.
    pub slots: Tensor,
    /// 1 where a row attends to a column, `[rows, C]` u8.
    pub attended: Tensor,
    /// The indexer's scores, `[rows, C]`; -1e30 where the row does not attend.
    pub scores: Tensor,
    /// The target's probabilities, `[rows, C]`; 0 where the row does not attend.
    pub target: Tensor,
    /// `KL(target || softmax(scores))`, `[rows]`.
    pub kl: Tensor,
    /// The gradient of `kl` by `scores`, `softmax(scores) - target` where the row attends, else 0, `[rows, C]`.
    pub score_gradient: Tensor,
    /// Products of index queries and keys, `[rows, H_I, C]`.
    products: Tensor,
    /// Index keys, `[C, D_I]` or `[rows, C, D_I]`.
    keys: Tensor,
}

/// The gradients of a block's weighted sum of divergences.
pub(super) struct BlockGradients {
    /// `[rows, H_I, D_I]`.
    pub(super) index_q: Tensor,
    /// `[rows, H_I]`.
    pub(super) weights: Tensor,
    /// `[n, D_I]`, of the keys in the slots below.
    pub(super) index_k: Tensor,
    /// `[n]` i64.
    pub(super) slots: Tensor,
}

/// Reads blocks of a batch.
pub(super) struct Reader<'a> {
    index_q: Tensor,
    index_k: Tensor,
    weights: Tensor,
    target: IndexTarget<'a>,
    /// Chosen slots, `[n, k]` i64.
    chosen: Option<Tensor>,
    compute: DType,
}

impl<'a> Reader<'a> {
    /// `plain`: index queries, index keys and weights of heads in `compute`, contiguous and without tracking.
    pub(super) fn new(
        batch: &IndexerBatch<'a>,
        plain: [candle_core::Result<Tensor>; 3],
        compute: DType,
    ) -> Result<Self> {
        let [index_q, index_k, weights] = plain;
        let chosen = match batch.chosen {
            Some(chosen) => Some(checked_slots(chosen.slots, batch)?),
            None => None,
        };
        Ok(Self { index_q: index_q?, index_k: index_k?, weights: weights?, target: batch.target, chosen, compute })
    }

    pub(super) fn block(&self, part: &Part) -> Result<IndexerBlock> {
        let (row, n) = (part.rows.start, part.rows.len());
        let device = self.index_q.device();
        let (slots, attended) = match &part.keys {
            Keys::UpTo { slots, first } => {
                let c = slots.len();
                let column = Tensor::arange(0u32, c as u32, device)?.reshape((1, c))?;
                let last = Tensor::arange(*first as u32, (first + n) as u32, device)?.reshape((n, 1))?;
                let slots: Vec<i64> = slots.iter().map(|&slot| i64::from(slot)).collect();
                (Tensor::from_vec(slots, (1, c), device)?, column.broadcast_le(&last)?)
            }
            Keys::Listed { first } => match &self.chosen {
                Some(chosen) => {
                    let slots = chosen.narrow(0, *first, n)?;
                    let attended = slots.ge(0i64)?;
                    (slots, attended)
                }
                None => return Err(TrainingError::value("chosen slots", "a tensor", "none")),
            },
        };
        let columns = slots.dim(1)?;
        let gathered = |keys: &Tensor| self.gather(keys, &slots);
        let keys = gathered(&self.index_k)?;
        let products = dots(&self.index_q.narrow(0, row, n)?, &keys)?;
        let weights = self.weights.narrow(0, row, n)?.unsqueeze(2)?;
        let scores = products.relu()?.broadcast_mul(&weights)?.sum(1)?;
        let hidden = Tensor::full(HIDDEN, (n, columns), device)?.to_dtype(self.compute)?;
        let scores = attended.where_cond(&scores, &hidden)?;
        let mask = attended.to_dtype(self.compute)?;
        let target = match self.target {
            IndexTarget::Attention { q, kv, softmax_scale } => {
                let q = q.narrow(0, row, n)?.detach().to_dtype(self.compute)?.contiguous()?;
                let scores = (dots(&q, &gathered(&kv.detach())?.to_dtype(self.compute)?)? * softmax_scale)?;
                let hidden = hidden.unsqueeze(1)?.broadcast_as(scores.dims())?;
                let seen = attended.unsqueeze(1)?.broadcast_as(scores.dims())?;
                let (p, _) = softmax(&seen.where_cond(&scores, &hidden)?, &mask.unsqueeze(1)?)?;
                p.sum(1)?
            }
            IndexTarget::Mass(mass) => {
                let mass = mass.narrow(0, row, n)?.detach().contiguous()?;
                let index = slots.maximum(0i64)?.broadcast_as((n, columns))?.contiguous()?;
                (mass.gather(&index, 1)?.to_dtype(self.compute)? * &mask)?
            }
        };
        let total = target.sum_keepdim(D::Minus1)?;
        let target = target.broadcast_div(&(&total + total.eq(0f64)?.to_dtype(self.compute)?)?)?;
        let (q, log_q) = softmax(&scores, &mask)?;
        // 0 log 0 = 0.
        let log_p = (&target + target.eq(0f64)?.to_dtype(self.compute)?)?.log()?;
        let kl = (&target * (log_p - log_q)?)?.sum(D::Minus1)?;
        let score_gradient = (q.broadcast_mul(&target.sum_keepdim(D::Minus1)?)? - &target)?;
        Ok(IndexerBlock {
            rows: part.rows.clone(),
            slots,
            attended,
            scores,
            target,
            kl,
            score_gradient,
            products,
            keys,
        })
    }

    /// `row_weights: [rows]`.
    pub(super) fn gradients(&self, part: &Part, block: &IndexerBlock, row_weights: &Tensor) -> Result<BlockGradients> {
        let (row, n) = (part.rows.start, part.rows.len());
        let (_, heads, dim) = self.index_q.dims3()?;
        let columns = block.scores.dim(1)?;
        let d_scores = block.score_gradient.broadcast_mul(&row_weights.unsqueeze(1)?)?.unsqueeze(1)?;
        let weights = (block.products.relu()?.broadcast_mul(&d_scores)?).sum(2)?;
        let passes = block.products.gt(0f64)?.to_dtype(self.compute)?;
        let d_products = passes.broadcast_mul(&d_scores)?;
        let d_products = d_products.broadcast_mul(&self.weights.narrow(0, row, n)?.unsqueeze(2)?)?;
        let q = self.index_q.narrow(0, row, n)?;
        let (index_q, index_k) = if block.keys.rank() == 2 {
            let d_products = d_products.reshape((n * heads, columns))?;
            let q = q.reshape((n * heads, dim))?;
            (d_products.matmul(&block.keys)?.reshape((n, heads, dim))?, d_products.t()?.matmul(&q)?)
        } else {
            let d_k = d_products.transpose(1, 2)?.contiguous()?.matmul(&q.contiguous()?)?;
            (d_products.matmul(&block.keys)?, d_k.reshape((n * columns, dim))?)
        };
        // A slot of -1 has a gradient of 0.
        let slots = block.slots.maximum(0i64)?.flatten_all()?;
        Ok(BlockGradients { index_q, weights, index_k, slots })
    }

    /// The rows of `keys: [slots, D]` in `slots`, `[C, D]` where there is one row of slots, else `[rows, C, D]`.
    fn gather(&self, keys: &Tensor, slots: &Tensor) -> Result<Tensor> {
        let (rows, columns) = slots.dims2()?;
        let gathered = keys.contiguous()?.index_select(&slots.maximum(0i64)?.flatten_all()?, 0)?;
        Ok(if rows == 1 { gathered } else { gathered.reshape((rows, columns, keys.dim(1)?))? })
    }
}

/// `[rows, H, C]` from `q: [rows, H, D]` and `keys: [C, D]` or `[rows, C, D]`.
fn dots(q: &Tensor, keys: &Tensor) -> Result<Tensor> {
    let (rows, heads, dim) = q.dims3()?;
    Ok(match keys.rank() {
        2 => q.reshape((rows * heads, dim))?.matmul(&keys.t()?)?.reshape((rows, heads, keys.dim(0)?))?,
        _ => q.contiguous()?.matmul(&keys.transpose(1, 2)?.contiguous()?)?,
    })
}

/// Probabilities and their logarithms over the last dimension of `scores`, where `mask` (of its dtype, broadcast to its
/// shape) is 1; elsewhere the probability is 0. Where `mask` is 0 throughout, all are.
fn softmax(scores: &Tensor, mask: &Tensor) -> Result<(Tensor, Tensor)> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?;
    let p = shifted.exp()?.broadcast_mul(mask)?;
    let sum = p.sum_keepdim(D::Minus1)?;
    let sum = (&sum + sum.eq(0f64)?.to_dtype(sum.dtype())?)?;
    Ok((p.broadcast_div(&sum)?, shifted.broadcast_sub(&sum.log()?)?))
}

/// Chosen slots as `[n, k]` i64. On CPU a slot outside the keys is an error.
fn checked_slots(chosen: &Tensor, batch: &IndexerBatch) -> Result<Tensor> {
    let chosen = ops::indices_i64(chosen)?.contiguous()?;
    let slots = batch.index_k.dim(0)? as i64;
    if chosen.device().is_cpu() {
        for (row, listed) in chosen.to_vec2::<i64>()?.iter().enumerate() {
            if let Some(slot) = listed.iter().find(|&&slot| !(-1..slots).contains(&slot)) {
                return Err(TrainingError::value(format!("chosen slots, row {row}"), format!("-1..{slots}"), slot));
            }
        }
    }
    Ok(chosen)
}
