//! `sparse_mla` as a composition of candle tensor functions, and the masked attention that the references share.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

/// Elements of the gathered `[rows, K, D]` keys that are alive at a time without gradients.
const CHUNK_ELEMENTS: usize = 1 << 25;

/// See the op's documentation.
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
    let indices = indices.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
    if let Some(at) = indices.iter().position(|&slot| slot < -1 || slot >= slots as i64) {
        candle::bail!("sparse_mla: indices[{}, {}] is {}, the cache has {slots} slots", at / k, at % k, indices[at]);
    }
    let kv = kv.contiguous()?;
    let q32 = q.to_dtype(DType::F32)?;
    let step = (CHUNK_ELEMENTS / (k * dim).max(1)).max(1);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for row in (0..tokens).step_by(step) {
        let rows = step.min(tokens - row);
        let chunk = &indices[row * k..(row + rows) * k];
        let mask = chunk.iter().map(|&slot| u8::from(slot >= 0)).collect::<Vec<_>>();
        let mask = Tensor::from_vec(mask, (rows, 1, k), q.device())?;
        let chunk = chunk.iter().map(|&slot| slot.max(0) as u32).collect::<Vec<_>>();
        let keys = kv.index_select(&Tensor::from_vec(chunk, rows * k, q.device())?, 0)?;
        let keys = keys.reshape((rows, k, dim))?.to_dtype(DType::F32)?;
        let values = keys.narrow(2, 0, value_dim)?;
        let (out, lse) = attend(&q32.narrow(0, row, rows)?, &keys, &values, &mask, softmax_scale)?;
        outs.push(out);
        lses.push(lse);
    }
    Ok((Tensor::cat(&outs, 0)?.to_dtype(q.dtype())?, Tensor::cat(&lses, 0)?))
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
