//! Block FP8 on a GPU: one block of threads a tile, or one thread a code.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

use super::{BLOCK, Fp8Row};
use crate::ops::cuda::{self, Launch, Rows, blocks, device_of, empty, modules, row_block, unit_step};

/// A tile that shares a scale, and how its scale is made.
struct Tile {
    rows: usize,
    columns: usize,
    /// Whether the largest value is multiplied by 1/448 and not divided by 448.
    multiplies: bool,
    ue8m0: bool,
}

/// [`act_quant`](super::act_quant) of a tensor on a GPU.
pub(super) fn act_quant(x: &Tensor, group: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = last.div_ceil(group);
    }
    let (codes, scale) = quant(x, &Tile { rows: 1, columns: group, multiplies: true, ue8m0 })?;
    Ok((codes, scale.reshape(dims)?))
}

/// [`block_quant`](super::block_quant) of a tensor on a GPU.
pub(super) fn block_quant(w: &Tensor, block: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let (n, k) = w.dims2()?;
    let (codes, scale) = quant(w, &Tile { rows: block, columns: block, multiplies: false, ue8m0 })?;
    Ok((codes, scale.reshape((n.div_ceil(block), k.div_ceil(block)))?))
}

fn quant(x: &Tensor, tile: &Tile) -> Result<(Tensor, Tensor)> {
    let (device, width) = (device_of(x)?, x.dim(D::Minus1)?);
    let height = x.elem_count() / width;
    let tiles = height.div_ceil(tile.rows) * width.div_ceil(tile.columns);
    let (source, rows) = Rows::of(x)?;
    let codes = empty(x.dims(), DType::F8E4M3, device)?;
    let scale = empty(tiles, DType::F32, device)?;
    Launch::new(&modules::FP8, format!("fp8_quant_{}", x.dtype().as_str()))
        .rows("x", &source, rows)
        .tensor("codes", &codes)
        .tensor("scale", &scale)
        .int(height)
        .int(width)
        .int(tile.rows)
        .int(tile.columns)
        .int(usize::from(tile.multiplies))
        .int(usize::from(tile.ue8m0))
        .run(device, [tiles, 1], row_block(tile.rows.saturating_mul(tile.columns)), 0)?;
    Ok((codes, scale))
}

/// [`act_dequant`](super::act_dequant) of tensors on one GPU.
pub(super) fn act_dequant(codes: &Tensor, scale: &Tensor, group: usize) -> Result<Tensor> {
    dequant(codes, Some(scale), (1, group), DType::F32)
}

/// [`block_dequant`](super::block_dequant) of tensors on one GPU.
pub(super) fn block_dequant(codes: &Tensor, scale_inv: &Tensor, block: usize) -> Result<Tensor> {
    dequant(codes, Some(scale_inv), (block, block), DType::F32)
}

/// [`row_quant`](super::row_quant) of a tensor on a GPU.
pub(super) fn row_quant(x: &Tensor, row: Fp8Row, ue8m0: bool) -> Result<Tensor> {
    let (device, count) = (device_of(x)?, x.dim(0)?);
    let packed = empty((count, row.bytes()), DType::U8, device)?;
    let (source, rows) = Rows::of(x)?;
    Launch::new(&modules::FP8, format!("fp8_row_quant_{}", x.dtype().as_str()))
        .rows("x", &source, rows)
        .tensor("rows", &packed)
        .int(row.quantized)
        .int(row.plain)
        .int(row.bytes())
        .int(usize::from(ue8m0))
        .run(device, [count, 1], row_block(row.width()).min(cuda::BLOCK), 0)?;
    Ok(packed)
}

/// [`row_dequant`](super::row_dequant) of a tensor on a GPU.
pub(super) fn row_dequant(rows: &Tensor, row: Fp8Row) -> Result<Tensor> {
    let (device, count) = (device_of(rows)?, rows.dim(0)?);
    let (out, elements) = (empty((count, row.width()), DType::F32, device)?, count * row.width());
    let rows = unit_step(rows)?;
    Launch::new(&modules::FP8, "fp8_row_dequant")
        .tensor("rows", &rows)
        .long(rows.stride()[0])
        .tensor("out", &out)
        .int(row.width())
        .int(row.quantized)
        .long(elements)
        .run(device, [blocks(elements, cuda::BLOCK), 1], cuda::BLOCK, 0)?;
    Ok(out)
}

/// A weight `[.., N, K]` in another dtype, f32 or bf16: codes with the scales of their 128×128 blocks, codes as they are,
/// or numbers. The rows above the last two dimensions must fill whole blocks.
pub(crate) fn widened(weight: &Tensor, scale: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
    match weight.dtype() {
        DType::F8E4M3 => dequant(weight, scale, (BLOCK, BLOCK), dtype),
        _ => cuda::converted(weight, dtype),
    }
}

/// `x` rounded to e4m3 by groups of 128, as f32: what FP8 arithmetic multiplies.
pub(crate) fn rounded(x: &Tensor, ue8m0: bool) -> Result<Tensor> {
    let group = BLOCK.min(x.dim(D::Minus1)?.max(1));
    let (codes, scale) = act_quant(x, group, ue8m0)?;
    act_dequant(&codes, &scale, group)
}

fn dequant(codes: &Tensor, scale: Option<&Tensor>, tile: (usize, usize), dtype: DType) -> Result<Tensor> {
    let device = device_of(codes)?;
    let codes = codes.contiguous()?;
    let scale = scale.map(|scale| scale.to_dtype(DType::F32)?.contiguous()).transpose()?;
    let (out, elements) = (empty(codes.dims(), dtype, device)?, codes.elem_count());
    Launch::new(&modules::FP8, format!("fp8_dequant_{}", dtype.as_str()))
        .tensor("codes", &codes)
        .maybe("scale", scale.as_ref())
        .tensor("out", &out)
        .int(codes.dim(D::Minus1)?)
        .int(tile.0)
        .int(tile.1)
        .long(elements)
        .run(device, [blocks(elements, cuda::BLOCK), 1], cuda::BLOCK, 0)?;
    Ok(out)
}
