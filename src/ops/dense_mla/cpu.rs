//! `dense_mla` on CPU: the kernel of `sparse_mla` over all slots of a context.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::mla::mla;
use crate::ops::layout::BatchLayout;

pub(super) fn dense_mla(
    q: &Tensor,
    kv: &Tensor,
    layout: &BatchLayout,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    if u32::try_from(kv.dim(0)?).is_err() {
        candle::bail!("dense_mla: the cache has {} slots, the limit is {}", kv.dim(0)?, u32::MAX);
    }
    let slots = |span: &crate::ops::layout::Span| span.context_slots().map(|slot| slot as u32).collect::<Vec<_>>();
    let slots = layout.spans.iter().map(slots).collect::<Vec<_>>();
    let rows = layout.spans.iter().zip(&slots);
    let seen = rows.flat_map(|(span, slots)| (span.start..span.context()).map(|position| &slots[..=position]));
    mla(q, kv, &seen.collect::<Vec<_>>(), value_dim, softmax_scale)
}
