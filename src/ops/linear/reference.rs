//! Linear layers as a composition of candle tensor functions.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

use crate::ops::fp8::{BLOCK, act_quant, block_dequant};

/// The weight of a linear layer as the checkpoint stores it.
#[derive(Debug, Clone)]
pub struct LinearWeight {
    /// `[N, K]`, f32, bf16, f16 or f8e4m3.
    pub weight: Tensor,
    /// `[ceil(N/128), ceil(K/128)]` f32; multiplies the f8e4m3 codes of its 128×128 block.
    pub weight_scale_inv: Option<Tensor>,
}

/// The weights of E linear layers of one shape, stacked.
#[derive(Debug, Clone)]
pub struct StackedWeight {
    /// `[E, N, K]`, f32, bf16, f16 or f8e4m3.
    pub weight: Tensor,
    /// `[E, ceil(N/128), ceil(K/128)]` f32; multiplies the f8e4m3 codes of its 128×128 block.
    pub weight_scale_inv: Option<Tensor>,
}

impl StackedWeight {
    /// The weight `[N, K]` of one of them, as a view.
    ///
    /// # Errors
    /// If `index` is not below E.
    pub fn get(&self, index: usize) -> Result<LinearWeight> {
        let weight_scale_inv = self.weight_scale_inv.as_ref().map(|scale| scale.get(index)).transpose()?;
        Ok(LinearWeight { weight: self.weight.get(index)?, weight_scale_inv })
    }
}

/// What a linear layer does with FP8 weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearMode {
    /// Multiplies activations as they are with dequantised weights.
    Dequant,
    /// Quantises activations to FP8 too, by 1×128 groups, where the weight has block scales.
    Fp8 {
        /// Whether the activations' scales are rounded up to powers of two.
        ue8m0: bool,
    },
    /// Rounds activations to bf16 where the weight is bf16, and adds the products in f32; elsewhere as `Dequant`.
    Bf16,
}

impl LinearWeight {
    /// `x · weightᵀ`, `[.., K]` → `[.., N]` in the dtype of `x`; `mode` matters only where there is a block scale.
    ///
    /// # Errors
    /// As [`linear`](crate::ops::linear::linear).
    pub fn forward(&self, x: &Tensor, mode: LinearMode) -> Result<Tensor> {
        match (&self.weight_scale_inv, mode) {
            (Some(scale), LinearMode::Fp8 { ue8m0 }) => crate::ops::linear::linear_fp8(x, &self.weight, scale, ue8m0),
            (None, LinearMode::Bf16) if self.weight.dtype() == DType::BF16 => {
                crate::ops::linear::linear_bf16(x, &self.weight)
            }
            (scale, _) => crate::ops::linear::linear(x, &self.weight, scale.as_ref()),
        }
    }
}

impl LinearWeight {
    /// As [`forward`](LinearWeight::forward), but the activations are never quantised: in FP8 arithmetic for layers that
    /// the reference computes in f32.
    pub(crate) fn forward_f32(&self, x: &Tensor, mode: LinearMode) -> Result<Tensor> {
        let (x, scale) = (crate::ops::cast(x, DType::F32)?, self.weight_scale_inv.as_ref());
        match mode {
            LinearMode::Dequant | LinearMode::Bf16 => crate::ops::linear::linear(&x, &self.weight, scale),
            LinearMode::Fp8 { .. } => crate::ops::linear::linear_in_order(&x, &self.weight, scale),
        }
    }
}

/// [`linear`](super::linear) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn linear(x: &Tensor, weight: &Tensor, weight_scale_inv: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    let rows = dims.iter().product::<usize>() / n.max(1);
    if rows == 0 || n == 0 || k == 0 {
        return Tensor::zeros(dims, x.dtype(), x.device());
    }
    let weight = match weight_scale_inv {
        Some(scale) => block_dequant(weight, scale, BLOCK)?,
        None => weight.to_dtype(DType::F32)?,
    };
    let wide = x.to_dtype(DType::F32)?.reshape((rows, k))?;
    wide.matmul(&weight.t()?)?.reshape(dims)?.to_dtype(x.dtype())
}

/// [`linear_bf16`](super::linear_bf16) on any device, differentiable as if nothing was rounded.
///
/// # Errors
/// Those of the tensor functions.
pub fn linear_bf16(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    linear(&x.to_dtype(DType::BF16)?.to_dtype(x.dtype())?, weight, None)
}

/// [`linear`], in the order of the device's matmul.
pub(crate) fn linear_in_order(x: &Tensor, weight: &Tensor, weight_scale_inv: Option<&Tensor>) -> Result<Tensor> {
    linear(x, weight, weight_scale_inv)
}

/// [`linear_fp8`](super::linear_fp8) on any device.
///
/// # Errors
/// Those of the tensor functions.
pub fn linear_fp8(x: &Tensor, weight: &Tensor, weight_scale_inv: &Tensor, ue8m0: bool) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    let rows = dims.iter().product::<usize>() / n.max(1);
    if rows == 0 || n == 0 || k == 0 {
        return Tensor::zeros(dims, x.dtype(), x.device());
    }
    let (codes, scale) = act_quant(&x.reshape((rows, k))?, BLOCK, ue8m0)?;
    let (codes, weight) = (codes.to_dtype(DType::F32)?, weight.to_dtype(DType::F32)?);
    let n_blocks = n.div_ceil(BLOCK);
    let weight_scale = weight_scale_inv.to_dtype(DType::F32)?.t()?; // [K/128, N/128]
    let mut out = Tensor::zeros((rows, n), DType::F32, x.device())?;
    for block in 0..k.div_ceil(BLOCK) {
        let start = block * BLOCK;
        let len = BLOCK.min(k - start);
        let dot = codes.narrow(1, start, len)?.matmul(&weight.narrow(1, start, len)?.t()?)?;
        let column = weight_scale.narrow(0, block, 1)?.reshape((n_blocks, 1))?.broadcast_as((n_blocks, BLOCK))?;
        let column = column.reshape((1, n_blocks * BLOCK))?.narrow(D::Minus1, 0, n)?;
        let factor = scale.narrow(1, block, 1)?.broadcast_mul(&column)?;
        out = (out + dot.mul(&factor)?)?;
    }
    out.reshape(dims)?.to_dtype(x.dtype())
}
