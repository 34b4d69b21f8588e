//! `sparse_mla` of narrow f32 keys and many rows on a GPU: one block a row and eight heads.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, blocks, contiguous_indices, device_of, empty, modules, unit_step};

/// The widest keys and values, the heads and the threads of a block.
const DIM: usize = 128;
const VALUES: usize = 64;
const HEADS: usize = 8;
const BLOCK: usize = 256;
/// Rows from which blocks of whole rows fill the device.
const ROWS: usize = 129;

/// [`sparse_mla`](super::sparse_mla) of tensors on one GPU; `None` for what the kernel does not take.
pub(super) fn sparse_mla(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<Option<(Tensor, Tensor)>> {
    let ((tokens, heads, dim), (slots, k)) = (q.dims3()?, (kv.dim(0)?, indices.dim(1)?));
    let takes = (q.dtype(), kv.dtype()) == (DType::F32, DType::F32) && dim <= DIM && value_dim <= VALUES;
    if !takes || tokens < ROWS || heads > 65_535 {
        return Ok(None);
    }
    let device = device_of(q)?;
    let (q, kv, indices) = (unit_step(q)?, unit_step(kv)?, contiguous_indices(indices)?);
    let out = empty((tokens, heads, value_dim), DType::F32, device)?;
    let lse = empty((tokens, heads), DType::F32, device)?;
    Launch::new(&modules::SPARSE_MLA_NARROW, "sparse_mla_narrow_f32")
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("kv", &kv)
        .long(kv.stride()[0])
        .tensor("indices", &indices)
        .tensor("out", &out)
        .tensor("softmax_lse", &lse)
        .int(heads)
        .int(dim)
        .int(value_dim)
        .int(slots)
        .int(k)
        .int(usize::from(indices.dtype() == DType::I64))
        .float(softmax_scale)
        .run(device, [tokens, blocks(heads, HEADS)], BLOCK, 0)?;
    Ok(Some((out, lse)))
}
