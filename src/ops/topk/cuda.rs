//! `topk` on a GPU. Here its kernel is chosen.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    DeviceLayout, Launch, device_of, empty, modules, multiprocessors_of_hopper, row_block, unit_step,
};

/// [`topk`](super::topk) of a tensor on a GPU; as in the reference there, a row with a NaN selects nothing.
pub(super) fn topk(logits: &Tensor, k: usize) -> Result<Tensor> {
    let device = device_of(logits)?;
    let (tokens, columns) = logits.dims2()?;
    let indices = empty((tokens, k), DType::I32, device)?;
    let logits = unit_step(logits)?;
    if indices.elem_count() > 0 && !hopper(&logits, k, None, &indices)? {
        radix(&logits, columns, k, &indices)?;
    }
    Ok(indices)
}

/// Writes the slots of the columns that each row selects among those that it sees to `slots: [T, k]` i32; a row that sees
/// at most `k` selects all of them. Returns whether there is a kernel that does.
///
/// `logits: [T, N]` f32, of any row stride; what lies beyond the position of a row is not read.
pub(crate) fn topk_slots(logits: &Tensor, k: usize, layout: &DeviceLayout, slots: &Tensor) -> Result<bool> {
    hopper(logits, k, Some(layout), slots)
}

/// The largest `k` of the kernels of `sm90_topk.cu`.
const HOPPER_K: usize = 4096;
/// Columns up to which their numbers stay within 31 bits, tiles included.
const HOPPER_COLUMNS: usize = 1 << 30;
/// Threads of their blocks.
const HOPPER_BLOCK: usize = 512;
/// Columns that a block's registers hold.
const HOPPER_TILE: usize = 8192;
/// Entries that a block keeps in shared memory beside its counts, and bytes of an entry.
const HOPPER_KEPT: usize = 8192 * 8;
/// Bytes of its counts.
const HOPPER_COUNTS: usize = 8992;

/// One pass over each row, by one block or by the blocks of a cluster.
fn hopper(logits: &Tensor, k: usize, layout: Option<&DeviceLayout>, out: &Tensor) -> Result<bool> {
    let device = device_of(logits)?;
    let (rows, columns) = logits.dims2()?;
    let Some(multiprocessors) = multiprocessors_of_hopper(device)? else { return Ok(false) };
    if k > HOPPER_K || columns > HOPPER_COLUMNS {
        return Ok(false);
    }
    let is_aligned = logits.stride()[0].is_multiple_of(4) && logits.layout().start_offset().is_multiple_of(4);
    let blocks = blocks_of_row(rows, columns + if is_aligned { 0 } else { 3 }, multiprocessors);
    let (name, kept) = match blocks {
        None => ("topk_f32_registers".to_string(), 0),
        Some(blocks) => (format!("topk_f32_streamed_x{blocks}"), HOPPER_KEPT),
    };
    let launch = Launch::new(&modules::SM90_TOPK, name).tensor("logits", logits).long(logits.stride()[0]);
    let launch = match layout {
        Some(layout) => launch.layout(layout),
        None => launch.maybe("spans", None).maybe("pages", None).int(0),
    };
    let launch = launch.tensor("out", out).int(columns).int(k);
    launch.run(device, [rows * blocks.unwrap_or(1), 1], HOPPER_BLOCK, HOPPER_COUNTS + kept)?;
    Ok(true)
}

/// Blocks that share a row, as many as leave no multiprocessor with two; `None` if the registers of one hold it.
fn blocks_of_row(rows: usize, columns: usize, multiprocessors: usize) -> Option<usize> {
    /// Columns from which a row is worth two blocks on one multiprocessor.
    const LONG: usize = 1 << 16;
    if columns <= HOPPER_TILE {
        return None;
    }
    let shared = [8, 4].into_iter().find(|blocks| rows * blocks <= multiprocessors);
    let most = if columns >= LONG { 2 * multiprocessors } else { multiprocessors };
    Some(shared.unwrap_or(if rows * 2 <= most { 2 } else { 1 }))
}

/// One block a row, in passes over the digits of the entries.
fn radix(logits: &Tensor, columns: usize, k: usize, indices: &Tensor) -> Result<()> {
    Launch::new(&modules::TOPK_RADIX, "topk_radix_f32")
        .tensor("logits", logits)
        .long(logits.stride()[0])
        .tensor("indices", indices)
        .int(columns)
        .int(k)
        .run(device_of(logits)?, [indices.dim(0)?, 1], row_block(columns), 0)
}

#[cfg(test)]
mod tests {
    use super::blocks_of_row;

    #[test]
    fn few_long_rows_are_shared_out() {
        for (rows, columns, blocks) in [
            (4096, 8192, None),
            (1, 8193, Some(8)),
            (16, 131_072, Some(8)),
            (32, 131_072, Some(4)),
            (64, 32_768, Some(2)),
            (128, 131_072, Some(2)),
            (128, 32_768, Some(1)),
            (4096, 131_072, Some(1)),
        ] {
            assert_eq!(blocks_of_row(rows, columns, 132), blocks, "{rows} rows of {columns}");
        }
    }
}
