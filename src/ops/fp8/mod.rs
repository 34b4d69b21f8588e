//! e4m3 codes with f32 scales: activations by 1×128 groups, weights by 128×128 blocks.
//!
//! A value is `code · scale`, also where a checkpoint calls the scale `weight_scale_inv`. Codes are e4m3fn
//! (largest value 448, no infinity), rounded to nearest, ties to even.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod e4m3;
pub mod reference;

pub(crate) use reference::float_rows;
pub use reference::{AMAX_FLOOR, BLOCK, E4M3_MAX, Fp8Row};

pub(crate) const ACT_QUANT: Op = Op { name: "act_quant", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const ACT_DEQUANT: Op = Op { name: "act_dequant", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const BLOCK_QUANT: Op = Op { name: "block_quant", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const BLOCK_DEQUANT: Op = Op { name: "block_dequant", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const ROW_QUANT: Op = Op { name: "row_quant", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_TRACKED };
pub(crate) const ROW_DEQUANT: Op = Op { name: "row_dequant", cpu: FastPath::CPU, cuda: FastPath::CUDA_KEYS };

/// Quantises groups of `group` neighbours of the last dimension; the last group may be shorter.
///
/// `scale = max(amax, 1e-4) · (1/448)`, rounded up to a power of two if `ue8m0`; `code = e4m3(x / scale)`.
/// A NaN becomes a NaN code and does not count for its group's scale.
///
/// # Shapes
/// - `x`: `[.., K]`, f32, bf16, f16 or f64
/// - result: codes `[.., K]` f8e4m3, scale `[.., ceil(K/group)]` f32
///
/// # Errors
/// If `x` has no dimension, is not a float, or `group` is 0.
///
/// # Source
/// DeepSeek-V3.2-Exp `inference/kernel.py`, `act_quant`.
pub fn act_quant(x: &Tensor, group: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("act_quant").entered();
    args::dtype(ACT_QUANT.name, "x", x, args::FLOATS)?;
    args::positive(ACT_QUANT.name, "group", group)?;
    let width = args::last_dim(ACT_QUANT.name, "x", x, any("K"))?;
    // A larger group or block is one group or block, here and below.
    let group = group.min(width.max(1));
    match ACT_QUANT.backend([x]) {
        Backend::Cpu if x.elem_count() > 0 => cpu::act_quant(x, group, ue8m0),
        #[cfg(feature = "cuda")]
        Backend::Cuda if x.elem_count() > 0 => cuda::act_quant(x, group, ue8m0),
        _ => reference::act_quant(x, group, ue8m0),
    }
}

/// `codes · scale`, the inverse of [`act_quant`] up to rounding.
///
/// # Shapes
/// - `codes`: `[.., K]` f8e4m3; `scale`: `[.., ceil(K/group)]` f32
/// - result: `[.., K]` f32
///
/// # Errors
/// If a shape or dtype is not as above, or `group` is 0.
pub fn act_dequant(codes: &Tensor, scale: &Tensor, group: usize) -> Result<Tensor> {
    args::dtype(ACT_DEQUANT.name, "codes", codes, &[DType::F8E4M3])?;
    args::dtype(ACT_DEQUANT.name, "scale", scale, args::FLOATS)?;
    args::positive(ACT_DEQUANT.name, "group", group)?;
    let width = args::last_dim(ACT_DEQUANT.name, "codes", codes, any("K"))?;
    let (_, rows) = codes.dims().split_last().unwrap_or((&0, &[]));
    args::same_shape(ACT_DEQUANT.name, "scale", scale, &[rows, &[width.div_ceil(group)]].concat())?;
    if codes.elem_count() == 0 {
        return Tensor::zeros(codes.dims(), DType::F32, codes.device());
    }
    let group = group.min(width);
    match ACT_DEQUANT.backend([codes, scale]) {
        Backend::Cpu => cpu::act_dequant(codes, scale, group),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::act_dequant(codes, scale, group),
        Backend::Reference => reference::act_dequant(codes, scale, group),
    }
}

/// Quantises `block`×`block` tiles of a weight; tiles at the right and lower edge may be smaller.
///
/// `scale = max(amax, 1e-4) / 448`, rounded up to a power of two if `ue8m0`; `code = e4m3(w / scale)`.
///
/// # Shapes
/// - `w`: `[N, K]`, f32, bf16, f16 or f64
/// - result: codes `[N, K]` f8e4m3, `scale_inv` `[ceil(N/block), ceil(K/block)]` f32
///
/// # Errors
/// If `w` is not a 2-d float tensor, or `block` is 0.
pub fn block_quant(w: &Tensor, block: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    args::dtype(BLOCK_QUANT.name, "w", w, args::FLOATS)?;
    args::positive(BLOCK_QUANT.name, "block", block)?;
    let [n, k] = args::shape(BLOCK_QUANT.name, "w", w, ["N", "K"].map(any))?;
    let block = block.min(n.max(k).max(1));
    match BLOCK_QUANT.backend([w]) {
        Backend::Cpu if w.elem_count() > 0 => cpu::block_quant(w, block, ue8m0),
        #[cfg(feature = "cuda")]
        Backend::Cuda if w.elem_count() > 0 => cuda::block_quant(w, block, ue8m0),
        _ => reference::block_quant(w, block, ue8m0),
    }
}

/// `codes · scale_inv` per `block`×`block` tile.
///
/// # Shapes
/// - `codes`: `[N, K]` f8e4m3; `scale_inv`: `[ceil(N/block), ceil(K/block)]` f32
/// - result: `[N, K]` f32
///
/// # Errors
/// If a shape or dtype is not as above, or `block` is 0.
///
/// # Source
/// DeepSeek-V3 `README_WEIGHTS.md`.
pub fn block_dequant(codes: &Tensor, scale_inv: &Tensor, block: usize) -> Result<Tensor> {
    args::dtype(BLOCK_DEQUANT.name, "codes", codes, &[DType::F8E4M3])?;
    args::positive(BLOCK_DEQUANT.name, "block", block)?;
    let [n, k] = args::shape(BLOCK_DEQUANT.name, "codes", codes, ["N", "K"].map(any))?;
    check_block_scale(BLOCK_DEQUANT.name, "scale_inv", (n, k), scale_inv, block)?;
    if codes.elem_count() == 0 {
        return Tensor::zeros(codes.dims(), DType::F32, codes.device());
    }
    let block = block.min(n.max(k));
    match BLOCK_DEQUANT.backend([codes, scale_inv]) {
        Backend::Cpu => cpu::block_dequant(codes, scale_inv, block),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::block_dequant(codes, scale_inv, block),
        Backend::Reference => reference::block_dequant(codes, scale_inv, block),
    }
}

/// Packs rows as an FP8 key cache keeps them: codes and scales as [`act_quant`] makes them by groups of 128, and the rest
/// rounded to bf16. No gradient flows.
///
/// # Shapes
/// - `x`: `[T, row.width()]`, f32, bf16, f16 or f64
/// - result: `[T, row.bytes()]` u8
///
/// # Errors
/// If a shape or dtype is not as above.
///
/// # Source
/// FlashMLA's README, "FP8 KV cache".
pub fn row_quant(x: &Tensor, row: Fp8Row, ue8m0: bool) -> Result<Tensor> {
    args::dtype(ROW_QUANT.name, "x", x, args::FLOATS)?;
    args::shape(ROW_QUANT.name, "x", x, [any("T"), exactly("width", row.width())])?;
    match ROW_QUANT.backend([x]) {
        Backend::Cpu => cpu::row_quant(x, row, ue8m0),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::row_quant(x, row, ue8m0),
        Backend::Reference => reference::row_quant(x, row, ue8m0),
    }
}

/// The values of rows that [`row_quant`] packed.
///
/// # Shapes
/// - `rows`: `[T, row.bytes()]` u8
/// - result: `[T, row.width()]` f32
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn row_dequant(rows: &Tensor, row: Fp8Row) -> Result<Tensor> {
    args::dtype(ROW_DEQUANT.name, "rows", rows, &[DType::U8])?;
    args::shape(ROW_DEQUANT.name, "rows", rows, [any("T"), exactly("bytes", row.bytes())])?;
    match ROW_DEQUANT.backend([rows]) {
        Backend::Cpu => cpu::row_dequant(rows, row),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::row_dequant(rows, row),
        Backend::Reference => reference::row_dequant(rows, row),
    }
}

/// Checks `[slots, D]` keys, or the rows of an FP8 cache; returns the slots.
pub(crate) fn check_keys(op: &str, name: &str, keys: &Tensor, row: Fp8Row) -> Result<usize> {
    let dim = match keys.dtype() {
        DType::U8 => exactly("bytes of a row", row.bytes()),
        _ => exactly("D", row.width()),
    };
    let [slots, _] = args::shape(op, name, keys, [any("slots"), dim])?;
    args::dtype(op, name, keys, args::KEYS)?;
    Ok(slots)
}

/// Checks that `scale` is a float `[ceil(n/block), ceil(k/block)]`.
pub(crate) fn check_block_scale(
    op: &str,
    name: &str,
    (n, k): (usize, usize),
    scale: &Tensor,
    block: usize,
) -> Result<()> {
    args::dtype(op, name, scale, args::FLOATS)?;
    args::shape(
        op,
        name,
        scale,
        [exactly("blocks of N", n.div_ceil(block)), exactly("blocks of K", k.div_ceil(block))],
    )?;
    Ok(())
}
