//! The products with `kv_b_proj` on a GPU: of few rows by kernels that read the weight as it is stored, of more by batched
//! products of cuBLAS.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, blocks, contiguous, converted, device_of, empty, modules, product_by_head, unit_step};
use crate::ops::linear::LinearWeight;
use crate::ops::linear::cuda::{product_dtype, widened};

/// Rows up to which the kernels for few rows serve.
const FEW: usize = 64;
/// Rows of a block of these kernels, and columns of a block of queries at most.
const BLOCK_ROWS: usize = 8;
const BLOCK_COLUMNS: usize = 128;
/// The widest query that a block's shared memory holds.
const WIDEST: usize = 1024;

/// [`absorb_query`](super::absorb_query) of tensors on one GPU.
pub(super) fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    let (rows, heads, nope_dim) = q_nope.dims3()?;
    let latent = kv_b_proj.weight.dim(1)?;
    if rows > FEW || nope_dim > WIDEST || nope_dim == 0 {
        let key_half = per_head(q_nope, kv_b_proj, heads, nope_dim + v_dim)?.narrow(1, 0, nope_dim)?;
        return product(q_nope, &key_half);
    }
    let (device, q) = (device_of(q_nope)?, unit_step(q_nope)?);
    let Few { weight, scale, kernel } = Few::new("absorb_query", &q, kv_b_proj)?;
    let out = empty((rows, heads, latent), q.dtype(), device)?;
    let block = latent.clamp(1, BLOCK_COLUMNS).next_multiple_of(32);
    Launch::new(&modules::ABSORB, kernel)
        .tensor("q_nope", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("kv_b_proj", &weight)
        .maybe("kv_b_proj_scale_inv", scale.as_ref())
        .tensor("out", &out)
        .int(rows)
        .int(nope_dim)
        .int(nope_dim + v_dim)
        .int(latent)
        .run(
            device,
            [blocks(latent, block), heads * blocks(rows, BLOCK_ROWS)],
            block,
            nope_dim * BLOCK_ROWS * size_of::<f32>(),
        )?;
    Ok(out)
}

/// [`absorb_value`](super::absorb_value) of tensors on one GPU.
pub(super) fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    /// Threads of a block, a warp a column.
    const BLOCK: usize = 256;
    let (rows, heads, width) = latent.dims3()?;
    let per_head_rows = kv_b_proj.weight.dim(0)? / heads;
    let v_dim = per_head_rows - nope_dim;
    if rows > FEW {
        let value_half = per_head(latent, kv_b_proj, heads, per_head_rows)?.narrow(1, nope_dim, v_dim)?;
        return product(latent, &value_half.transpose(1, 2)?);
    }
    let (device, latent) = (device_of(latent)?, contiguous(latent)?);
    let Few { weight, scale, kernel } = Few::new("absorb_value", &latent, kv_b_proj)?;
    let out = empty((rows, heads, v_dim), latent.dtype(), device)?;
    Launch::new(&modules::ABSORB, kernel)
        .tensor("latent", &latent)
        .tensor("kv_b_proj", &weight)
        .maybe("kv_b_proj_scale_inv", scale.as_ref())
        .tensor("out", &out)
        .int(rows)
        .int(heads)
        .int(nope_dim)
        .int(v_dim)
        .int(width)
        .run(device, [blocks(heads * v_dim, BLOCK / 32), blocks(rows, BLOCK_ROWS)], BLOCK, 0)?;
    Ok(out)
}

/// What the kernels for few rows take.
struct Few {
    weight: Tensor,
    scale: Option<Tensor>,
    kernel: String,
}

impl Few {
    fn new(op: &str, x: &Tensor, kv_b_proj: &LinearWeight) -> Result<Self> {
        let LinearWeight { weight, weight_scale_inv } = kv_b_proj;
        let scale = weight_scale_inv.as_ref().map(|scale| converted(scale, DType::F32)).transpose()?;
        let kernel = format!("{op}_{}_{}", x.dtype().as_str(), weight.dtype().as_str());
        Ok(Self { weight: contiguous(weight)?, scale, kernel })
    }
}

/// `[T, H, K]` · `[H, K, N]` → `[T, H, N]`, in the dtype of `x`.
fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let same = if x.dtype() == weight.dtype() { unit_step(x)? } else { converted(x, weight.dtype())? };
    converted(&product_by_head(&same, weight)?, x.dtype())
}

/// `[H * rows, L]` → `[H, rows, L]`, in the dtype of the product with `x`.
fn per_head(x: &Tensor, kv_b_proj: &LinearWeight, heads: usize, rows: usize) -> Result<Tensor> {
    let LinearWeight { weight, weight_scale_inv } = kv_b_proj;
    let dtype = product_dtype(x.dtype(), weight.dtype());
    contiguous(&widened(weight, weight_scale_inv.as_ref(), dtype)?)?.reshape((heads, rows, weight.dim(1)?))
}
