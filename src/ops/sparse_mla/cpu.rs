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
    let slots = kv.dim(0)?;
    let seen = seen("sparse_mla", indices, slots, &format!("the cache has {slots} slots"))?;
    mla(q, kv, seen, value_dim, softmax_scale)
}

/// What each row of `indices: [T, K]`, i32 or i64, names, without the -1; the others must be below `keys`. `limit` says
/// in the error how many keys there are.
pub(crate) fn seen(op: &str, indices: &Tensor, keys: usize, limit: &str) -> Result<Seen> {
    let (tokens, k) = indices.dims2()?;
    let seen = match indices.dtype() {
        DType::I32 => compact(&indices.flatten_all()?.to_vec1::<i32>()?, tokens, k, keys),
        _ => compact(&indices.flatten_all()?.to_vec1::<i64>()?, tokens, k, keys),
    };
    match seen {
        Ok(seen) => Ok(seen),
        Err((t, i, index)) => candle::bail!("{op}: indices[{t}, {i}] is {index}, {limit}"),
    }
}

/// Fails with the row, the column and the value of an index that is out of range.
fn compact<I: Copy + Into<i64>>(
    indices: &[I],
    tokens: usize,
    k: usize,
    keys: usize,
) -> std::result::Result<Seen, (usize, usize, i64)> {
    let mut named = Vec::with_capacity(indices.len());
    let mut rows = Vec::with_capacity(tokens);
    for t in 0..tokens {
        let start = named.len();
        for (i, &index) in indices[t * k..(t + 1) * k].iter().enumerate() {
            let index: i64 = index.into();
            match u32::try_from(index) {
                Ok(index) if (index as usize) < keys => named.push(index),
                _ if index == -1 => {}
                _ => return Err((t, i, index)),
            }
        }
        rows.push(start..named.len());
    }
    Ok(Seen { slots: named, rows })
}
