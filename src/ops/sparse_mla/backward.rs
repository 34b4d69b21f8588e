//! The gradient of `sparse_mla` on a GPU.

use std::sync::{Arc, Mutex};

use candle::backend::BackendStorage;
use candle::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor};
use candle_core as candle;

use super::sm90_backward;
use crate::ops::cuda::{
    ATTENTION_BLOCK, ATTENTION_PAIRS, Launch, attention_kernel, blocks, contiguous_indices, device_of, empty, modules,
    unit_step,
};
use crate::ops::dispatch::unordered_sums;

/// Bytes of intermediate results that are in memory at a time where no kernel of Hopper computes the gradient.
const CHUNK_BYTES: usize = 1 << 28;
/// Blocks that look for the entries of their slots.
const ADDING_BLOCKS: usize = 256;

/// Makes `(out, softmax_lse)`, which `sparse_mla` computed of `q` and `kv`, pass gradients on to them. Both are in f32 or
/// bf16, of widths that `attention_kernel` has a name for.
pub(super) fn tracked(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    softmax_scale: f64,
    (out, lse): (Tensor, Tensor),
) -> Result<(Tensor, Tensor)> {
    let call = Arc::new(Call {
        indices: contiguous_indices(indices)?,
        lse: lse.clone(),
        value_dim: out.dim(2)?,
        softmax_scale,
        unordered: unordered_sums(),
    });
    let value = |result| Mutex::new(Some(result));
    let out = q.apply_op2(kv, Output { call: call.clone(), value: value(out) })?;
    Ok((out, q.apply_op2(kv, LogSum { call, value: value(lse) })?))
}

/// What the gradients of a call are computed from, beside `q` and `kv`.
struct Call {
    /// `[T, K]`, contiguous.
    indices: Tensor,
    /// `[T, H]` f32.
    lse: Tensor,
    value_dim: usize,
    softmax_scale: f64,
    /// Whether the gradients of keys may be added up in any order.
    unordered: bool,
}

/// `(q [T, H, D], kv [slots, D])` → `out [T, H, value_dim]`, which is known already.
struct Output {
    call: Arc<Call>,
    value: Mutex<Option<Tensor>>,
}

/// `(q [T, H, D], kv [slots, D])` → `softmax_lse [T, H]` f32, which is known already.
struct LogSum {
    call: Arc<Call>,
    value: Mutex<Option<Tensor>>,
}

/// Returns a copy of the result that an operation was made with, and forgets it.
fn take(value: &Mutex<Option<Tensor>>) -> Result<(CudaStorage, Shape)> {
    let Some(value) = value.lock().ok().and_then(|mut value| value.take()) else {
        candle::bail!("sparse_mla: its result was taken before")
    };
    let (storage, layout) = value.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
        _ => candle::bail!("sparse_mla: its result is not on a GPU"),
    }
}

fn not_on_cpu() -> Result<(CpuStorage, Shape)> {
    candle::bail!("sparse_mla: this gradient is of tensors on a GPU")
}

impl CustomOp2 for Output {
    fn name(&self) -> &'static str {
        "sparse_mla"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        take(&self.value)
    }

    fn bwd(&self, q: &Tensor, kv: &Tensor, out: &Tensor, d_out: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d_out = d_out.contiguous()?;
        let shift = shifts(&out.contiguous()?, &d_out)?;
        let (d_q, d_kv) = self.call.gradients(&q.detach(), &kv.detach(), &d_out, &shift)?;
        Ok((Some(d_q), Some(d_kv)))
    }
}

impl CustomOp2 for LogSum {
    fn name(&self) -> &'static str {
        "sparse_mla_lse"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        take(&self.value)
    }

    /// The gradient of a score is `p d_lse`: that of an output without gradient, with a shift of `-d_lse`.
    fn bwd(&self, q: &Tensor, kv: &Tensor, _: &Tensor, d_lse: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (tokens, heads, _) = q.dims3()?;
        let d_out = Tensor::zeros((tokens, heads, self.call.value_dim), q.dtype(), q.device())?;
        let (d_q, d_kv) = self.call.gradients(&q.detach(), &kv.detach(), &d_out, &d_lse.neg()?.contiguous()?)?;
        Ok((Some(d_q), Some(d_kv)))
    }
}

/// `out . d_out` of each head `[T, H]` f32, from two contiguous `[T, H, value_dim]`.
fn shifts(out: &Tensor, d_out: &Tensor) -> Result<Tensor> {
    let (device, (tokens, heads, value_dim)) = (device_of(out)?, out.dims3()?);
    let shift = empty((tokens, heads), DType::F32, device)?;
    let pairs = tokens * heads;
    Launch::new(&modules::SPARSE_MLA_BACKWARD, format!("sparse_mla_shifts_{}", out.dtype().as_str()))
        .tensor("out", out)
        .tensor("d_out", d_out)
        .tensor("shift", &shift)
        .long(pairs)
        .int(value_dim)
        .run(device, [blocks(pairs, ATTENTION_PAIRS), 1], ATTENTION_BLOCK, 0)?;
    Ok(shift)
}

impl Call {
    /// Returns `(d_q, d_kv)` in the dtypes of `q` and `kv` for contiguous `d_out [T, H, value_dim]`, dtype of `q`, and
    /// `shift [T, H]` f32: `d_score = p (d_out . value - shift)`.
    fn gradients(&self, q: &Tensor, kv: &Tensor, d_out: &Tensor, shift: &Tensor) -> Result<(Tensor, Tensor)> {
        let Self { indices, lse, softmax_scale, unordered, .. } = self;
        let gradients = sm90_backward::Gradients { q, kv, indices, d_out, lse, shift, softmax_scale: *softmax_scale };
        let (d_q, d_kv) = match gradients.compute(*unordered)? {
            Some(gradients) => gradients,
            None => self.any_gpu(q, kv, d_out, shift)?,
        };
        Ok((d_q, d_kv.to_dtype(kv.dtype())?))
    }

    /// The gradients with `d_kv` in f32, without atomic additions.
    fn any_gpu(&self, q: &Tensor, kv: &Tensor, d_out: &Tensor, shift: &Tensor) -> Result<(Tensor, Tensor)> {
        let ((tokens, heads, dim), value_dim) = (q.dims3()?, d_out.dim(2)?);
        let (slots, k, device) = (kv.dim(0)?, self.indices.dim(1)?, device_of(q)?);
        let Some(kernel) = attention_kernel("sparse_mla_scores", q.dtype(), kv.dtype(), dim, value_dim) else {
            candle::bail!("sparse_mla: no gradient for keys of {dim} and values of {value_dim} elements")
        };
        let (q, kv) = (unit_step(q)?, unit_step(kv)?);
        let d_q = empty((tokens, heads, dim), q.dtype(), device)?;
        let d_kv = Tensor::zeros((slots, dim), DType::F32, q.device())?;
        let step = (CHUNK_BYTES / (4 * k * (dim + 2 * heads)).max(1)).clamp(1, tokens.max(1));
        for row in (0..tokens).step_by(step) {
            let rows = step.min(tokens - row);
            let [q, indices, d_out, lse, shift, d_q] =
                [&q, &self.indices, d_out, &self.lse, shift, &d_q].map(|tensor| tensor.narrow(0, row, rows));
            let (q, indices, d_out, lse, shift, d_q) = (q?, indices?, d_out?, lse?, shift?, d_q?);
            let p = empty((rows, heads, k), DType::F32, device)?;
            let d_scores = empty((rows, heads, k), DType::F32, device)?;
            let of_entries = empty((rows * k, dim), DType::F32, device)?;
            Launch::new(&modules::SPARSE_MLA_BACKWARD, kernel.clone())
                .tensor("q", &q)
                .long(q.stride()[0])
                .long(q.stride()[1])
                .tensor("kv", &kv)
                .long(kv.stride()[0])
                .tensor("indices", &indices)
                .tensor("d_out", &d_out)
                .tensor("softmax_lse", &lse)
                .tensor("shift", &shift)
                .tensor("d_q", &d_q)
                .tensor("p", &p)
                .tensor("d_scores", &d_scores)
                .long(rows * heads)
                .int(heads)
                .int(dim)
                .int(value_dim)
                .int(slots)
                .int(k)
                .int(usize::from(indices.dtype() == DType::I64))
                .float(self.softmax_scale)
                .run(device, [blocks(rows * heads, ATTENTION_PAIRS), 1], ATTENTION_BLOCK, 0)?;
            Launch::new(&modules::SPARSE_MLA_BACKWARD, format!("sparse_mla_rows_{}", q.dtype().as_str()))
                .tensor("q", &q)
                .long(q.stride()[0])
                .long(q.stride()[1])
                .tensor("d_out", &d_out)
                .tensor("p", &p)
                .tensor("d_scores", &d_scores)
                .tensor("rows", &of_entries)
                .long(rows * k)
                .int(heads)
                .int(dim)
                .int(value_dim)
                .int(k)
                .run(device, [blocks(rows * k, ATTENTION_PAIRS), 1], ATTENTION_BLOCK, 0)?;
            add_rows(&of_entries, &indices, 1, &d_kv)?;
        }
        Ok((d_q, d_kv))
    }
}

/// Adds `rows [T * K * parts, D]` f32, `parts` for each entry of `indices [T, K]`, to the rows of `d_kv [slots, D]` f32 that the
/// entries name, in the order of the entries.
pub(super) fn add_rows(rows: &Tensor, indices: &Tensor, parts: usize, d_kv: &Tensor) -> Result<()> {
    let (device, (slots, dim)) = (device_of(d_kv)?, d_kv.dims2()?);
    let share = slots.div_ceil(ADDING_BLOCKS).max(1);
    Launch::new(&modules::SPARSE_MLA_BACKWARD, "sparse_mla_add_rows")
        .tensor("rows", rows)
        .tensor("indices", indices)
        .tensor("d_kv", d_kv)
        .long(indices.elem_count())
        .int(parts)
        .int(dim)
        .int(slots)
        .int(usize::from(indices.dtype() == DType::I64))
        .int(share)
        .run(device, [blocks(slots, share), 1], ATTENTION_BLOCK, 0)
}
