//! The products with `kv_b_proj` as batched matrix products.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::fp8::{BLOCK, block_dequant};
use crate::ops::linear::LinearWeight;

/// [`absorb_query`](crate::ops::absorb::absorb_query) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    let (_, heads, nope_dim) = q_nope.dims3()?;
    let key_half = per_head(kv_b_proj, heads, nope_dim + v_dim)?.narrow(1, 0, nope_dim)?;
    let q = q_nope.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()?;
    q.matmul(&key_half.contiguous()?)?.transpose(0, 1)?.contiguous()?.to_dtype(q_nope.dtype())
}

/// [`absorb_value`](crate::ops::absorb::absorb_value) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    let (_, heads, _) = latent.dims3()?;
    let rows = kv_b_proj.weight.dim(0)? / heads.max(1);
    if rows < nope_dim {
        candle::bail!("kv_b_proj has {rows} rows a head, fewer than the {nope_dim} of its key half")
    }
    let value_half = per_head(kv_b_proj, heads, rows)?.narrow(1, nope_dim, rows - nope_dim)?;
    let x = latent.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()?;
    x.matmul(&value_half.transpose(1, 2)?.contiguous()?)?.transpose(0, 1)?.contiguous()?.to_dtype(latent.dtype())
}

/// `[H * rows, L]` → `[H, rows, L]` f32.
fn per_head(kv_b_proj: &LinearWeight, heads: usize, rows: usize) -> Result<Tensor> {
    let weight = match &kv_b_proj.weight_scale_inv {
        Some(scale) => block_dequant(&kv_b_proj.weight, scale, BLOCK)?,
        None => kv_b_proj.weight.to_dtype(DType::F32)?,
    };
    let (n, latent) = weight.dims2()?;
    if n != heads * rows {
        candle::bail!("kv_b_proj has {n} rows, not {heads} heads × {rows}")
    }
    weight.reshape((heads, rows, latent))
}
