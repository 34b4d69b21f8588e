//! The next-token loss, in chunks of rows.

use candle_core::{D, DType, Tensor};

use super::error::{Result, TrainingError, check_count};
use crate::ops;
use crate::ops::deferred::with_known;
use crate::ops::linear::LinearWeight;

/// Logits that are held at a time.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// A cross entropy over some rows.
#[derive(Debug, Clone)]
pub struct TokenLoss {
    /// The weighted sum of the rows' losses in nats, a scalar, f32 or f64. Its gradients reach the hidden states and the
    /// head.
    pub loss: Tensor,
    /// `-log p` of each row's target, `[T]`, without gradients; 0 in rows of weight 0, which are not computed.
    pub negative_log_likelihood: Vec<f64>,
}

/// The cross entropy of tokens under `softmax(hidden · headᵀ)`:
/// `sum over t of weights[t] * -log softmax(hidden[t] · headᵀ)[targets[t]]`.
///
/// Logits and softmax are f32, or f64 where `hidden` is. The logits of all rows, `[T, vocab_size]`, are never held: both
/// the loss and its gradients are computed here, in chunks of rows. Where nothing is tracked, only the loss is.
///
/// - `hidden`: `[T, hidden_size]`, any float dtype: what [`Model::forward_training`](crate::model::Model::forward_training)
///   or [`Model::forward_mtp_training`](crate::model::Model::forward_mtp_training) gave
/// - `head`: `[vocab_size, hidden_size]`, f32, bf16, f16 or f64: [`Model::lm_head`](crate::model::Model::lm_head) or
///   [`Model::mtp_head`](crate::model::Model::mtp_head)
/// - `targets`: `[T]`, ids below `vocab_size`; those of rows of weight 0 are not looked at
/// - `weights`: `[T]`, finite: 0 for rows that do not count, and 1 over the number of rows that do, in the whole step of
///   the optimizer, for their mean
///
/// # Errors
/// If a shape, an id or a weight is not as above, or the head is quantized.
///
/// # Source
/// DeepSeek-V3 technical report, sections 2.2 and 4.2.
pub fn next_token_loss(hidden: &Tensor, head: &LinearWeight, targets: &[u32], weights: &[f64]) -> Result<TokenLoss> {
    in_chunks(hidden, head, targets, weights, CHUNK_ELEMENTS)
}

/// [`next_token_loss`] with at most `elements` logits at a time, or those of one row.
fn in_chunks(
    hidden: &Tensor,
    head: &LinearWeight,
    targets: &[u32],
    weights: &[f64],
    elements: usize,
) -> Result<TokenLoss> {
    let (rows, width) = hidden.dims2()?;
    let (vocab_size, head_width) = head.weight.dims2()?;
    check_count("head: columns", width, head_width)?;
    check_count("targets", rows, targets.len())?;
    check_count("weights", rows, weights.len())?;
    if head.weight_scale_inv.is_some() {
        return Err(TrainingError::value("head", "a weight without scales", "quantized"));
    }
    for (row, (&target, &weight)) in targets.iter().zip(weights).enumerate() {
        if !weight.is_finite() {
            return Err(TrainingError::value(format!("weights[{row}]"), "finite", weight));
        }
        if weight != 0.0 && target as usize >= vocab_size {
            return Err(TrainingError::value(format!("targets[{row}]"), format!("below {vocab_size}"), target));
        }
    }
    let counted: Vec<u32> = (0..rows as u32).filter(|&row| weights[row as usize] != 0.0).collect();
    let compute = if hidden.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let mut negative_log_likelihood = vec![0.0; rows];
    if counted.is_empty() || vocab_size == 0 {
        let loss = Tensor::zeros((), compute, hidden.device())?;
        return Ok(TokenLoss { loss, negative_log_likelihood });
    }
    let chunks = Chunks {
        hidden: hidden.detach().to_dtype(compute)?,
        head: head.weight.detach().to_dtype(compute)?,
        tracked: hidden.track_op() || head.weight.track_op(),
    };
    let (mut sum, mut nll) = (None::<Tensor>, Vec::new());
    let (mut d_hidden, mut d_head) = (Vec::new(), None::<Tensor>);
    for rows in counted.chunks((elements / vocab_size).max(1)) {
        let chunk = chunks.chunk(rows, targets, weights)?;
        nll.push(chunk.nll);
        sum = Some(added(sum, chunk.loss)?);
        if let Some((hidden, head)) = chunk.gradients {
            d_hidden.push(hidden);
            d_head = Some(added(d_head, head)?);
        }
    }
    let loss = match sum {
        Some(sum) => sum,
        None => Tensor::zeros((), compute, hidden.device())?,
    };
    for (&row, value) in counted.iter().zip(Tensor::cat(&nll, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?) {
        negative_log_likelihood[row as usize] = value;
    }
    let Some(d_head) = d_head else { return Ok(TokenLoss { loss, negative_log_likelihood }) };
    let index = Tensor::from_vec(counted.clone(), counted.len(), hidden.device())?;
    let d_hidden = chunks.hidden.zeros_like()?.index_add(&index, &Tensor::cat(&d_hidden, 0)?, 0)?;
    let arguments =
        [(hidden, d_hidden.to_dtype(hidden.dtype())?), (&head.weight, d_head.to_dtype(head.weight.dtype())?)];
    Ok(TokenLoss { loss: with_known(&loss, arguments)?, negative_log_likelihood })
}

/// What all chunks read, without tracking.
struct Chunks {
    /// `[T, hidden_size]`.
    hidden: Tensor,
    /// `[vocab_size, hidden_size]`.
    head: Tensor,
    tracked: bool,
}

struct Chunk {
    /// The weighted sum, a scalar.
    loss: Tensor,
    /// `[rows]`.
    nll: Tensor,
    /// Of the chunk's rows of `hidden`, and of the whole head.
    gradients: Option<(Tensor, Tensor)>,
}

impl Chunks {
    fn chunk(&self, rows: &[u32], targets: &[u32], weights: &[f64]) -> Result<Chunk> {
        let (n, device, dtype) = (rows.len(), self.hidden.device(), self.hidden.dtype());
        let hidden = self.hidden.index_select(&Tensor::new(rows, device)?, 0)?;
        let targets: Vec<u32> = rows.iter().map(|&row| targets[row as usize]).collect();
        let targets = Tensor::from_vec(targets, (n, 1), device)?;
        let weights: Vec<f64> = rows.iter().map(|&row| weights[row as usize]).collect();
        let weights = Tensor::from_vec(weights, (n, 1), device)?.to_dtype(dtype)?;
        let logits = match dtype {
            DType::F64 => hidden.matmul(&self.head.t()?)?,
            _ => ops::linear(&hidden, &self.head, None)?,
        };
        let shift = logits.max_keepdim(D::Minus1)?;
        let p = logits.broadcast_sub(&shift)?.exp()?;
        let sum = p.sum_keepdim(D::Minus1)?;
        let nll = ((sum.log()? + shift)? - logits.gather(&targets, 1)?)?;
        let loss = (&nll * &weights)?.sum_all()?;
        let gradients = if self.tracked {
            let ones = Tensor::ones((n, 1), dtype, device)?;
            let d_logits = p.broadcast_div(&sum)?.scatter_add(&targets, &ones.neg()?, 1)?.broadcast_mul(&weights)?;
            Some((d_logits.matmul(&self.head)?, d_logits.t()?.matmul(&hidden)?))
        } else {
            None
        };
        Ok(Chunk { loss, nll: nll.squeeze(1)?, gradients })
    }
}

fn added(sum: Option<Tensor>, next: Tensor) -> candle_core::Result<Tensor> {
    match sum {
        Some(sum) => sum + next,
        None => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Greatest relative difference of f64 sums in another order.
    const TOLERANCE: f64 = 1e-12;

    #[test]
    fn chunks_add_up() {
        let numbers = |rows: usize, step: f64| {
            let values: Vec<f64> = (0..rows * 4).map(|i| (i as f64 * step).sin()).collect();
            Var::from_tensor(&Tensor::from_vec(values, (rows, 4), &Device::Cpu).unwrap()).unwrap()
        };
        let (hidden, head) = (numbers(13, 0.7), numbers(9, 1.3));
        let weight = LinearWeight { weight: head.as_tensor().clone(), weight_scale_inv: None };
        let targets: Vec<u32> = (0..13).map(|row| row * 5 % 9).collect();
        let weights: Vec<f64> = (0..13).map(|row| f64::from(row % 4) * 0.3).collect();
        let run = |elements| {
            let found = in_chunks(&hidden, &weight, &targets, &weights, elements).unwrap();
            let grads = found.loss.backward().unwrap();
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let mut all = vec![found.loss.to_scalar::<f64>().unwrap()];
            all.extend(found.negative_log_likelihood);
            [&hidden, &head].iter().for_each(|variable| all.extend(flat(grads.get(variable).unwrap())));
            all
        };
        let whole = run(usize::MAX);
        for elements in [0, 18, 36, 100] {
            for (found, expected) in run(elements).iter().zip(&whole) {
                assert!((found - expected).abs() <= TOLERANCE * expected.abs().max(1.0), "{elements}");
            }
        }
    }
}
