//! Linear layers on a GPU: a few rows by a kernel that reads the weight once as it is stored, more by cuBLAS.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, blocks, contiguous, converted, device_of, empty, modules, product_in_parts};
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
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    let flat = contiguous(x)?.reshape((rows, k))?;
    let y = match rows {
        ..=ROWS => few(&flat, weight, scale)?,
        ..=TILE_ROWS if x.dtype() == DType::F32 && weight.dtype() != DType::F8E4M3 => tile(&flat, weight)?,
        _ => many(&flat, weight, scale)?,
    };
    y.reshape(dims)
}

/// [`linear_fp8`](super::linear_fp8) of tensors on one GPU.
pub(super) fn linear_fp8(x: &Tensor, weight: &Tensor, scale: &Tensor, ue8m0: bool) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return super::reference::linear(x, weight, Some(scale));
    }
    linear(&rounded(x, ue8m0)?, weight, Some(scale))?.to_dtype(x.dtype())
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
