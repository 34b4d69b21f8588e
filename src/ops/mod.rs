//! The tensor functions of the hot path, one folder per op.
//!
//! `mod.rs` holds the op's documentation, checks and choice of backend; `reference.rs` is a composition of
//! candle tensor functions (differentiable, any device); `cpu.rs` is the fast path on CPU (rayon and SIMD).

use std::cell::Cell;

use candle::{Device, Tensor};
use candle_core as candle;

pub mod layout;
mod scratch;
pub mod simd;

pub mod absorb;
pub(crate) mod attention;
pub mod dense_mla;
pub mod fp8;
pub mod gate;
pub mod hadamard;
pub mod indexer_topk;
pub mod layer_norm;
pub mod linear;
pub mod mha;
pub mod moe;
pub mod mqa_logits;
pub mod rms_norm;
pub mod rope;
pub mod sparse_mla;
pub mod swiglu;
pub mod topk;

pub use absorb::{absorb_query, absorb_value};
pub use dense_mla::dense_mla;
pub use gate::gate;
pub use hadamard::hadamard;
pub use indexer_topk::indexer_topk;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use mha::mha;
pub use moe::{mlp, moe};
pub use mqa_logits::mqa_logits;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use sparse_mla::sparse_mla;
pub use swiglu::swiglu;
pub use topk::topk;

/// An implementation of the ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Compositions of candle tensor functions: differentiable, any device.
    Reference,
    /// Rayon and SIMD on CPU tensors that need no gradient.
    Cpu,
}

thread_local! {
    static FORCED: Cell<Option<Backend>> = const { Cell::new(None) };
}

/// Runs `body` with every op called from this thread on `backend`.
///
/// `Backend::Cpu` still falls to the reference for tensors on another device or tracked for gradients.
pub fn with_backend<R>(backend: Backend, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Backend>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.with(|forced| forced.set(self.0));
        }
    }
    let _restore = Restore(FORCED.with(|forced| forced.replace(Some(backend))));
    body()
}

/// The backend that ops on tensors like these run on: CPU tensors without gradients take the fast path.
pub fn backend(tensors: &[&Tensor]) -> Backend {
    let forced = FORCED.with(Cell::get) == Some(Backend::Reference);
    let fast = tensors.iter().all(|t| matches!(t.device(), Device::Cpu) && !t.track_op());
    if fast && !forced { Backend::Cpu } else { Backend::Reference }
}

/// One line that says what the ops called from this thread on CPU tensors run on.
pub fn backend_report() -> String {
    match FORCED.with(Cell::get) {
        Some(Backend::Reference) => "reference (candle tensor composition)".to_string(),
        _ => format!("cpu ({:?}, {} threads)", simd::isa(), rayon::current_num_threads()),
    }
}
