//! Block FP8 on CPU.

use candle::{CpuStorage, Device, Result, Storage, Tensor};
use candle_core as candle;
use float8::F8E4M3;
use half::bf16;

use super::{AMAX_FLOOR, BLOCK, E4M3_MAX, Fp8Row, e4m3};
use crate::ops::cpu::floats::{Floats, for_rows};
use crate::ops::cpu::rows::Rows;
use crate::ops::cpu::simd::{isa, simd_kernel};

/// [`act_quant`](super::act_quant) of a CPU tensor.
pub(super) fn act_quant(x: &Tensor, group: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let values = Floats::new(x)?;
    let values = values.as_slice();
    let width = x.dims().last().copied().unwrap_or(1);
    let groups = width.div_ceil(group);
    let mut scale = vec![0.0f32; values.len() / width * groups];
    for_rows(&mut scale, groups, |row, scale| {
        let row = &values[row * width..][..width];
        row.chunks(group).zip(scale).for_each(|(values, scale)| *scale = activation_scale(amax(values), ue8m0));
    });
    let mut codes = vec![F8E4M3::ZERO; values.len()];
    let isa = isa();
    for_rows(&mut codes, width, |row, codes| {
        let values = values[row * width..][..width].chunks(group);
        let scale = &scale[row * groups..][..groups];
        for ((codes, values), &scale) in codes.chunks_mut(group).zip(values).zip(scale) {
            encode(isa, values, scale, codes);
        }
    });
    let mut scale_dims = x.dims().to_vec();
    if let Some(last) = scale_dims.last_mut() {
        *last = groups;
    }
    Ok((Tensor::from_vec(codes, x.dims(), &Device::Cpu)?, Tensor::from_vec(scale, scale_dims, &Device::Cpu)?))
}

/// [`act_dequant`](super::act_dequant) of CPU tensors.
pub(super) fn act_dequant(codes: &Tensor, scale: &Tensor, group: usize) -> Result<Tensor> {
    let scale = Floats::new(scale)?;
    let scale = scale.as_slice();
    let width = codes.dims().last().copied().unwrap_or(1);
    let groups = width.div_ceil(group);
    let out = with_codes(codes, |codes| {
        let mut out = vec![0.0f32; codes.len()];
        for_rows(&mut out, width, |row, out| {
            let codes = &codes[row * width..][..width];
            let scale = &scale[row * groups..][..groups];
            for ((out, codes), scale) in out.chunks_mut(group).zip(codes.chunks(group)).zip(scale) {
                out.iter_mut().zip(codes).for_each(|(out, code)| *out = e4m3::decode(code.to_bits()) * scale);
            }
        });
        out
    })?;
    Tensor::from_vec(out, codes.dims(), &Device::Cpu)
}

/// [`block_quant`](super::block_quant) of a CPU tensor.
pub(super) fn block_quant(w: &Tensor, block: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let (n, k) = w.dims2()?;
    let values = Floats::new(w)?;
    let values = values.as_slice();
    let columns = k.div_ceil(block);
    let mut scale = vec![0.0f32; n.div_ceil(block) * columns];
    for (values, scale) in values.chunks(block.saturating_mul(k)).zip(scale.chunks_mut(columns)) {
        for row in values.chunks(k) {
            row.chunks(block).zip(&mut *scale).for_each(|(values, scale)| *scale = scale.max(amax(values)));
        }
        for scale in scale {
            let exact = scale.max(AMAX_FLOOR) / E4M3_MAX;
            *scale = if ue8m0 { e4m3::pow2_ceil(exact) } else { exact };
        }
    }
    let mut codes = vec![F8E4M3::ZERO; values.len()];
    let isa = isa();
    for_rows(&mut codes, k, |row, codes| {
        let scale = &scale[row / block * columns..][..columns];
        for ((codes, values), &scale) in codes.chunks_mut(block).zip(values[row * k..][..k].chunks(block)).zip(scale) {
            encode(isa, values, scale, codes);
        }
    });
    let scale = Tensor::from_vec(scale, (n.div_ceil(block), columns), &Device::Cpu)?;
    Ok((Tensor::from_vec(codes, (n, k), &Device::Cpu)?, scale))
}

/// [`block_dequant`](super::block_dequant) of CPU tensors.
pub(super) fn block_dequant(codes: &Tensor, scale_inv: &Tensor, block: usize) -> Result<Tensor> {
    let (n, k) = codes.dims2()?;
    let scale = Floats::new(scale_inv)?;
    let scale = scale.as_slice();
    let columns = k.div_ceil(block);
    let out = with_codes(codes, |codes| {
        let mut out = vec![0.0f32; codes.len()];
        for_rows(&mut out, k, |row, out| {
            let codes = codes[row * k..][..k].chunks(block);
            let scale = &scale[row / block * columns..][..columns];
            for ((out, codes), scale) in out.chunks_mut(block).zip(codes).zip(scale) {
                out.iter_mut().zip(codes).for_each(|(out, code)| *out = e4m3::decode(code.to_bits()) * scale);
            }
        });
        out
    })?;
    Tensor::from_vec(out, (n, k), &Device::Cpu)
}

/// [`row_quant`](super::row_quant) of a CPU tensor.
pub(super) fn row_quant(x: &Tensor, row: Fp8Row, ue8m0: bool) -> Result<Tensor> {
    let (rows, values, isa) = (x.dim(0)?, Floats::new(x)?, isa());
    let values = values.as_slice();
    let mut bytes = vec![0u8; rows * row.bytes()];
    for_rows(&mut bytes, row.bytes(), |index, bytes| {
        let (quantized, plain) = values[index * row.width()..][..row.width()].split_at(row.quantized);
        let (codes, rest) = bytes.split_at_mut(row.quantized);
        let (scales, plain_bytes) = rest.split_at_mut(row.plain_start() - row.quantized);
        let groups = quantized.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales.as_chunks_mut::<4>().0);
        for ((values, codes), scale_bytes) in groups {
            let scale = activation_scale(amax(values), ue8m0);
            *scale_bytes = scale.to_le_bytes();
            encode_bytes(isa, values, scale, codes);
        }
        for (bytes, &value) in plain_bytes.as_chunks_mut::<2>().0.iter_mut().zip(plain) {
            *bytes = bf16::from_f32(value).to_le_bytes();
        }
    });
    Tensor::from_vec(bytes, (rows, row.bytes()), &Device::Cpu)
}

/// [`row_dequant`](super::row_dequant) of a CPU tensor.
pub(super) fn row_dequant(rows: &Tensor, row: Fp8Row) -> Result<Tensor> {
    let (count, packed) = (rows.dim(0)?, rows.contiguous()?);
    let (storage, layout) = packed.storage_and_layout();
    let packed = Rows::keys(&storage, layout, row)?;
    let mut values = vec![0.0f32; count * row.width()];
    for_rows(&mut values, row.width(), |index, out| packed.copy(index, out));
    Tensor::from_vec(values, (count, row.width()), &Device::Cpu)
}

/// Codes `[M, width]` as f32 and scales `[M, ceil(width/128)]` of rows of `width`, in groups of 128.
pub(crate) fn quantise_rows(x: &[f32], width: usize, ue8m0: bool) -> (Vec<f32>, Vec<f32>) {
    let isa = isa();
    let groups = width.div_ceil(super::BLOCK);
    let mut scale = vec![0.0f32; x.len() / width.max(1) * groups];
    for_rows(&mut scale, groups, |row, scale| {
        let values = x[row * width..][..width].chunks(super::BLOCK);
        values.zip(scale).for_each(|(values, scale)| *scale = activation_scale(amax(values), ue8m0));
    });
    let mut codes = x.to_vec();
    for_rows(&mut codes, width, |row, codes| {
        let scale = &scale[row * groups..][..groups];
        codes.chunks_mut(super::BLOCK).zip(scale).for_each(|(codes, &scale)| round(isa, codes, scale));
    });
    (codes, scale)
}

/// Calls `body` with the codes in row-major order.
fn with_codes<R>(codes: &Tensor, body: impl FnOnce(&[F8E4M3]) -> R) -> Result<R> {
    let codes = codes.contiguous()?;
    let (guard, layout) = codes.storage_and_layout();
    match &*guard {
        Storage::Cpu(CpuStorage::F8E4M3(values)) => Ok(body(&values[layout.start_offset()..][..codes.elem_count()])),
        _ => candle::bail!("expected f8e4m3 codes on CPU"),
    }
}

/// The largest absolute value; NaN does not count.
fn amax(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(value.abs());
        }
    }
    lanes.iter().chain(rest).fold(0.0, |amax, value| amax.max(value.abs()))
}

fn activation_scale(amax: f32, ue8m0: bool) -> f32 {
    let exact = amax.max(AMAX_FLOOR) * (1.0 / E4M3_MAX);
    if ue8m0 { e4m3::pow2_ceil(exact) } else { exact }
}

#[inline(always)]
fn encode_body<const FMA: bool>(values: &[f32], scale: f32, codes: &mut [F8E4M3]) {
    for (code, value) in codes.iter_mut().zip(values) {
        *code = F8E4M3::from_bits(e4m3::encode(value / scale));
    }
}
simd_kernel! {
    /// `codes = e4m3(values / scale)`.
    fn encode(values: &[f32], scale: f32, codes: &mut [F8E4M3]) = encode_body
}

#[inline(always)]
fn encode_bytes_body<const FMA: bool>(values: &[f32], scale: f32, codes: &mut [u8]) {
    for (code, value) in codes.iter_mut().zip(values) {
        *code = e4m3::encode(value / scale);
    }
}
simd_kernel! {
    /// `codes` are the bits of `e4m3(values / scale)`.
    fn encode_bytes(values: &[f32], scale: f32, codes: &mut [u8]) = encode_bytes_body
}

#[inline(always)]
fn round_body<const FMA: bool>(values: &mut [f32], scale: f32) {
    for value in values {
        *value = e4m3::round(*value / scale);
    }
}
simd_kernel! {
    /// `values = e4m3(values / scale)`.
    fn round(values: &mut [f32], scale: f32) = round_body
}
