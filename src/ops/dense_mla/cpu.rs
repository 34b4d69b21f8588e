//! `dense_mla` on CPU: the kernel of `sparse_mla` over all slots of a context.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::mla::{Seen, mla};
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
    let mut seen = Seen { slots: Vec::with_capacity(layout.total_context()), rows: Vec::with_capacity(q.dim(0)?) };
    for span in &layout.spans {
        let first = seen.slots.len();
        seen.slots.extend(span.context_slots().map(|slot| slot as u32));
        seen.rows.extend((span.start..span.context()).map(|position| first..first + position + 1));
    }
    mla(q, kv, seen, value_dim, softmax_scale)
}
