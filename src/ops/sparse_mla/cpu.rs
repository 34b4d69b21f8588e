//! `sparse_mla` on CPU: heads in SIMD lanes, gathered tiles of keys, online softmax.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::mla::{Seen, mla};

pub(super) fn sparse_mla(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (tokens, k) = indices.dims2()?;
    let slots = kv.dim(0)?;
    let seen = match indices.dtype() {
        DType::I32 => compact(&indices.flatten_all()?.to_vec1::<i32>()?, tokens, k, slots)?,
        _ => compact(&indices.flatten_all()?.to_vec1::<i64>()?, tokens, k, slots)?,
    };
    mla(q, kv, seen, value_dim, softmax_scale)
}

/// The slots of all rows without the -1.
fn compact<I: Copy + Into<i64>>(indices: &[I], tokens: usize, k: usize, slots: usize) -> Result<Seen> {
    let mut named = Vec::with_capacity(indices.len());
    let mut rows = Vec::with_capacity(tokens);
    for t in 0..tokens {
        let start = named.len();
        for (i, &slot) in indices[t * k..(t + 1) * k].iter().enumerate() {
            let slot: i64 = slot.into();
            match u32::try_from(slot) {
                Ok(index) if (index as usize) < slots => named.push(index),
                _ if slot == -1 => {}
                _ => candle::bail!("sparse_mla: indices[{t}, {i}] is {slot}, the cache has {slots} slots"),
            }
        }
        rows.push(start..named.len());
    }
    Ok(Seen { slots: named, rows })
}
