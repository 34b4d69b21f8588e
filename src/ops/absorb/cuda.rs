//! The products with `kv_b_proj` on a GPU, as batched matrix products of cuBLAS.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::linear::LinearWeight;
use crate::ops::linear::cuda::{product_dtype, widened};

/// [`absorb_query`](super::absorb_query) of tensors on one GPU.
pub(super) fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    let (_, heads, nope_dim) = q_nope.dims3()?;
    let key_half = per_head(q_nope, kv_b_proj, heads, nope_dim + v_dim)?.narrow(1, 0, nope_dim)?;
    product(q_nope, &key_half)
}

/// [`absorb_value`](super::absorb_value) of tensors on one GPU.
pub(super) fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    let (_, heads, _) = latent.dims3()?;
    let rows = kv_b_proj.weight.dim(0)? / heads;
    let value_half = per_head(latent, kv_b_proj, heads, rows)?.narrow(1, nope_dim, rows - nope_dim)?;
    product(latent, &value_half.transpose(1, 2)?)
}

/// `[T, H, K]` · `[H, K, N]` → `[T, H, N]`, in the dtype of `x`.
fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let by_head = x.to_dtype(weight.dtype())?.transpose(0, 1)?.contiguous()?;
    by_head.matmul(weight)?.transpose(0, 1)?.contiguous()?.to_dtype(x.dtype())
}

/// `[H * rows, L]` → `[H, rows, L]`, in the dtype of the product with `x`.
fn per_head(x: &Tensor, kv_b_proj: &LinearWeight, heads: usize, rows: usize) -> Result<Tensor> {
    let LinearWeight { weight, weight_scale_inv } = kv_b_proj;
    let dtype = product_dtype(x.dtype(), weight.dtype());
    widened(weight, weight_scale_inv.as_ref(), dtype)?.contiguous()?.reshape((heads, rows, weight.dim(1)?))
}
