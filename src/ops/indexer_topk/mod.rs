//! The lightning indexer's selection: scores and top-k in one.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::layout::BatchLayout;
use crate::ops::{mqa_logits, topk};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op =
    Op { name: "indexer_topk", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_FP8_KEYS_TRACKED };

/// The slots of the `k` keys that score best for each query row, in ascending order of their position.
///
/// The scores are those of [`mqa_logits`](crate::ops::mqa_logits::mqa_logits), the selection is that of
/// [`topk`](crate::ops::topk::topk). A row that sees at most `k` positions takes all of them: its scores cannot
/// matter and are not computed. Never more than a block of rows of scores is held in memory.
///
/// # Shapes
/// - `q`: `[T, H_I, D]`, `index_k`: `[slots, D]`, `weights`: `[T, H_I]`, `layout`: as for `mqa_logits`
/// - `k`: any number
/// - result: `[T, k]` i32 slots; rows with fewer than `k` positions end in `-1`. The selection has no gradient
///
/// # Errors
/// Those of `mqa_logits`; a NaN among the scores that are compared; more than 2^31 slots.
///
/// # Source
/// DeepSeek-V3.2-Exp, "DeepSeek Sparse Attention", equations 1 and 2.
pub fn indexer_topk(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout, k: usize) -> Result<Tensor> {
    let _span = tracing::trace_span!("indexer_topk").entered();
    mqa_logits::check(OP.name, q, index_k, weights, layout)?;
    topk::check_size(OP.name, q.dim(0)?, index_k.dim(0)?, k)?;
    match OP.backend([q, index_k, weights]) {
        Backend::Cpu => cpu::indexer_topk(q, index_k, weights, layout, k),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::indexer_topk(q, index_k, weights, layout, k),
        Backend::Reference => reference::indexer_topk(q, index_k, weights, layout, k),
    }
}
