//! The tensor functions of the hot path, one folder per op.
//!
//! `mod.rs` holds the op's documentation, checks and dispatch; `reference.rs` is a composition of candle tensor
//! functions (differentiable, any device); `cpu.rs` is the fast path on CPU (rayon and SIMD), `cuda.rs` that on NVIDIA
//! GPUs (feature `cuda`), which launches kernels of the folder `kernels/`. Beside the ops stand what they share: argument
//! checks, the choice of the backend, the batch's layout and, in `cpu/` and `cuda/`, the parts of these paths.

use candle::Device;
use candle_core as candle;

mod args;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod deferred;
mod dispatch;
pub mod layout;

pub mod absorb;
pub mod cache_write;
pub mod cast;
pub mod dense_mla;
pub mod fp8;
pub mod gate;
pub mod gather;
pub mod hadamard;
pub mod indexer_topk;
pub mod indices;
pub mod join;
pub mod layer_norm;
pub mod linear;
pub mod mha;
pub mod moe;
pub mod mqa_logits;
pub mod residual;
pub mod rms_norm;
pub mod rope;
pub mod scale;
pub mod sparse_mha;
pub mod sparse_mla;
pub mod swiglu;
pub mod topk;

pub use absorb::{absorb_query, absorb_value};
pub use cache_write::cache_write;
pub use cast::cast;
pub use cpu::simd;
pub use dense_mla::dense_mla;
pub use dispatch::{Backend, OpBackends, with_backend, with_unordered_sums};
pub use gate::{gate, gate_weights};
pub use gather::gather;
pub use hadamard::hadamard;
pub use indexer_topk::indexer_topk;
pub use indices::indices_i64;
pub use join::{join, join_rows};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use mha::mha;
pub use moe::{mlp, moe};
pub use mqa_logits::mqa_logits;
pub use residual::{add, add_rms_norm, mark_not_finite};
pub use rms_norm::rms_norm;
pub use rope::{rope, rope_join};
pub use scale::scale;
pub use sparse_mha::sparse_mha;
pub use sparse_mla::sparse_mla;
pub use swiglu::swiglu;
pub use topk::topk;

/// Every op that is dispatched, in order of name.
const OPS: &[dispatch::Op] = &[
    absorb::QUERY,
    absorb::VALUE,
    residual::ADD,
    residual::ADD_RMS_NORM,
    cache_write::OP,
    cast::OP,
    fp8::ACT_DEQUANT,
    fp8::ACT_QUANT,
    fp8::BLOCK_DEQUANT,
    fp8::BLOCK_QUANT,
    fp8::ROW_DEQUANT,
    fp8::ROW_QUANT,
    dense_mla::OP,
    gate::OP,
    gather::OP,
    hadamard::OP,
    indexer_topk::OP,
    indices::OP,
    join::OP,
    layer_norm::OP,
    linear::LINEAR,
    linear::LINEAR_BF16,
    linear::LINEAR_FP8,
    residual::NOT_FINITE,
    mha::OP,
    moe::MLP,
    moe::MOE,
    mqa_logits::OP,
    rms_norm::OP,
    rope::OP,
    rope::JOIN,
    scale::OP,
    sparse_mha::OP,
    sparse_mla::OP,
    swiglu::OP,
    topk::OP,
];

/// Returns which backend each op called from this thread with CPU tensors takes.
pub fn backends() -> Vec<OpBackends> {
    dispatch::backends(OPS, &Device::Cpu)
}

/// Returns which backend each op called from this thread with f32 tensors on `device` takes.
pub fn backends_on(device: &Device) -> Vec<OpBackends> {
    dispatch::backends(OPS, device)
}

/// Returns [`backends`] as one line of text, with the instruction set and the number of threads of the CPU path.
pub fn backend_report() -> String {
    backend_report_on(&Device::Cpu)
}

/// Returns [`backends_on`] as one line of text: of the CPU path with the instruction set and the number of threads, of
/// the CUDA path with the name of the GPU and the form in which its kernels were loaded.
pub fn backend_report_on(device: &Device) -> String {
    dispatch::report(OPS, device)
}
