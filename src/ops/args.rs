//! Checks of the ops' arguments. Every error names the op, the argument, what was expected and what was found:
//! `mha: k must be [S, H = 4, Dq = 8], got [5, 3, 8]`.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// Dtypes of activations and of the parameters of norms.
pub(crate) const FLOATS: &[DType] = &[DType::F32, DType::BF16, DType::F16, DType::F64];
/// Dtypes of queries, keys and values.
pub(crate) const FLOATS_AND_FP8: &[DType] = &[DType::F32, DType::BF16, DType::F16, DType::F64, DType::F8E4M3];
/// Dtypes of cached keys: u8 for the rows of an FP8 cache.
pub(crate) const KEYS: &[DType] = &[DType::F32, DType::BF16, DType::F16, DType::F64, DType::F8E4M3, DType::U8];
/// Dtypes of the weights of linear layers.
pub(crate) const WEIGHTS: &[DType] = &[DType::F32, DType::BF16, DType::F16, DType::F8E4M3];

/// A dimension of an expected shape.
#[derive(Clone, Copy)]
pub(crate) struct Dim {
    name: &'static str,
    size: Option<usize>,
}

/// A dimension of any size.
pub(crate) fn any(name: &'static str) -> Dim {
    Dim { name, size: None }
}

/// A dimension of this size.
pub(crate) fn exactly(name: &'static str, size: usize) -> Dim {
    Dim { name, size: Some(size) }
}

impl Dim {
    fn takes(self, size: usize) -> bool {
        self.size.is_none_or(|expected| expected == size)
    }

    fn expected(self) -> String {
        match self.size {
            None => self.name.to_string(),
            Some(size) => format!("{} = {size}", self.name),
        }
    }
}

/// Returns the sizes of a tensor of the shape `dims`.
pub(crate) fn shape<const N: usize>(op: &str, name: &str, tensor: &Tensor, dims: [Dim; N]) -> Result<[usize; N]> {
    match <[usize; N]>::try_from(tensor.dims()) {
        Ok(sizes) if dims.iter().zip(sizes).all(|(dim, size)| dim.takes(size)) => Ok(sizes),
        _ => {
            let expected = dims.map(Dim::expected).join(", ");
            candle::bail!("{op}: {name} must be [{expected}], got {:?}", tensor.dims())
        }
    }
}

/// Returns the size of the last dimension of a tensor of the shape `[.., dim]`.
pub(crate) fn last_dim(op: &str, name: &str, tensor: &Tensor, dim: Dim) -> Result<usize> {
    match tensor.dims().last() {
        Some(&size) if dim.takes(size) => Ok(size),
        Some(_) => candle::bail!("{op}: {name} must be [.., {}], got {:?}", dim.expected(), tensor.dims()),
        None => candle::bail!("{op}: {name} must be [.., {}], got a scalar", dim.expected()),
    }
}

/// Checks that `x` is `[.., H]` and `parameter` `[H]`, both floats.
pub(crate) fn row_parameter(op: &str, name: &str, x: &Tensor, parameter: &Tensor) -> Result<()> {
    dtype(op, "x", x, FLOATS)?;
    dtype(op, name, parameter, FLOATS)?;
    let width = last_dim(op, "x", x, any("H"))?;
    shape(op, name, parameter, [exactly("H", width)]).map(|_| ())
}

/// Refuses a tensor whose shape is not `expected`.
pub(crate) fn same_shape(op: &str, name: &str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    if tensor.dims() != expected {
        candle::bail!("{op}: {name} must be {expected:?}, got {:?}", tensor.dims())
    }
    Ok(())
}

/// Refuses a tensor of a dtype that is not in `expected`.
pub(crate) fn dtype(op: &str, name: &str, tensor: &Tensor, expected: &[DType]) -> Result<()> {
    if expected.contains(&tensor.dtype()) {
        return Ok(());
    }
    let names: Vec<_> = expected.iter().map(|dtype| dtype.as_str()).collect();
    let expected = match names.split_last() {
        Some((last, [])) => last.to_string(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => String::new(),
    };
    candle::bail!("{op}: {name} must be {expected}, got {}", tensor.dtype().as_str())
}

/// Refuses a softmax scale that is not a finite f32.
pub(crate) fn softmax_scale(op: &str, softmax_scale: f64) -> Result<()> {
    if !(softmax_scale as f32).is_finite() {
        candle::bail!("{op}: softmax_scale must be a finite f32, got {softmax_scale}")
    }
    Ok(())
}

/// Refuses 0.
pub(crate) fn positive(op: &str, name: &str, value: usize) -> Result<()> {
    if value == 0 {
        candle::bail!("{op}: {name} must be at least 1, got 0")
    }
    Ok(())
}

/// Refuses a number outside `least..=most`.
pub(crate) fn number(op: &str, name: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if !(least..=most).contains(&value) {
        candle::bail!("{op}: {name} must be in {least}..={most}, got {value}")
    }
    Ok(())
}
