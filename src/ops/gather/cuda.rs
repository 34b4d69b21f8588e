//! Rows of a table on a GPU: one block a row.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, contiguous, device_of, empty, modules, row_block};

/// [`gather`](super::gather) of tensors on one GPU.
pub(super) fn gather(table: &Tensor, indices: &Tensor, dtype: DType) -> Result<Tensor> {
    let floats = [DType::F32, DType::BF16];
    let known = floats.contains(&table.dtype()) && floats.contains(&dtype);
    if !known && !(table.dtype() == DType::U8 && dtype == DType::U8) {
        return super::reference::gather(table, indices, dtype);
    }
    let device = device_of(table)?;
    let (count, mut dims, tokens) = (table.dim(0)?, table.dims().to_vec(), indices.dim(0)?);
    let width = dims[1..].iter().product::<usize>();
    dims[0] = tokens;
    let (table, indices) = (contiguous(table)?, indices.contiguous()?);
    let out = empty(dims, dtype, device)?;
    Launch::new(&modules::GATHER, format!("gather_{}_{}", table.dtype().as_str(), dtype.as_str()))
        .tensor("table", &table)
        .tensor("indices", &indices)
        .tensor("out", &out)
        .int(width)
        .int(count)
        .run(device, [tokens, usize::from(width > 0)], row_block(width).min(256), 0)?;
    Ok(out)
}
