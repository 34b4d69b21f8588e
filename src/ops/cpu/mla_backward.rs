//! [`mla`](super::mla::mla) as an operation that gradients pass through.

use std::ops::Range;

use candle::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor};
use candle_core as candle;

use super::mla::{Seen, attend};
use super::rows::Rows;

/// Scores, and elements of gathered keys, that are alive at a time.
const CHUNK_ELEMENTS: usize = 1 << 22;

/// Attention in f32 with a gradient for `q` and `kv`.
pub(super) fn tracked(
    q: &Tensor,
    kv: &Tensor,
    seen: Seen,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let wide = |x: &Tensor| x.to_dtype(DType::F32)?.contiguous();
    let packed = wide(q)?.apply_op2(&wide(kv)?, Mla { seen, value_dim, softmax_scale })?;
    let out = packed.narrow(D::Minus1, 0, value_dim)?.contiguous()?.to_dtype(q.dtype())?;
    let lse = packed.narrow(D::Minus1, value_dim, 1)?.squeeze(D::Minus1)?.contiguous()?;
    Ok((out, lse))
}

/// `(q [T, H, D], kv [slots, D])`, both f32 → `[T, H, value_dim + 1]` f32: `out`, and behind it `lse`.
struct Mla {
    seen: Seen,
    value_dim: usize,
    softmax_scale: f64,
}

impl CustomOp2 for Mla {
    fn name(&self) -> &'static str {
        "mla"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, heads, _) = q_layout.shape().dims3()?;
        let (q, kv) = (Rows::of_cpu(q, q_layout)?, Rows::of_cpu(kv, kv_layout)?);
        let (out, lse) = attend(q, kv, heads, &self.seen, self.value_dim, self.softmax_scale);
        let mut packed = Vec::with_capacity(out.len() + lse.len());
        for (row, lse) in lse.iter().enumerate() {
            packed.extend_from_slice(&out[row * self.value_dim..][..self.value_dim]);
            packed.push(*lse);
        }
        Ok((CpuStorage::F32(packed), (tokens, heads, self.value_dim + 1).into()))
    }

    fn bwd(&self, q: &Tensor, kv: &Tensor, packed: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (heads, dim) = (q.dim(1)?, q.dim(2)?);
        let (q, kv, packed, grad) = (q.detach(), kv.detach(), packed.detach(), grad.contiguous()?);
        let rows = Gradients { op: self, q, kv, packed, grad };
        let mut d_kv = rows.kv.zeros_like()?;
        let mut d_q = Vec::new();
        for part in self.parts(heads, dim) {
            if part.keys == 0 {
                d_q.push(rows.q.narrow(0, part.rows.start, part.rows.len())?.zeros_like()?);
                continue;
            }
            let (part_q, slots, part_kv) = rows.part(&part)?;
            d_q.push(part_q);
            d_kv = d_kv.index_add(&slots, &part_kv, 0)?;
        }
        let d_q = if d_q.is_empty() { rows.q.zeros_like()? } else { Tensor::cat(&d_q, 0)? };
        Ok((Some(d_q), Some(d_kv)))
    }
}

/// Rows whose gradients are computed together.
struct Part {
    rows: Range<usize>,
    /// Keys that the row that sees most sees.
    keys: usize,
    /// Whether all rows see a beginning of the same slots, so that one copy of the keys serves all.
    shared: bool,
}

impl Mla {
    /// Cuts the rows into parts: of rows that see beginnings of the same slots, as far as there are such, and of rows
    /// that each see slots of their own.
    fn parts(&self, heads: usize, dim: usize) -> Vec<Part> {
        let rows = &self.seen.rows;
        let mut parts: Vec<Part> = Vec::new();
        for (t, seen) in rows.iter().enumerate() {
            if let Some(part) = parts.last_mut() {
                let (first, count) = (part.rows.start, part.rows.len() + 1);
                let same = rows[first].start == seen.start;
                let keys = part.keys.max(seen.len());
                let elements = count * keys * if same && part.shared { heads } else { heads.max(dim) };
                // One row alone may become either.
                if elements <= CHUNK_ELEMENTS && (count == 2 || same == part.shared) {
                    *part = Part { rows: first..t + 1, keys, shared: same };
                    continue;
                }
            }
            parts.push(Part { rows: t..t + 1, keys: seen.len(), shared: true });
        }
        parts
    }
}

/// What the gradients of an [`Mla`] are computed from; all tensors are f32 and not tracked.
struct Gradients<'a> {
    op: &'a Mla,
    q: Tensor,
    kv: Tensor,
    packed: Tensor,
    grad: Tensor,
}

impl Gradients<'_> {
    /// The gradient of the part's queries `[rows, H, D]`; slots, and the gradients of their rows of `kv`.
    fn part(&self, part: &Part) -> Result<(Tensor, Tensor, Tensor)> {
        let (Mla { seen, value_dim, softmax_scale }, device) = (self.op, self.q.device());
        let ((_, heads, dim), value_dim) = (self.q.dims3()?, *value_dim);
        let (first, count, keys) = (part.rows.start, part.rows.len(), part.keys);
        // Rows of a batch: one for all rows, or one for each.
        let batch = if part.shared { 1 } else { count };
        let queries = count / batch * heads;
        let by_batch = |x: &Tensor| x.narrow(0, first, count)?.reshape((batch, queries, x.dim(2)?));
        let (q, packed, grad) = (by_batch(&self.q)?, by_batch(&self.packed)?, by_batch(&self.grad)?);

        let ranges = &seen.rows[part.rows.clone()];
        let mut slots = Vec::with_capacity(batch * keys);
        if part.shared {
            slots.extend_from_slice(&seen.slots[ranges[0].start..][..keys]);
        } else {
            for range in ranges {
                slots.extend_from_slice(&seen.slots[range.clone()]);
                // Hidden below, so that any slot will do.
                slots.resize(slots.len() + keys - range.len(), 0);
            }
        }
        let counts: Vec<u32> = ranges.iter().map(|range| range.len() as u32).collect();
        let mask = mask(&counts, keys, device)?.unsqueeze(1)?.broadcast_as((count, heads, keys))?;
        let mask = mask.reshape((batch, queries, keys))?;
        let slots = Tensor::from_vec(slots, batch * keys, device)?;
        let k = self.kv.index_select(&slots, 0)?.reshape((batch, keys, dim))?;
        let v = k.narrow(2, 0, value_dim)?;
        let (out, d_out) = (packed.narrow(2, 0, value_dim)?, grad.narrow(2, 0, value_dim)?.contiguous()?);
        let (lse, d_lse) = (packed.narrow(2, value_dim, 1)?, grad.narrow(2, value_dim, 1)?);

        let transposed = |x: &Tensor| x.transpose(1, 2)?.contiguous();
        let scores = (q.matmul(&transposed(&k)?)? * *softmax_scale)?;
        let p = scores.broadcast_sub(&lse)?.exp()?;
        let p = mask.where_cond(&p, &p.zeros_like()?)?;
        // d_score = p (d_out . v - d_out . out + d_lse)
        let shift = match value_dim {
            0 => d_lse.neg()?,
            _ => ((&d_out * &out)?.sum_keepdim(2)? - d_lse)?,
        };
        let d_p = if value_dim == 0 { p.zeros_like()? } else { d_out.matmul(&transposed(&v)?)? };
        let d_scores = (&p * d_p.broadcast_sub(&shift)?)?;
        let d_scores = (mask.where_cond(&d_scores, &d_scores.zeros_like()?)? * *softmax_scale)?;
        let d_q = d_scores.matmul(&k)?.reshape((count, heads, dim))?;
        let mut d_kv = transposed(&d_scores)?.matmul(&q)?;
        if value_dim > 0 {
            d_kv = (d_kv + transposed(&p)?.matmul(&d_out)?.pad_with_zeros(2, 0, dim - value_dim)?)?;
        }
        Ok((d_q, slots, d_kv.reshape((batch * keys, dim))?))
    }
}

/// `[counts.len(), keys]` u8: 1 for the first `counts[i]` keys of row `i`.
fn mask(counts: &[u32], keys: usize, device: &Device) -> Result<Tensor> {
    let counts = Tensor::new(counts, device)?.unsqueeze(1)?;
    Tensor::arange(0, keys as u32, device)?.unsqueeze(0)?.broadcast_lt(&counts)
}
