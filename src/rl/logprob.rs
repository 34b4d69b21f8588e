//! Log-probabilities of tokens from logits: temperature, kept sets, chunks of rows.

use std::sync::Arc;

use candle_core::{D, DType, Tensor};

use super::batch::KeptSets;
use super::error::{Result, RlError};
use super::linked::linked;

/// Logits that are held at once in other forms, unless one row has more.
const CHUNK_ELEMENTS: usize = 1 << 22;

/// What [`log_probs`] returns for `T` rows.
#[derive(Debug, Clone)]
pub struct LogProbs {
    /// `[T]` the log-probability of each row's token, in f64 for f64 logits, else f32; 0 in rows that do not enter.
    pub logp: Tensor,
    /// `[T]` the entropy of each row's distribution in nats, without gradient; same dtype and rows.
    pub entropy: Tensor,
}

/// Log-probabilities of tokens under `softmax(logits / temperature)`, for rows with a kept set under the softmax over
/// this set alone.
///
/// - `logits`: `[T, V]` in f32, f64, bf16 or f16; bf16 and f16 are computed in f32. Row t is the distribution that token
///   t was drawn from.
/// - `tokens`: `[T]` ids, `0..V`; not read in rows that do not enter.
/// - `enters`: `[T]` which rows are computed. The gradient of the others is 0, whatever their logits hold.
/// - `kept`: the kept set of each row, which contains the row's token; `None` is the whole vocabulary for all.
///   The gradient outside of a set is 0.
/// - `temperature`: above 0.
///
/// Rows are computed in chunks, forward and backward: beside the logits and their gradient no tensor `[T, V]` is held.
///
/// # Errors
/// [`RlError::Batch`] if a shape, a length or an id is wrong; [`RlError::Config`] if the temperature is not above 0;
/// a failed tensor operation.
///
/// # Source
/// arXiv 2512.02556, section 3.1 ("keep sampling mask").
pub fn log_probs(
    logits: &Tensor,
    tokens: &[u32],
    enters: &[bool],
    kept: Option<&KeptSets>,
    temperature: f64,
) -> Result<LogProbs> {
    log_probs_in_chunks(logits, tokens, enters, kept, temperature, CHUNK_ELEMENTS)
}

/// [`log_probs`] with `elements` logits in a chunk.
pub(crate) fn log_probs_in_chunks(
    logits: &Tensor,
    tokens: &[u32],
    enters: &[bool],
    kept: Option<&KeptSets>,
    temperature: f64,
    elements: usize,
) -> Result<LogProbs> {
    let (rows, vocab) = match *logits.dims() {
        [rows, vocab] if rows > 0 && vocab > 0 => (rows, vocab),
        ref dims => return Err(RlError::batch("logits", format!("shape {dims:?}, expected [T, V]"))),
    };
    let dtype = match logits.dtype() {
        DType::F64 => DType::F64,
        DType::F32 | DType::BF16 | DType::F16 => DType::F32,
        other => return Err(RlError::batch("logits", format!("dtype {other:?}, expected f32, f64, bf16 or f16"))),
    };
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(RlError::config(
            "temperature",
            format!("{temperature} was given, expected a finite number above 0"),
        ));
    }
    let lengths = [("tokens", tokens.len()), ("enters", enters.len()), ("kept", kept.map_or(rows, KeptSets::rows))];
    if let Some((field, found)) = lengths.into_iter().find(|&(_, found)| found != rows) {
        return Err(RlError::batch(field, format!("{found} values, expected {rows} as `logits` has rows")));
    }
    for row in (0..rows).filter(|&row| enters[row]) {
        check_row(row, tokens[row], vocab, kept.and_then(|kept| kept.row(row)))?;
    }
    let rows = Rows {
        tokens: tokens.iter().zip(enters).map(|(&token, &enters)| if enters { token } else { 0 }).collect(),
        enters: enters.into(),
        kept: kept.cloned(),
        temperature,
        vocab,
        dtype,
        chunk: (elements / vocab).max(1),
    };
    let (logp, entropy) = rows.forward(&logits.detach())?;
    let logp = linked("log_probs", logits, &logp, move |logits, grad| rows.backward(&logits.detach(), grad))?;
    Ok(LogProbs { logp, entropy })
}

/// Checks the token and the kept set of a row that enters.
fn check_row(row: usize, token: u32, vocab: usize, kept: Option<&[u32]>) -> Result<()> {
    if token as usize >= vocab {
        return Err(RlError::batch(format!("tokens[{row}]"), format!("{token}, but the vocabulary has {vocab} ids")));
    }
    let Some(kept) = kept else {
        return Ok(());
    };
    let refuse = |message: String| Err(RlError::batch(format!("kept[{row}]"), message));
    match kept.last() {
        Some(&last) if last as usize >= vocab => refuse(format!("id {last}, but the vocabulary has {vocab} ids")),
        _ if kept.binary_search(&token).is_err() => refuse(format!("the row's token {token} is not in it")),
        _ => Ok(()),
    }
}

/// What the rows of `log_probs` are computed with, apart from the logits.
struct Rows {
    tokens: Vec<u32>,
    enters: Arc<[bool]>,
    kept: Option<KeptSets>,
    temperature: f64,
    vocab: usize,
    dtype: DType,
    /// Rows in a chunk.
    chunk: usize,
}

/// Rows of a chunk, `c` of them.
struct Chunk {
    /// `[c, V]` logits over the temperature, less the row's greatest; -infinity outside of the kept set.
    shifted: Tensor,
    /// `[c, V]` u8, 1 at the row's token.
    chosen: Tensor,
    /// `[c, 1]` u8, 1 where the row enters.
    enters: Tensor,
}

impl Rows {
    /// First row and number of rows of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let rows = self.tokens.len();
        (0..rows).step_by(self.chunk).map(move |start| (start, self.chunk.min(rows - start)))
    }

    fn chunk(&self, logits: &Tensor, start: usize, len: usize) -> candle_core::Result<Chunk> {
        let (device, shape) = (logits.device(), (len, self.vocab));
        let at = start..start + len;
        let enters: Vec<u8> = self.enters[at.clone()].iter().map(|&enters| enters.into()).collect();
        let all_enter = !enters.contains(&0);
        let enters = Tensor::from_vec(enters, (len, 1), device)?;
        let mut scaled = (logits.narrow(0, start, len)?.to_dtype(self.dtype)? / self.temperature)?;
        if !all_enter {
            scaled = enters.broadcast_as(shape)?.where_cond(&scaled, &scaled.zeros_like()?)?;
        }
        if let Some(kept) = self.kept_mask(at.clone()) {
            let nothing = Tensor::full(f32::NEG_INFINITY, shape, device)?.to_dtype(self.dtype)?;
            scaled = Tensor::from_vec(kept, shape, device)?.where_cond(&scaled, &nothing)?;
        }
        let shifted = scaled.broadcast_sub(&scaled.max_keepdim(D::Minus1)?)?;
        let tokens = Tensor::from_slice(&self.tokens[at], (len, 1), device)?;
        let ids = Tensor::arange(0, self.vocab as u32, device)?.reshape((1, self.vocab))?;
        Ok(Chunk { shifted, chosen: ids.broadcast_eq(&tokens)?, enters })
    }

    /// `[c * V]` 1 where the id is kept; `None` if all are. Rows that do not enter keep all.
    fn kept_mask(&self, at: std::ops::Range<usize>) -> Option<Vec<u8>> {
        let kept = self.kept.as_ref()?;
        let set = |row: usize| kept.row(row).filter(|_| self.enters[row]);
        if at.clone().all(|row| set(row).is_none()) {
            return None;
        }
        let mut mask = vec![1; at.len() * self.vocab];
        for (mask, row) in mask.chunks_mut(self.vocab).zip(at) {
            if let Some(ids) = set(row) {
                mask.fill(0);
                ids.iter().for_each(|&id| mask[id as usize] = 1);
            }
        }
        Some(mask)
    }

    /// Log-probabilities and entropies, both `[T]`.
    fn forward(&self, logits: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        /// Ids of an exponent below it have probability 0 in f64, too; keeps 0 times infinity out of the entropy.
        const LEAST: f64 = -1e4;
        let (mut logp, mut entropy) = (Vec::new(), Vec::new());
        for (start, len) in self.chunks() {
            let Chunk { shifted, chosen, enters } = self.chunk(logits, start, len)?;
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

    /// The gradient `[T, V]` of the logits from that of the log-probabilities, `[T]`: `(1[v = token] - p_v) / temperature`
    /// times it. `1 - p` of the token is the sum of the others' probabilities, so that it is exact near 0.
    fn backward(&self, logits: &Tensor, grad: &Tensor) -> candle_core::Result<Tensor> {
        let result = logits.zeros_like()?;
        let scaled = (grad.to_dtype(self.dtype)? / self.temperature)?.unsqueeze(1)?;
        for (start, len) in self.chunks() {
            let Chunk { shifted, chosen, enters } = self.chunk(logits, start, len)?;
            let exp = shifted.exp()?;
            let others = chosen.where_cond(&exp.zeros_like()?, &exp)?;
            let others_sum = others.sum_keepdim(D::Minus1)?;
            let grad = scaled.narrow(0, start, len)?;
            let grad = enters.where_cond(&grad.contiguous()?, &grad.zeros_like()?)?;
            let factor = (grad / exp.sum_keepdim(D::Minus1)?)?;
            let own = (&factor * others_sum)?.broadcast_as(chosen.shape())?.contiguous()?;
            let others = others.broadcast_mul(&factor.neg()?)?;
            let rows = chosen.where_cond(&own, &others)?.to_dtype(logits.dtype())?;
            result.slice_set(&rows.contiguous()?, 0, start)?;
        }
        Ok(result)
    }
}
