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
