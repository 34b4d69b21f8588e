//! What the CUDA paths share, and the only code that talks to the driver: kernels as the build embeds them, their
//! launch, tensors from device memory, views, and a batch's layout on the device.
//!
//! A kernel works on its tensors' device in the stream of that device, as candle's own operations do; nothing here
//! waits for it.

mod arena;
mod attention;
mod copy;
mod gemm;
mod graph;
mod grouped;
mod largest;
mod launch;
mod layout;
mod matrix;
mod module;
mod rows;
mod sample;
mod tensors;
mod transfer;

pub(crate) use arena::Arena;
pub(crate) use attention::{
    ATTENTION_BLOCK, ATTENTION_PAIRS, attention_grid, attention_kernel, contiguous_indices, unit_step,
};
pub(crate) use copy::{contiguous, converted};
pub(crate) use gemm::{product_by_head, product_in_parts};
pub(crate) use graph::Graph;
pub(crate) use grouped::{Form, Grouped};
pub(crate) use largest::write_largest;
pub(crate) use launch::{BLOCK, Launch, blocks, row_block};
pub(crate) use layout::DeviceLayout;
pub(crate) use module::{Module, describe, free_bytes, modules, multiprocessors_of_hopper};
pub(crate) use rows::Rows;
pub(crate) use sample::{Change, SampleRow, sample};
pub(crate) use tensors::{device_of, empty};
pub(crate) use transfer::{copy_to, upload};

/// The most scores of an indexer that are in memory at a time: rows times columns.
pub(crate) const MAX_SCORES: usize = 1 << 26;
