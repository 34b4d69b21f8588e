//! e4m3 codes with f32 scales: activations by 1×128 groups, weights by 128×128 blocks.
//!
//! A value is `code · scale`, also where a checkpoint calls the scale `weight_scale_inv`. Codes are e4m3fn
//! (largest value 448, no infinity), rounded to nearest, ties to even.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::{Backend, backend, simd::floats::check_float};

pub(crate) mod cpu;
pub(crate) mod e4m3;
pub mod reference;

pub use reference::{AMAX_FLOOR, BLOCK, E4M3_MAX};

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
    check_float("act_quant", "x", x)?;
    check_size("act_quant", "group", group)?;
    if x.rank() == 0 {
        candle::bail!("act_quant: x must have at least one dimension, got a scalar")
    }
    // A larger group or block is one group or block, here and below.
    let group = group.min(x.dims().last().copied().unwrap_or(1).max(1));
    match backend(&[x]) {
        Backend::Cpu if x.elem_count() > 0 => cpu::act_quant(x, group, ue8m0),
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
    check_codes("act_dequant", codes)?;
    check_float("act_dequant", "scale", scale)?;
    check_size("act_dequant", "group", group)?;
    let mut expected = codes.dims().to_vec();
    match expected.last_mut() {
        Some(last) => *last = last.div_ceil(group),
        None => candle::bail!("act_dequant: codes must have at least one dimension, got a scalar"),
    }
    if scale.dims() != expected {
        let dims = codes.dims();
        candle::bail!("act_dequant: scale must be {expected:?} for codes {dims:?}, got {:?}", scale.dims())
    }
    if codes.elem_count() == 0 {
        return Tensor::zeros(codes.dims(), DType::F32, codes.device());
    }
    let group = group.min(codes.dims().last().copied().unwrap_or(1));
    match backend(&[codes, scale]) {
        Backend::Cpu => cpu::act_dequant(codes, scale, group),
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
    check_float("block_quant", "w", w)?;
    check_size("block_quant", "block", block)?;
    let &[n, k] = w.dims() else { candle::bail!("block_quant: w must be [N, K], got {:?}", w.dims()) };
    let block = block.min(n.max(k).max(1));
    match backend(&[w]) {
        Backend::Cpu if w.elem_count() > 0 => cpu::block_quant(w, block, ue8m0),
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
    check_codes("block_dequant", codes)?;
    check_size("block_dequant", "block", block)?;
    let &[n, k] = codes.dims() else { candle::bail!("block_dequant: codes must be [N, K], got {:?}", codes.dims()) };
    check_block_scale("block_dequant", "scale_inv", (n, k), scale_inv, block)?;
    if codes.elem_count() == 0 {
        return Tensor::zeros(codes.dims(), DType::F32, codes.device());
    }
    let block = block.min(n.max(k));
    match backend(&[codes, scale_inv]) {
        Backend::Cpu => cpu::block_dequant(codes, scale_inv, block),
        Backend::Reference => reference::block_dequant(codes, scale_inv, block),
    }
}

/// Checks that `scale` is a float `[ceil(n/block), ceil(k/block)]`.
pub(crate) fn check_block_scale(
    op: &str,
    name: &str,
    (n, k): (usize, usize),
    scale: &Tensor,
    block: usize,
) -> Result<()> {
    check_float(op, name, scale)?;
    let expected = [n.div_ceil(block), k.div_ceil(block)];
    if scale.dims() != expected {
        candle::bail!("{op}: {name} must be {expected:?} for a weight [{n}, {k}], got {:?}", scale.dims())
    }
    Ok(())
}

fn check_codes(op: &str, codes: &Tensor) -> Result<()> {
    match codes.dtype() {
        DType::F8E4M3 => Ok(()),
        other => candle::bail!("{op}: codes must be f8e4m3, got {other:?}"),
    }
}

fn check_size(op: &str, name: &str, size: usize) -> Result<()> {
    if size == 0 {
        candle::bail!("{op}: {name} must be at least 1, got 0")
    }
    Ok(())
}
