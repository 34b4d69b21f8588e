//! What a forward pass saw and chose, for parity checks and for records.

use std::collections::HashMap;

use candle::{Device, Result, Tensor};
use candle_core as candle;

use super::step::Step;
use crate::ops::layout::PAGE_SIZE;

/// Intermediate results of one [`Model::forward_batch`](super::Model::forward_batch), one entry per layer, or of one
/// [`Model::forward_mtp`](super::Model::forward_mtp), one entry.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The residual stream after each layer, `[T, hidden_size]`.
    pub hidden: Vec<Tensor>,
    /// Positions that each row attends to, `[T, min(index_topk, longest context of the batch)]` i64, ascending, padded
    /// with -1; `None` where the model has no indexer.
    pub topk_indices: Vec<Option<Tensor>>,
    /// Experts that each row was sent to, `[T, num_experts_per_tok]` u32, ascending; `None` in dense layers.
    pub expert_indices: Vec<Option<Tensor>>,
    /// Whether nothing else is collected.
    pub(super) experts_only: bool,
}

impl Trace {
    /// A trace that collects `expert_indices` alone: the other results take time and memory.
    pub fn experts() -> Self {
        Self { experts_only: true, ..Self::default() }
    }
}

/// The positions that each row attends to: all that it sees, or those in the slots that were `chosen` for the step's
/// sparse rows, `[sparse rows, index_topk]`.
pub(super) fn selected_positions(chosen: Option<&Tensor>, step: &Step) -> Result<Tensor> {
    let layout = &step.layout;
    let rows = layout.tokens();
    // No row chooses more than there is, and `index_topk` may be absurd.
    let topk = step.widest();
    let mut positions = vec![-1i64; rows * topk];
    for (row, position) in layout.positions().into_iter().enumerate() {
        let out = &mut positions[row * topk..(row + 1) * topk];
        out.iter_mut().zip(0..=i64::from(position)).for_each(|(o, p)| *o = p);
    }
    if let (Some(group), Some(chosen)) = (step.sparse(), chosen) {
        let chosen = chosen.to_device(&Device::Cpu)?.to_dtype(candle::DType::I64)?.to_vec2::<i64>()?;
        let mut chosen = chosen.iter();
        for (span, rows) in group.layout.spans.iter().zip(&group.ranges) {
            let pages: HashMap<usize, usize> = span.block_table.iter().map(|&page| page as usize).zip(0..).collect();
            for (row, slots) in rows.clone().zip(chosen.by_ref()) {
                let out = &mut positions[row * topk..(row + 1) * topk];
                out.fill(-1);
                for (o, &slot) in out.iter_mut().zip(slots.iter().filter(|&&slot| slot >= 0)) {
                    let slot = slot as usize;
                    *o = match pages.get(&(slot / PAGE_SIZE)) {
                        Some(page) => (page * PAGE_SIZE + slot % PAGE_SIZE) as i64,
                        None => candle::bail!("slot {slot} of row {row} is not its sequence's"),
                    };
                }
            }
        }
    }
    Tensor::from_vec(positions, (rows, topk), &Device::Cpu)
}
