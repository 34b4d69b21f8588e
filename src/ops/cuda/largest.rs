//! The largest logit of each row on a GPU.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::{Launch, device_of, modules, row_block, unit_step};

/// Writes the token and the bits of the largest logit of each row of `logits: [n, V]` f32 to `out: [n, 2]` u32. Of equal
/// logits the smallest token; the first that is NaN or +inf beats all.
///
/// # Errors
/// If a shape or dtype is not as above, or V is 0.
pub(crate) fn write_largest(logits: &Tensor, out: &Tensor) -> Result<()> {
    let (rows, columns) = logits.dims2()?;
    if columns == 0 || logits.dtype() != DType::F32 || out.dtype() != DType::U32 || out.elem_count() != 2 * rows {
        candle::bail!("largest: logits {:?} {}, out {:?}", logits.dims(), logits.dtype().as_str(), out.dims())
    }
    let logits = unit_step(logits)?;
    Launch::new(&modules::LARGEST, "largest_f32")
        .tensor("logits", &logits)
        .long(logits.stride()[0])
        .tensor("largest", out)
        .int(columns)
        .run(device_of(&logits)?, [rows, 1], row_block(columns), 0)
}
