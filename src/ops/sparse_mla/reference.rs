//! `sparse_mla` as a composition of candle tensor functions, and the masked attention that the references share.

use candle::{D, DType, Device, Result, Tensor};
use candle_core as candle;

use crate::ops::fp8::{Fp8Row, float_rows};
use crate::ops::indices_i64;

/// Elements of the gathered `[rows, K, D]` keys that are alive at a time without gradients.
const CHUNK_ELEMENTS: usize = 1 << 25;

/// See the op's documentation.
///
/// On CPU a slot outside the cache is an error. On another device, where looking for one would wait for the device, a
/// row that names one is NaN.
pub fn sparse_mla(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, heads, dim) = q.dims3()?;
    let (slots, k) = (kv.dim(0)?, indices.dim(1)?);
    if tokens == 0 || heads == 0 || k == 0 || slots == 0 {
        let out = Tensor::zeros((tokens, heads, value_dim), q.dtype(), q.device())?;
        return Ok((out, Tensor::full(f32::NEG_INFINITY, (tokens, heads), q.device())?));
    }
    let indices = indices_i64(indices)?.contiguous()?;
    if indices.device().is_cpu() {
        refuse_outside(&indices, slots)?;
    }
    let named = indices.ge(0i64)?;
    let within = indices.maximum(0i64)?.minimum(slots as i64 - 1)?;
    let row = Fp8Row { quantized: value_dim, plain: dim - value_dim };
    let kv = float_rows(kv, row)?.contiguous()?;
    let mut q32 = q.to_dtype(DType::F32)?;
    if !indices.device().is_cpu() {
        let inside = within.eq(&indices)?.maximum(&indices.eq(-1i64)?)?.min_keepdim(1)?.unsqueeze(2)?;
        let nan = Tensor::full(f32::NAN, q32.dims(), q32.device())?;
        q32 = inside.broadcast_as(q32.dims())?.where_cond(&q32, &nan)?;
    }
    let step = (CHUNK_ELEMENTS / (k * dim).max(1)).max(1);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for row in (0..tokens).step_by(step) {
        let rows = step.min(tokens - row);
        let mask = named.narrow(0, row, rows)?.unsqueeze(1)?;
        let keys = kv.index_select(&within.narrow(0, row, rows)?.flatten_all()?, 0)?;
        let keys = keys.reshape((rows, k, dim))?.to_dtype(DType::F32)?;
        let values = keys.narrow(2, 0, value_dim)?;
        let (out, lse) = attend(&q32.narrow(0, row, rows)?, &keys, &values, &mask, softmax_scale)?;
        outs.push(out);
        lses.push(lse);
    }
    Ok((Tensor::cat(&outs, 0)?.to_dtype(q.dtype())?, Tensor::cat(&lses, 0)?))
}

/// Refuses a slot that is neither -1 nor in the cache.
fn refuse_outside(indices: &Tensor, slots: usize) -> Result<()> {
    for (row, indices) in indices.to_vec2::<i64>()?.iter().enumerate() {
        if let Some(i) = indices.iter().position(|&slot| slot < -1 || slot >= slots as i64) {
            candle::bail!("sparse_mla: indices[{row}, {i}] is {}, the cache has {slots} slots", indices[i]);
        }
    }
    Ok(())
}

/// `[rows, context]` u8: 1 where row `i`, at position `first + i`, sees a position.
pub fn causal_mask(first: usize, rows: usize, context: usize, device: &Device) -> Result<Tensor> {
    let position = Tensor::arange(first as u32, (first + rows) as u32, device)?.reshape((rows, 1))?;
    Tensor::arange(0, context as u32, device)?.reshape((1, context))?.broadcast_le(&position)
}

/// Masked attention of `q: [B, M, D]` over `k: [B, N, D]`, `v: [B, N, V]`, all f32, where `mask: u8` (broadcast to
/// `[B, M, N]`) is not 0. Returns `([B, M, V], lse [B, M])`; a row that sees nothing gives zeros and -inf.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor, softmax_scale: f64) -> Result<(Tensor, Tensor)> {
    let scores = (q.contiguous()?.matmul(&k.transpose(1, 2)?.contiguous()?)? * softmax_scale)?;
    let hidden = Tensor::full(f32::NEG_INFINITY, scores.shape(), q.device())?;
    let scores = mask.broadcast_as(scores.shape())?.where_cond(&scores, &hidden)?;
    // The shift cancels out: it has no gradient, and where nothing is seen any finite number does.
    let shift = scores.detach().max_keepdim(D::Minus1)?.maximum(f32::MIN)?;
    let p = scores.broadcast_sub(&shift)?.exp()?;
    let sum = p.sum_keepdim(D::Minus1)?;
    let empty = sum.detach().eq(0f32)?;
    let sum = (sum + empty.to_dtype(DType::F32)?)?;
    let out = p.matmul(&v.contiguous()?)?.broadcast_div(&sum)?;
    let lse = (sum.log()? + shift)?;
    let lse = empty.where_cond(&Tensor::full(f32::NEG_INFINITY, lse.shape(), q.device())?, &lse)?;
    Ok((out, lse.squeeze(D::Minus1)?))
}
