//! The gradient of `sparse_mla` on Hopper, for V3.2's latents in bf16.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::backward::add_rows;
use super::sm90::{DIM, TILE, VALUE_DIM, WARPGROUP, aligned};
use crate::ops::cuda::{Launch, device_of, empty, modules, multiprocessors_of_hopper};

/// Shared memory of a block: `Shared` in `kernels/sm90_sparse_mla_backward.cu`.
const SHARED: usize = 230_024;
/// Bytes of the gradients of entries that are in memory at a time where they are added up in order.
const CHUNK_BYTES: usize = 5 << 28;
/// Bytes of the gradients of keys that stay in L2 while they are added to; beyond, additions are what takes the time, and
/// pairs of blocks have half as many of them.
const CACHED_BYTES: usize = 40 << 20;

/// What the gradients are computed from; `d_out` is contiguous.
pub(super) struct Gradients<'a> {
    pub(super) q: &'a Tensor,
    pub(super) kv: &'a Tensor,
    pub(super) indices: &'a Tensor,
    pub(super) d_out: &'a Tensor,
    pub(super) lse: &'a Tensor,
    pub(super) shift: &'a Tensor,
    pub(super) softmax_scale: f64,
}

impl Gradients<'_> {
    /// Returns `d_q` in bf16 and `d_kv` in f32; `None` if the kernels here are not for this device, these shapes and dtypes, or
    /// where rows do not begin at multiples of 16 bytes.
    pub(super) fn compute(&self, unordered: bool) -> Result<Option<(Tensor, Tensor)>> {
        let Self { q, kv, indices, d_out, .. } = self;
        let ((tokens, heads, dim), slots) = (q.dims3()?, kv.dim(0)?);
        let known = q.dtype() == DType::BF16 && kv.dtype() == DType::BF16;
        if !known || (dim, d_out.dim(2)?) != (DIM, VALUE_DIM) || !aligned(kv) || !aligned(d_out) {
            return Ok(None);
        }
        let Some(multiprocessors) = multiprocessors_of_hopper(device_of(q)?)? else { return Ok(None) };
        let q = if aligned(q) { (*q).clone() } else { q.force_contiguous()? };
        let d_q = empty((tokens, heads, DIM), DType::BF16, device_of(&q)?)?;
        let d_kv = Tensor::zeros((slots, DIM), DType::F32, q.device())?;
        if unordered {
            let form = Form::new(heads, 4 * DIM * slots > CACHED_BYTES, multiprocessors);
            self.launch("added", form, &q, 0, tokens, &d_q, &d_kv)?;
            return Ok(Some((d_q, d_kv)));
        }
        let form = Form::new(heads, true, multiprocessors);
        let k = indices.dim(1)?;
        let step = chunk(k, form.parts, form.places).min(tokens.max(1));
        for row in (0..tokens).step_by(step) {
            let rows = step.min(tokens - row);
            let of_entries = empty((rows * k * form.parts, DIM), DType::F32, device_of(&q)?)?;
            self.launch("rows", form, &q, row, rows, &d_q, &of_entries)?;
            add_rows(&of_entries, &indices.narrow(0, row, rows)?, form.parts, &d_kv)?;
        }
        Ok(Some((d_q, d_kv)))
    }

    /// Enqueues the gradients of some rows.
    #[allow(clippy::too_many_arguments, reason = "a launch has many")]
    fn launch(
        &self,
        kernel: &str,
        form: Form,
        q: &Tensor,
        row: usize,
        rows: usize,
        d_q: &Tensor,
        d_keys: &Tensor,
    ) -> Result<()> {
        let (heads, k) = (q.dim(1)?, self.indices.dim(1)?);
        let part = |tensor: &Tensor| tensor.narrow(0, row, rows);
        let (q, indices, d_out, lse, shift, d_q) =
            (part(q)?, part(self.indices)?, part(self.d_out)?, part(self.lse)?, part(self.shift)?, part(d_q)?);
        let (items, pair) = (rows * form.parts, if form.blocks == 2 { "_pair" } else { "" });
        Launch::new(&modules::SM90_SPARSE_MLA_BACKWARD, format!("sparse_mla_backward_bf16_{kernel}{pair}"))
            .tensor("q", &q)
            .long(q.stride()[0])
            .long(q.stride()[1])
            .tensor("kv", self.kv)
            .long(self.kv.stride()[0])
            .tensor("indices", &indices)
            .tensor("d_out", &d_out)
            .tensor("softmax_lse", &lse)
            .tensor("shift", &shift)
            .tensor("d_q", &d_q)
            .tensor("d_keys", d_keys)
            .int(items)
            .int(heads)
            .int(self.kv.dim(0)?)
            .int(k)
            .int(usize::from(indices.dtype() == DType::I64))
            .float(self.softmax_scale)
            .run(device_of(&q)?, [form.blocks * items.min(form.places), 1], 3 * WARPGROUP, SHARED)
    }
}

/// How the heads of a row are shared out.
#[derive(Clone, Copy)]
struct Form {
    /// Blocks that take a part of the heads together, 64 each.
    blocks: usize,
    /// Parts of the heads.
    parts: usize,
    /// Parts that the GPU works on at a time.
    places: usize,
}

impl Form {
    fn new(heads: usize, pairs: bool, multiprocessors: usize) -> Self {
        let blocks = if pairs && heads > TILE && multiprocessors > 1 { 2 } else { 1 };
        Self { blocks, parts: heads.div_ceil(TILE * blocks), places: multiprocessors / blocks }
    }
}

/// Rows whose entries' gradients are in memory at a time: such that every multiprocessor has as much to do, as far as they
/// fit.
fn chunk(k: usize, parts: usize, places: usize) -> usize {
    let fitting = CHUNK_BYTES / (4 * DIM * (k * parts).max(1));
    match fitting * parts / places * places / parts {
        0 => fitting.max(1),
        even => even,
    }
}

#[cfg(test)]
mod tests {
    use super::chunk;

    #[test]
    fn chunks_fill_the_multiprocessors_where_memory_allows() {
        assert_eq!(chunk(2048, 2, 132), 132);
        assert_eq!(chunk(2048, 1, 66), 264);
        assert_eq!(chunk(2048, 1, 132), 264);
        assert_eq!(chunk(1 << 20, 1, 132), 1);
        assert_eq!(chunk(8192, 2, 132), 35);
        assert_eq!(chunk(0, 1, 132) % 132, 0);
    }
}
