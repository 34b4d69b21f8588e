//! Log-probabilities of tokens: temperature, kept sets, chunks of rows.

use candle_core::{DType, Tensor};

use super::batch::KeptSets;
use super::error::{Result, RlError};
use super::rows::Rows;
use crate::ops;
use crate::ops::deferred::with_gradient;

/// Logits that are held at once in other forms, unless one row has more.
const CHUNK_ELEMENTS: usize = 1 << 22;

/// Log-probabilities of `T` rows.
#[derive(Debug, Clone)]
pub struct LogProbs {
    /// `[T]` the log-probability of each row's token, in f64 for inputs in f64, else f32; 0 in rows that do not enter.
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
    let (rows, vocab) = match *logits.dims() {
        [rows, vocab] if rows > 0 && vocab > 0 => (rows, vocab),
        ref dims => return Err(RlError::batch("logits", format!("shape {dims:?}, expected [T, V]"))),
    };
    let dtype = computed_in("logits", logits.dtype())?;
    of_logits(logits, checked(rows, vocab, dtype, tokens, enters, kept, temperature)?)
}

/// [`log_probs`] of the logits `hidden · headᵀ`, which are never held as a whole: each chunk's are computed in the forward
/// pass and again in the backward pass.
///
/// - `hidden`: `[T, hidden_size]` in f32, f64, bf16 or f16
/// - `head`: `[V, hidden_size]`, the same dtypes: the weight of [`Model::lm_head`](crate::model::Model::lm_head)
///
/// Logits and softmax are f64 where `hidden` is, else f32. Gradients reach both. The gradient of rows that do not enter
/// is 0, and their hidden states must be finite.
///
/// # Errors
/// As [`log_probs`].
pub fn head_log_probs(
    hidden: &Tensor,
    head: &Tensor,
    tokens: &[u32],
    enters: &[bool],
    kept: Option<&KeptSets>,
    temperature: f64,
) -> Result<LogProbs> {
    let (rows, width) = match *hidden.dims() {
        [rows, width] if rows > 0 && width > 0 => (rows, width),
        ref dims => return Err(RlError::batch("hidden", format!("shape {dims:?}, expected [T, hidden_size]"))),
    };
    let vocab = match *head.dims() {
        [vocab, found] if vocab > 0 && found == width => vocab,
        ref dims => return Err(RlError::batch("head", format!("shape {dims:?}, expected [V, {width}]"))),
    };
    computed_in("head", head.dtype())?;
    let dtype = computed_in("hidden", hidden.dtype())?;
    of_hidden(hidden, head, checked(rows, vocab, dtype, tokens, enters, kept, temperature)?)
}

/// The dtype of softmax and log-probabilities.
fn computed_in(field: &str, dtype: DType) -> Result<DType> {
    match dtype {
        DType::F64 => Ok(DType::F64),
        DType::F32 | DType::BF16 | DType::F16 => Ok(DType::F32),
        other => Err(RlError::batch(field, format!("dtype {other:?}, expected f32, f64, bf16 or f16"))),
    }
}

/// Checks what the rows are drawn with.
fn checked(
    rows: usize,
    vocab: usize,
    dtype: DType,
    tokens: &[u32],
    enters: &[bool],
    kept: Option<&KeptSets>,
    temperature: f64,
) -> Result<Rows> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        let message = format!("{temperature} was given, expected a finite number above 0");
        return Err(RlError::config("temperature", message));
    }
    let lengths = [("tokens", tokens.len()), ("enters", enters.len()), ("kept", kept.map_or(rows, KeptSets::rows))];
    if let Some((field, found)) = lengths.into_iter().find(|&(_, found)| found != rows) {
        return Err(RlError::batch(field, format!("{found} values, expected {rows} as there are rows")));
    }
    for row in (0..rows).filter(|&row| enters[row]) {
        check_row(row, tokens[row], vocab, kept.and_then(|kept| kept.row(row)))?;
    }
    Ok(Rows {
        tokens: tokens.iter().zip(enters).map(|(&token, &enters)| if enters { token } else { 0 }).collect(),
        enters: enters.to_vec(),
        kept: kept.cloned(),
        temperature,
        vocab,
        dtype,
        chunk: (CHUNK_ELEMENTS / vocab).max(1),
    })
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

fn of_logits(logits: &Tensor, rows: Rows) -> Result<LogProbs> {
    let values = logits.detach();
    let (logp, entropy) = rows.forward(|at| values.narrow(0, at.start, at.len()))?;
    let logp = with_gradient(&logp, &[logits], move |_, grad| {
        let result = Tensor::zeros(values.shape(), values.dtype(), values.device())?;
        rows.backward(
            grad,
            |at| values.narrow(0, at.start, at.len()),
            |at, gradient| result.slice_set(&gradient.to_dtype(result.dtype())?.contiguous()?, 0, at.start),
        )?;
        Ok(vec![result])
    })?;
    Ok(LogProbs { logp, entropy })
}

fn of_hidden(hidden: &Tensor, head: &Tensor, rows: Rows) -> Result<LogProbs> {
    let dtype = rows.dtype;
    let kept = (hidden.detach(), head.detach());
    // Without tracking, in the dtype that is computed in.
    let untracked = move |tensor: &Tensor| tensor.detach().to_dtype(dtype);
    let logits = move |hidden: &Tensor, head: &Tensor| match dtype {
        DType::F64 => hidden.matmul(&head.t()?),
        _ => ops::linear(hidden, head, None),
    };
    let (values, weight) = (untracked(hidden)?, untracked(head)?);
    let (logp, entropy) = rows.forward(|at| logits(&values.narrow(0, at.start, at.len())?, &weight))?;
    let logp = with_gradient(&logp, &[hidden, head], move |_, grad| {
        let (values, weight) = (untracked(&kept.0)?, untracked(&kept.1)?);
        let result = values.zeros_like()?;
        let mut of_head: Option<Tensor> = None;
        rows.backward(
            grad,
            |at| logits(&values.narrow(0, at.start, at.len())?, &weight),
            |at, gradient| {
                result.slice_set(&gradient.matmul(&weight)?, 0, at.start)?;
                let part = gradient.t()?.matmul(&values.narrow(0, at.start, at.len())?)?;
                of_head = Some(match of_head.take() {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
                Ok(())
            },
        )?;
        let of_head = of_head.map_or_else(|| weight.zeros_like(), Ok)?;
        Ok(vec![result.to_dtype(kept.0.dtype())?, of_head.to_dtype(kept.1.dtype())?])
    })?;
    Ok(LogProbs { logp, entropy })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Greatest difference of sums in another order, in f64.
    const TOLERANCE: f64 = 1e-13;
    const VOCAB: usize = 7;
    const ROWS: usize = 13;

    fn numbers(rows: usize, columns: usize, step: f64) -> Var {
        let values: Vec<f64> = (0..rows * columns).map(|i| 2.0 * (i as f64 * step).sin()).collect();
        Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()).unwrap()
    }

    /// Every third row does not enter, every other one has a kept set.
    fn rows(chunk: usize) -> Rows {
        let tokens: Vec<u32> = (0..ROWS as u32).map(|row| row * 5 % VOCAB as u32).collect();
        let enters: Vec<bool> = (0..ROWS).map(|row| row % 3 != 1).collect();
        let set = |row: usize| {
            (0..VOCAB as u32).filter(|&id| id == tokens[row] || (id as usize + row).is_multiple_of(3)).collect()
        };
        let kept: Vec<_> = (0..ROWS).map(|row| (row % 2 == 0).then(|| set(row))).collect();
        let kept = KeptSets::from_rows(&kept).unwrap();
        let rows = checked(ROWS, VOCAB, DType::F64, &tokens, &enters, Some(&kept), 0.8).unwrap();
        Rows { chunk, ..rows }
    }

    /// Log-probabilities, entropies, and the gradients of these variables.
    fn all(found: LogProbs, variables: &[&Var]) -> Vec<f64> {
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let weights: Vec<f64> = (0..ROWS).map(|row| row as f64 * 0.3 - 1.0).collect();
        let weighted = (&found.logp * Tensor::new(weights, &Device::Cpu).unwrap()).unwrap();
        let gradients = weighted.sum_all().unwrap().backward().unwrap();
        let mut all = [flat(&found.logp), flat(&found.entropy)].concat();
        variables.iter().for_each(|variable| all.extend(flat(gradients.get(variable).unwrap())));
        all
    }

    fn same(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < TOLERANCE, "{found} for {expected}");
        }
    }

    #[test]
    fn chunks_do_not_matter() {
        let (logits, hidden, head) = (numbers(ROWS, VOCAB, 1.1), numbers(ROWS, 4, 0.7), numbers(VOCAB, 4, 1.3));
        let of_logits = |chunk| all(of_logits(&logits, rows(chunk)).unwrap(), &[&logits]);
        let of_hidden = |chunk| all(of_hidden(&hidden, &head, rows(chunk)).unwrap(), &[&hidden, &head]);
        let (whole, whole_hidden) = (of_logits(ROWS), of_hidden(ROWS));
        assert!(whole[2 * ROWS..].iter().any(|gradient| gradient.abs() > 0.1));
        for chunk in [1, 2, 5, 12] {
            same(&of_logits(chunk), &whole);
            same(&of_hidden(chunk), &whole_hidden);
        }
    }

    /// From hidden states they are those of the product.
    #[test]
    fn hidden_states_and_head_are_their_products_logits() {
        let (hidden, head) = (numbers(ROWS, 4, 0.7), numbers(VOCAB, 4, 1.3));
        let product = hidden.matmul(&head.t().unwrap()).unwrap();
        let expected = all(of_logits(&product, rows(ROWS)).unwrap(), &[&hidden, &head]);
        same(&all(of_hidden(&hidden, &head, rows(4)).unwrap(), &[&hidden, &head]), &expected);
    }
}
