//! What a forward pass saw and chose, for parity checks and for records.

use std::collections::HashMap;

use candle::{Device, Result, Tensor};
use candle_core as candle;

use crate::ops::layout::{BatchLayout, PAGE_SIZE};

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
}

/// Turns selected slots `[T, k]` into positions; `None` stands for all positions a row may see.
pub(super) fn selected_positions(slots: Option<&Tensor>, topk: usize, layout: &BatchLayout) -> Result<Tensor> {
    let rows = layout.tokens();
    // Nobody chooses more than there is, and `index_topk` may be absurd.
    let topk = topk.min(layout.max_context());
    let mut positions = vec![-1i64; rows * topk];
    let slots = match slots {
        None => None,
        Some(slots) => Some(slots.to_dtype(candle::DType::I64)?.to_vec2::<i64>()?),
    };
    for span in &layout.spans {
        let pages: HashMap<usize, usize> = span.block_table.iter().map(|&page| page as usize).zip(0..).collect();
        for (row, last) in span.tokens.clone().zip(span.start..) {
            let out = &mut positions[row * topk..(row + 1) * topk];
            match &slots {
                None => out.iter_mut().zip(0..=last as i64).for_each(|(o, p)| *o = p),
                Some(slots) => {
                    let chosen = slots[row].iter().filter(|&&slot| slot >= 0);
                    for (o, &slot) in out.iter_mut().zip(chosen) {
                        let slot = slot as usize;
                        *o = match pages.get(&(slot / PAGE_SIZE)) {
                            Some(page) => (page * PAGE_SIZE + slot % PAGE_SIZE) as i64,
                            None => candle::bail!("slot {slot} of row {row} is not its sequence's"),
                        };
                    }
                }
            }
        }
    }
    Tensor::from_vec(positions, (rows, topk), &Device::Cpu)
}
