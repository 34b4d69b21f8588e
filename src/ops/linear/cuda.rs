//! Linear layers on a GPU: a few rows by a kernel that reads the weight once as it is stored, more by cuBLAS, or, in FP8
//! arithmetic on Hopper, by products in e4m3.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::{LinearMode, StackedWeight};
use crate::ops::cuda::{
    Form, Grouped, Launch, blocks, contiguous, converted, device_of, empty, modules, product_in_parts,
};
use crate::ops::fp8::BLOCK;
use crate::ops::fp8::cuda::rounded;
pub(crate) use crate::ops::fp8::cuda::widened;

/// Rows of `x` up to which the kernel for a few rows serves; the kernel has no more.
const ROWS: usize = 8;
/// Rows of f32 up to which weights that are not FP8 go through the kernel of one tile, which has no more; and its columns and
/// threads.
const TILE_ROWS: usize = 64;
const TILE_COLUMNS: usize = 16;
const TILE_THREADS: usize = 128;
/// The same of the kernels for Hopper, by what is multiplied: up to so many rows memory limits them.
const FEW_ROWS_IN_FP8: usize = 64;
const FEW_ROWS_WIDENED: usize = 64;
const FEW_ROWS_IN_BF16: usize = 16;
/// Elements of a weight that are widened at a time.
const TILE_ELEMENTS: usize = 1 << 26;
/// Bytes that a thread reads at a time.
const VECTOR_BYTES: usize = 16;

/// [`linear`](super::linear) of tensors on one GPU.
///
/// For more than a few rows, bf16 activations are multiplied in bf16 with FP8 weights widened to bf16; sums are f32.
pub(super) fn linear(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    if x.elem_count() == 0 || weight.elem_count() == 0 {
        return super::reference::linear(x, weight, scale);
    }
    let rows = x.elem_count() / k;
    let flat = contiguous(x)?.reshape((rows, k))?;
    let y = match on_hopper(&flat, weight, scale, LinearMode::Dequant)? {
        Some(y) => y,
        None if rows <= ROWS => few(&flat, weight, scale)?,
        None if rows <= TILE_ROWS && x.dtype() == DType::F32 && weight.dtype() != DType::F8E4M3 => tile(&flat, weight)?,
        None => many(&flat, weight, scale)?,
    };
    y.reshape(with_last(x, n))
}

/// The dimensions of a tensor, with another last one.
fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if let Some(dim) = dims.last_mut() {
        *dim = last;
    }
    dims
}

/// [`linear_fp8`](super::linear_fp8) of tensors on one GPU.
pub(super) fn linear_fp8(x: &Tensor, weight: &Tensor, scale: &Tensor, ue8m0: bool) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    if x.elem_count() == 0 || weight.elem_count() == 0 {
        return super::reference::linear(x, weight, Some(scale));
    }
    let flat = contiguous(x)?.reshape((x.elem_count() / k, k))?;
    if let Some(y) = on_hopper(&flat, weight, Some(scale), LinearMode::Fp8 { ue8m0 })? {
        return y.reshape(with_last(x, n));
    }
    linear(&rounded(x, ue8m0)?, weight, Some(scale))?.to_dtype(x.dtype())
}

/// `x: [M, K]`, contiguous, times a weight on Hopper's tensor cores, `[M, N]`; `None` where another way is taken.
fn on_hopper(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>, mode: LinearMode) -> Result<Option<Tensor>> {
    let weight_scale_inv = scale.map(|scale| scale.unsqueeze(0)).transpose()?;
    let weight = StackedWeight { weight: weight.unsqueeze(0)?, weight_scale_inv };
    let Some(form) = Form::of(x, &weight, mode)? else { return Ok(None) };
    let few = match (form, x.dim(0)?) {
        (Form::Codes { .. }, rows) => rows <= FEW_ROWS_IN_FP8,
        (Form::Widened, ..=FEW_ROWS_WIDENED) | (Form::Bf16, ..=FEW_ROWS_IN_BF16) => true,
        // cuBLAS, of a widened weight where it is FP8.
        (Form::Widened | Form::Bf16, _) => return Ok(None),
    };
    Grouped::rows(x, form, few)?.product(&weight).map(Some)
}

/// The dtype in which activations and weights of these dtypes are multiplied: f32 weights keep their precision.
pub(crate) fn product_dtype(x: DType, weight: DType) -> DType {
    if weight == DType::F32 { DType::F32 } else { x }
}

/// At most [`ROWS`] contiguous rows `[m, K]` → `[m, N]`.
fn few(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    let (device, (m, k), n) = (device_of(x)?, x.dims2()?, weight.dim(0)?);
    let weight = weight.contiguous()?;
    let scale = scale.map(|scale| converted(scale, DType::F32)).transpose()?;
    let y = empty((m, n), x.dtype(), device)?;
    Launch::new(&modules::LINEAR_ROWS, format!("linear_rows_{}_{}", x.dtype().as_str(), weight.dtype().as_str()))
        .tensor("x", x)
        .tensor("weight", &weight)
        .maybe("weight_scale_inv", scale.as_ref())
        .tensor("y", &y)
        .int(m)
        .int(n)
        .int(k)
        .int(usize::from(aligned(x, k) && aligned(&weight, k)))
        .run(device, [blocks(n, 8), 1], 256, 0)?;
    Ok(y)
}

/// Whether contiguous rows of `k` elements begin at multiples of a vector and hold whole ones.
fn aligned(tensor: &Tensor, k: usize) -> bool {
    let bytes = tensor.dtype().size_in_bytes();
    (tensor.layout().start_offset() * bytes).is_multiple_of(VECTOR_BYTES) && (k * bytes).is_multiple_of(VECTOR_BYTES)
}

/// At most [`TILE_ROWS`] contiguous rows `[m, K]` f32 → `[m, N]`.
fn tile(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (device, (m, k), n) = (device_of(x)?, x.dims2()?, weight.dim(0)?);
    let weight = contiguous(weight)?;
    let y = empty((m, n), DType::F32, device)?;
    Launch::new(&modules::LINEAR_TILE, format!("linear_tile_f32_{}", weight.dtype().as_str()))
        .tensor("x", x)
        .tensor("weight", &weight)
        .tensor("y", &y)
        .int(m)
        .int(n)
        .int(k)
        .int(usize::from(aligned(x, k) && aligned(&weight, k)))
        .run(device, [blocks(n, TILE_COLUMNS), 1], TILE_THREADS, 0)?;
    Ok(y)
}

/// Contiguous rows `[M, K]` → `[M, N]`.
fn many(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let dtype = product_dtype(x.dtype(), weight.dtype());
    if (x.dtype(), weight.dtype()) == (DType::F32, DType::BF16) {
        return product_in_parts(x, &contiguous(weight)?);
    }
    let wide = converted(x, dtype)?;
    if weight.dtype() == dtype {
        return converted(&wide.matmul(&weight.t()?)?, x.dtype());
    }
    let step = (TILE_ELEMENTS / k / BLOCK).max(1) * BLOCK;
    let mut parts = Vec::with_capacity(n.div_ceil(step));
    for row in (0..n).step_by(step) {
        let rows = step.min(n - row);
        let scale = scale.map(|scale| scale.narrow(0, row / BLOCK, rows.div_ceil(BLOCK))).transpose()?;
        let tile = widened(&weight.narrow(0, row, rows)?, scale.as_ref(), dtype)?;
        parts.push(wide.matmul(&tile.t()?)?);
    }
    let y = if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(&parts, 1)? };
    converted(&y, x.dtype())
}
