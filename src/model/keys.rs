//! Where attention takes its keys from: cached slots, or the batch's own rows.

use candle::{Device, Result, Tensor};
use candle_core as candle;

use super::cache::LayerCache;
use super::step::Step;
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};

/// The source of a layer's keys.
#[derive(Clone, Copy)]
pub(super) enum KeySource<'a> {
    /// The slots of a cache, to which the batch's keys are written first. Nothing is recorded for gradients.
    Cached(&'a LayerCache),
    /// The batch's own rows: every sequence begins in it. Gradients flow.
    Rows(&'a RowSlots),
}

impl KeySource<'_> {
    /// `rows: [T, kv_lora_rank + qk_rope_head_dim]` of the batch → the rows of all slots, `[slots, ..]`,
    /// packed in an FP8 cache.
    pub(super) fn kv(&self, rows: Tensor, step: &Step) -> Result<Tensor> {
        match self {
            Self::Cached(cache) => {
                cache.write_kv(&rows, &step.slots)?;
                Ok(cache.kv.clone())
            }
            Self::Rows(slots) => slots.place(rows),
        }
    }

    /// `rows: [T, index_head_dim]` of the batch → the index keys of all slots, `[slots, index_head_dim]`.
    pub(super) fn index_k(&self, rows: Tensor, step: &Step) -> Result<Tensor> {
        match self {
            Self::Cached(cache) => match &cache.index_k {
                Some(index_k) => {
                    cache.write_index_k(index_k, &rows, &step.slots)?;
                    Ok(index_k.clone())
                }
                None => candle::bail!("the cache has no index keys for this layer: it was made for another model"),
            },
            Self::Rows(slots) => slots.place(rows),
        }
    }
}

/// The slots of a batch of whole sequences that no cache holds.
#[derive(Debug)]
pub(super) struct RowSlots {
    /// The row of each slot, `[slots]` u32, 0 for slots between sequences; `None` where slots and rows are the same.
    row_of_slot: Option<Tensor>,
}

impl RowSlots {
    /// `layout` as [`BatchLayout::uncached`] makes it.
    pub(super) fn new(layout: &BatchLayout, device: &Device) -> Result<Self> {
        if let Some(span) = layout.spans.iter().find(|span| span.start > 0) {
            candle::bail!("rows {:?} start at position {}: without a cache all start at 0", span.tokens, span.start)
        }
        let tokens = layout.tokens();
        let slots = layout.spans.iter().map(|span| span.tokens.len().div_ceil(PAGE_SIZE) * PAGE_SIZE).sum();
        layout.check(tokens, slots)?;
        let mut rows = vec![0u32; slots];
        let slot_of_row = layout.spans.iter().flat_map(Span::context_slots);
        let mut same = true;
        for (row, slot) in (0..).zip(slot_of_row) {
            rows[slot] = row;
            same &= row as usize == slot;
        }
        let row_of_slot = if same { None } else { Some(Tensor::from_vec(rows, slots, device)?) };
        Ok(Self { row_of_slot })
    }

    fn place(&self, rows: Tensor) -> Result<Tensor> {
        match &self.row_of_slot {
            Some(row_of_slot) => rows.contiguous()?.index_select(row_of_slot, 0),
            None => Ok(rows),
        }
    }
}
