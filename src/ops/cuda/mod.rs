//! What the CUDA paths share, and the only code that talks to the driver: kernels as the build embeds them, their
//! launch, tensors from device memory, views, and a batch's layout on the device.
//!
//! A kernel works on its tensors' device in the stream of that device, as candle's own operations do; nothing here
//! waits for it.

mod attention;
mod launch;
mod layout;
mod module;
mod rows;
mod tensors;

pub(crate) use attention::{ATTENTION_BLOCK, ATTENTION_PAIRS, attention_kernel, contiguous_indices, unit_step};
pub(crate) use launch::{BLOCK, Launch, blocks, row_block};
pub(crate) use layout::DeviceLayout;
pub(crate) use module::{Module, describe, modules, multiprocessors_of_hopper};
pub(crate) use rows::Rows;
pub(crate) use tensors::{device_of, empty};
