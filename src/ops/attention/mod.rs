//! What the attention ops share on CPU: argument checks, rows of tensors as f32 and the tile kernel.

pub(crate) mod args;
pub(crate) mod exp;
pub(crate) mod mla;
pub(crate) mod rows;
pub(crate) mod tile;

/// Multiply-adds from which spreading work over threads pays: some 50 microseconds of one core.
pub(crate) const PARALLEL_WORK: usize = 1 << 21;
