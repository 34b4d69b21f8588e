//! What the CPU paths of the ops share.

pub(crate) mod exp;
pub(crate) mod floats;
pub(crate) mod lanes;
pub(crate) mod mla;
mod mla_backward;
pub(crate) mod rows;
pub(crate) mod scratch;
pub mod simd;
pub(crate) mod tile;
pub(crate) mod vector;

/// Multiply-adds from which spreading attention over threads pays: some 50 microseconds of one core.
pub(crate) const PARALLEL_WORK: usize = 1 << 21;
