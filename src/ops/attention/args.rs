//! Argument checks of the attention ops.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// The sizes of a tensor of two dimensions, or an error that names op and argument.
pub(crate) fn dims2(op: &str, name: &str, shape: &str, tensor: &Tensor) -> Result<(usize, usize)> {
    match *tensor.dims() {
        [a, b] => Ok((a, b)),
        _ => candle::bail!("{op}: {name} must be {shape}, got {:?}", tensor.shape()),
    }
}

/// The sizes of a tensor of three dimensions, or an error that names op and argument.
pub(crate) fn dims3(op: &str, name: &str, shape: &str, tensor: &Tensor) -> Result<(usize, usize, usize)> {
    match *tensor.dims() {
        [a, b, c] => Ok((a, b, c)),
        _ => candle::bail!("{op}: {name} must be {shape}, got {:?}", tensor.shape()),
    }
}

/// Refuses what is not a float.
pub(crate) fn float(op: &str, name: &str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 | DType::F8E4M3 => Ok(()),
        dtype => candle::bail!("{op}: {name} must be a float tensor, got {dtype:?}"),
    }
}

/// Refuses two sizes that should be the same.
pub(crate) fn same(op: &str, what: &str, got: usize, expected: usize) -> Result<()> {
    if got != expected {
        candle::bail!("{op}: {what} is {got}, expected {expected}");
    }
    Ok(())
}

/// Refuses a softmax scale that is not finite.
pub(crate) fn scale(op: &str, softmax_scale: f64) -> Result<()> {
    if !(softmax_scale as f32).is_finite() {
        candle::bail!("{op}: softmax_scale must be a finite f32, got {softmax_scale}");
    }
    Ok(())
}

/// Refuses a value dimension beyond the key's.
pub(crate) fn value_dim(op: &str, value_dim: usize, key_dim: usize) -> Result<()> {
    if value_dim > key_dim {
        candle::bail!("{op}: value_dim is {value_dim}, the keys have {key_dim} dimensions");
    }
    Ok(())
}
