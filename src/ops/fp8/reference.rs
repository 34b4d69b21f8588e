//! Block FP8 as a composition of candle tensor functions.

use candle::{D, DType, Device, Result, Tensor};
use candle_core as candle;

/// Rows and columns of a block of FP8 weights, and channels of a group of FP8 activations.
pub const BLOCK: usize = 128;
/// The largest finite e4m3 value.
pub const E4M3_MAX: f32 = 448.0;
/// The least amax that a scale is made from; keeps scales away from zero.
pub const AMAX_FLOOR: f32 = 1e-4;

/// [`act_quant`](super::act_quant) on any device.
///
/// # Errors
/// Those of the tensor functions.
pub fn act_quant(x: &Tensor, group: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let width = x.dim(D::Minus1)?;
    let rows = x.elem_count() / width.max(1);
    let groups = width.div_ceil(group);
    let mut scale_dims = x.dims().to_vec();
    if let Some(last) = scale_dims.last_mut() {
        *last = groups;
    }
    if rows == 0 || groups == 0 {
        let codes = Tensor::zeros(x.dims(), DType::F8E4M3, x.device())?;
        return Ok((codes, Tensor::zeros(scale_dims, DType::F32, x.device())?));
    }
    let wide = x.to_dtype(DType::F32)?.reshape((rows, width))?;
    let grouped = wide.pad_with_zeros(1, 0, groups * group - width)?.reshape((rows, groups, group))?;
    let amax = finite_abs(&grouped)?.max_keepdim(D::Minus1)?.maximum(AMAX_FLOOR)?;
    let mut scale = (amax * f64::from(1.0 / E4M3_MAX))?;
    if ue8m0 {
        scale = pow2_ceil(&scale)?;
    }
    let codes = encode(&grouped.broadcast_div(&scale)?)?.reshape((rows, groups * group))?.narrow(1, 0, width)?;
    Ok((codes.contiguous()?.reshape(x.dims())?, scale.reshape(scale_dims)?))
}

/// [`act_dequant`](super::act_dequant) on any device, differentiable in the scale.
///
/// # Errors
/// Those of the tensor functions.
pub fn act_dequant(codes: &Tensor, scale: &Tensor, group: usize) -> Result<Tensor> {
    let width = codes.dim(D::Minus1)?;
    let rows = codes.elem_count() / width.max(1);
    let groups = width.div_ceil(group);
    let spread = scale.to_dtype(DType::F32)?.reshape((rows, groups, 1))?.broadcast_as((rows, groups, group))?;
    let spread = spread.reshape((rows, groups * group))?.narrow(1, 0, width)?;
    codes.to_dtype(DType::F32)?.reshape((rows, width))?.mul(&spread)?.reshape(codes.dims())
}

/// [`block_quant`](super::block_quant) on any device.
///
/// # Errors
/// Those of the tensor functions.
pub fn block_quant(w: &Tensor, block: usize, ue8m0: bool) -> Result<(Tensor, Tensor)> {
    let (n, k) = w.dims2()?;
    let (n_blocks, k_blocks) = (n.div_ceil(block), k.div_ceil(block));
    if n == 0 || k == 0 {
        let codes = Tensor::zeros((n, k), DType::F8E4M3, w.device())?;
        return Ok((codes, Tensor::zeros((n_blocks, k_blocks), DType::F32, w.device())?));
    }
    let padded = w.to_dtype(DType::F32)?.pad_with_zeros(0, 0, n_blocks * block - n)?;
    let padded = padded.pad_with_zeros(1, 0, k_blocks * block - k)?;
    let blocks = padded.reshape((n_blocks, block, k_blocks, block))?;
    let amax = finite_abs(&blocks)?.max_keepdim(3)?.max_keepdim(1)?.maximum(AMAX_FLOOR)?;
    let mut scale = amax.broadcast_div(&Tensor::new(E4M3_MAX, w.device())?)?;
    if ue8m0 {
        scale = pow2_ceil(&scale)?;
    }
    let codes = encode(&blocks.broadcast_div(&scale)?)?.reshape((n_blocks * block, k_blocks * block))?;
    Ok((codes.narrow(0, 0, n)?.narrow(1, 0, k)?.contiguous()?, scale.reshape((n_blocks, k_blocks))?))
}

/// [`block_dequant`](super::block_dequant) on any device, differentiable in the scale.
///
/// # Errors
/// Those of the tensor functions.
pub fn block_dequant(codes: &Tensor, scale_inv: &Tensor, block: usize) -> Result<Tensor> {
    let (n, k) = codes.dims2()?;
    let (n_blocks, k_blocks) = scale_inv.dims2()?;
    let spread = scale_inv.to_dtype(DType::F32)?.reshape((n_blocks, 1, k_blocks, 1))?;
    let spread = spread.broadcast_as((n_blocks, block, k_blocks, block))?;
    let spread = spread.reshape((n_blocks * block, k_blocks * block))?.narrow(0, 0, n)?.narrow(1, 0, k)?;
    codes.to_dtype(DType::F32)?.mul(&spread)
}

/// `|x|`, with 0 for NaN: a NaN becomes a NaN code and leaves its neighbours' scale alone.
fn finite_abs(x: &Tensor) -> Result<Tensor> {
    x.eq(x)?.where_cond(&x.abs()?, &x.zeros_like()?)
}

/// Rounds to the nearest e4m3 code, ties to even, after clamping to ±448; NaN stays NaN.
fn encode(x: &Tensor) -> Result<Tensor> {
    x.clamp(-E4M3_MAX, E4M3_MAX)?.to_dtype(DType::F8E4M3)
}

/// The least power of two not below each element; exact, for positive normal f32.
fn pow2_ceil(x: &Tensor) -> Result<Tensor> {
    // Candle has no bit operations: count the powers of two below an element and look the next one up.
    let powers: Vec<f32> = (1..=255).map(|exponent: u32| f32::from_bits(exponent << 23)).collect();
    let table = Tensor::new(powers, &Device::Cpu)?.to_device(x.device())?;
    let below = table.narrow(0, 0, 254)?.reshape((1, 254))?.broadcast_lt(&x.flatten_all()?.unsqueeze(1)?)?;
    let index = below.to_dtype(DType::F32)?.sum(1)?.to_dtype(DType::U32)?;
    table.index_select(&index, 0)?.reshape(x.dims())
}

/// The layout of a row of an FP8 key cache, one slot each: `quantized` e4m3 codes, the f32 scales of their groups of 128,
/// then `plain` values in bf16. All numbers are little-endian, and nothing lies between the three parts.
///
/// V3.2's latents are 512 codes, 4 scales and 64 values: 656 bytes. Its index keys are 128 codes and 1 scale: 132 bytes.
///
/// # Source
/// FlashMLA's README, "FP8 KV cache"; DeepGEMM `fp8_paged_mqa_logits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fp8Row {
    /// Values that are kept as codes.
    pub quantized: usize,
    /// Values after them that are kept in bf16.
    pub plain: usize,
}

impl Fp8Row {
    /// Returns the values of a row.
    pub fn width(self) -> usize {
        self.quantized + self.plain
    }

    /// Returns where the values in bf16 begin.
    pub(crate) fn plain_start(self) -> usize {
        self.quantized + 4 * self.quantized.div_ceil(BLOCK)
    }

    /// Returns the bytes of a row.
    pub fn bytes(self) -> usize {
        self.plain_start() + 2 * self.plain
    }
}

/// What the exponent fields of f32 and e4m3 differ by, in the place of e4m3's code.
const BIAS_DIFFERENCE: u32 = (127 - 7) << 3;

/// [`row_quant`](super::row_quant) on any device, through the host.
///
/// # Errors
/// Those of the tensor functions.
pub fn row_quant(x: &Tensor, row: Fp8Row, ue8m0: bool) -> Result<Tensor> {
    let (rows, device) = (x.dim(0)?, x.device());
    let x = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let (codes, scale) = act_quant(&x.narrow(1, 0, row.quantized)?.contiguous()?, BLOCK, ue8m0)?;
    let codes = codes.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let scale = scale.to_vec2::<f32>()?;
    let plain = x.narrow(1, row.quantized, row.plain)?.to_dtype(DType::BF16)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let mut bytes = Vec::with_capacity(rows * row.bytes());
    for ((codes, scale), plain) in codes.iter().zip(&scale).zip(&plain) {
        bytes.extend(codes.iter().map(|&value| code_of(value)));
        bytes.extend(scale.iter().flat_map(|scale| scale.to_le_bytes()));
        bytes.extend(plain.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()));
    }
    Tensor::from_vec(bytes, (rows, row.bytes()), device)
}

/// [`row_dequant`](super::row_dequant) on any device, through the host.
///
/// # Errors
/// Those of the tensor functions.
pub fn row_dequant(rows: &Tensor, row: Fp8Row) -> Result<Tensor> {
    let count = rows.dim(0)?;
    let bytes = rows.to_device(&Device::Cpu)?.to_vec2::<u8>()?;
    let mut values = Vec::with_capacity(count * row.width());
    for bytes in &bytes {
        let (codes, rest) = bytes.split_at(row.quantized);
        let (scales, plain) = rest.split_at(row.plain_start() - row.quantized);
        let scales = scales.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        for (codes, scale) in codes.chunks(BLOCK).zip(scales) {
            values.extend(codes.iter().map(|&code| value_of(code) * scale));
        }
        values.extend(plain.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)));
    }
    Tensor::from_vec(values, (count, row.width()), rows.device())
}

/// `keys` as they are, or their values in f32 if they are the rows of an FP8 cache.
///
/// # Errors
/// Those of the tensor functions.
pub fn float_rows(keys: &Tensor, row: Fp8Row) -> Result<Tensor> {
    match keys.dtype() {
        DType::U8 => row_dequant(keys, row),
        _ => Ok(keys.clone()),
    }
}

/// The code of a value that e4m3 can hold.
fn code_of(value: f32) -> u8 {
    let sign = ((value.to_bits() >> 31) << 7) as u8;
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 0x7f;
    }
    // Below 2^-6 codes count steps of 2^-9.
    let code = match magnitude < 0.015625 {
        true => (magnitude * 512.0) as u8,
        false => ((magnitude.to_bits() >> 20) - BIAS_DIFFERENCE) as u8,
    };
    sign | code
}

fn value_of(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7f);
    let value = match magnitude {
        0x7f => f32::NAN,
        0..8 => magnitude as f32 / 512.0,
        _ => f32::from_bits((magnitude + BIAS_DIFFERENCE) << 20),
    };
    if code < 0x80 { value } else { -value }
}
