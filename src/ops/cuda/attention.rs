//! What the attention kernels' launches share: one warp a head of a row, in registers.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::module::{Module, modules};
use crate::ops::indices_i64;

/// Threads of a block.
pub(crate) const ATTENTION_BLOCK: usize = 256;
/// Pairs of a row and a head that a block takes.
pub(crate) const ATTENTION_PAIRS: usize = ATTENTION_BLOCK / 32;

/// Widths of keys and of values that the kernels of each name hold in registers.
const WIDTHS: [(&str, usize, usize); 2] = [("narrow", 256, 128), ("wide", 576, 512)];

/// Returns the kernel of an attention op for these dtypes and widths; `None` if there is none.
pub(crate) fn attention_kernel(op: &str, q: DType, keys: DType, dim: usize, value_dim: usize) -> Option<String> {
    let (width, ..) = WIDTHS.iter().find(|(_, keys, values)| dim <= *keys && value_dim <= *values)?;
    let known = [DType::F32, DType::BF16].contains(&q) && [DType::F32, DType::BF16, DType::U8].contains(&keys);
    known.then(|| format!("{op}_{}_{}_{width}", q.as_str(), keys.as_str()))
}

/// Pairs of a row and a head up to which a block takes one of them: a warp alone would wait for each key in turn.
const FEW_PAIRS: usize = 1024;

/// Returns where the kernel of `sparse_mla` or `dense_mla` is for so many pairs of a row and a head, its name and its blocks.
pub(crate) fn attention_grid(all: &'static Module, kernel: String, pairs: usize) -> (&'static Module, String, usize) {
    if pairs > FEW_PAIRS {
        return (all, kernel, pairs.div_ceil(ATTENTION_PAIRS));
    }
    let kernel = kernel.replacen("_mla_", "_mla_rows_", 1);
    (&modules::ATTENTION_ROWS, kernel, pairs)
}

/// Returns `indices: [T, K]`, i32 or i64, as the kernels read them; in i64 if they have to be copied, which candle can do.
pub(crate) fn contiguous_indices(indices: &Tensor) -> Result<Tensor> {
    if indices.is_contiguous() { Ok(indices.clone()) } else { indices_i64(indices)?.contiguous() }
}

/// Returns the tensor, copied only if the elements of its last dimension are not neighbours in memory.
pub(crate) fn unit_step(tensor: &Tensor) -> Result<Tensor> {
    match (tensor.dims().last(), tensor.stride().last()) {
        (Some(1), _) | (_, Some(1)) => Ok(tensor.clone()),
        _ => super::contiguous(tensor),
    }
}
