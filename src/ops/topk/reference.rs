//! `topk` as a composition of candle tensor functions.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

/// Columns that are sorted together, unless twice `k` is more: what CUDA's sort takes.
const SORTED: usize = 8192;

/// See the op's documentation. The selection has no gradient.
///
/// On CPU a NaN is an error. On another device, where looking for one would wait for the device, a row with one selects
/// nothing.
pub fn topk(logits: &Tensor, k: usize) -> Result<Tensor> {
    let (tokens, columns) = logits.dims2()?;
    let logits = logits.to_dtype(DType::F32)?.detach();
    let device = logits.device();
    if device.is_cpu() {
        refuse_nan(&logits)?;
    }
    let chosen = k.min(columns);
    let none = |k| Tensor::full(-1i64, (tokens, k), device);
    if tokens == 0 || chosen == 0 {
        return none(k)?.to_dtype(DType::I32);
    }
    // NaN and -inf are not chosen.
    let open = logits.gt(f32::NEG_INFINITY)?;
    let closed = Tensor::full(f32::NEG_INFINITY, (tokens, columns), device)?;
    let logits = open.where_cond(&logits, &closed)?;
    let column =
        Tensor::arange(0u32, columns as u32, device)?.reshape((1, columns))?.broadcast_as((tokens, columns))?;
    let column = column.contiguous()?;
    let beyond = Tensor::full(columns as u32, (tokens, columns), device)?;

    // All above the k-th largest are chosen, and of those equal to it the first ones.
    let threshold = smallest(&logits.neg()?, chosen)?.narrow(1, chosen - 1, 1)?.contiguous()?.neg()?;
    let above = logits.broadcast_gt(&threshold)?;
    let tied = logits.broadcast_eq(&threshold)?;
    let ties = smallest(&tied.where_cond(&column, &beyond)?, chosen)?;
    // At least one is: the k-th itself.
    let last = ((above.to_dtype(DType::F32)?.sum_keepdim(1)?.neg()? + (chosen - 1) as f64)?).to_dtype(DType::U32)?;
    let last = ties.gather(&last, 1)?;
    let tied = (tied * column.broadcast_le(&last)?)?;
    let selected = ((above + tied)? * open)?;

    let selected = smallest(&selected.where_cond(&column, &beyond)?, chosen)?;
    let missing = selected.eq(columns as u32)?;
    let selected = missing.where_cond(&none(chosen)?, &selected.to_dtype(DType::I64)?)?;
    let selected = if chosen == k { selected } else { Tensor::cat(&[&selected, &none(k - chosen)?], 1)? };
    selected.to_dtype(DType::I32)
}

/// The `k` smallest elements of each row, smallest first, `[R, k]`; `k` is in `1..=N`.
fn smallest(values: &Tensor, k: usize) -> Result<Tensor> {
    let (rows, width) = values.dims2()?;
    let block = SORTED.max(2 * k);
    if width <= block {
        return values.contiguous()?.sort_last_dim(true)?.0.narrow(D::Minus1, 0, k)?.contiguous();
    }
    // The smallest of each block first, then of these.
    let whole = width / block * block;
    let blocks = values.narrow(1, 0, whole)?.reshape((rows * (whole / block), block))?;
    let mut left = vec![smallest(&blocks, k)?.reshape((rows, whole / block * k))?];
    if whole < width {
        left.push(smallest(&values.narrow(1, whole, width - whole)?, k.min(width - whole))?);
    }
    smallest(&Tensor::cat(&left, 1)?, k)
}

/// Refuses a NaN.
fn refuse_nan(logits: &Tensor) -> Result<()> {
    for (row, logits) in logits.to_vec2::<f32>()?.iter().enumerate() {
        if let Some(column) = logits.iter().position(|x| x.is_nan()) {
            candle::bail!("topk: logits[{row}, {column}] is NaN");
        }
    }
    Ok(())
}
