//! Linear layers on a GPU: a few rows by a kernel that reads the weight once as it is stored, more by cuBLAS.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, blocks, device_of, empty, modules};
use crate::ops::fp8::BLOCK;
use crate::ops::fp8::cuda::rounded;
pub(crate) use crate::ops::fp8::cuda::widened;

/// Rows of `x` up to which the kernel for a few rows serves; the kernel has no more.
const ROWS: usize = 8;
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
    let flat = x.reshape((rows, k))?.contiguous()?;
    let y = if rows <= ROWS { few(&flat, weight, scale)? } else { many(&flat, weight, scale)? };
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
    let scale = scale.map(|scale| scale.to_dtype(DType::F32)?.contiguous()).transpose()?;
    let y = empty((m, n), x.dtype(), device)?;
    let aligned = |tensor: &Tensor| {
        let (_, layout) = tensor.storage_and_layout();
        let bytes = tensor.dtype().size_in_bytes();
        (layout.start_offset() * bytes).is_multiple_of(VECTOR_BYTES) && (k * bytes).is_multiple_of(VECTOR_BYTES)
    };
    Launch::new(&modules::LINEAR_ROWS, format!("linear_rows_{}_{}", x.dtype().as_str(), weight.dtype().as_str()))
        .tensor("x", x)
        .tensor("weight", &weight)
        .maybe("weight_scale_inv", scale.as_ref())
        .tensor("y", &y)
        .int(m)
        .int(n)
        .int(k)
        .int(usize::from(aligned(x) && aligned(&weight)))
        .run(device, [blocks(n, 8), 1], 256, 0)?;
    Ok(y)
}

/// Contiguous rows `[M, K]` → `[M, N]`.
fn many(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let dtype = product_dtype(x.dtype(), weight.dtype());
    let wide = x.to_dtype(dtype)?;
    if weight.dtype() == dtype {
        return wide.matmul(&weight.t()?)?.to_dtype(x.dtype());
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
    y.to_dtype(x.dtype())
}
