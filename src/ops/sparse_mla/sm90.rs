//! `sparse_mla` on Hopper: clusters of two blocks, for V3.2's latents in bf16 or packed.

use candle::{CudaDevice, DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{Launch, contiguous_indices, device_of, empty, modules, multiprocessors_of_hopper};

/// Width of a key, and of its value.
pub(super) const DIM: usize = 576;
pub(super) const VALUE_DIM: usize = 512;
/// Heads of a warpgroup, and keys of a tile.
pub(super) const TILE: usize = 64;
/// Blocks of a cluster, each on a multiprocessor of its own.
const BLOCKS: usize = 2;
/// Threads of a warpgroup.
pub(super) const WARPGROUP: usize = 128;
/// Shared memory of a block with one and with two warpgroups that multiply: `Shared` in `kernels/common/sm90_mla.cuh`.
const SHARED: [usize; 2] = [200_864, 217_232];
/// Parts that a list is cut into at the most.
const MAX_SPLITS: usize = 32;
/// Pieces of work a cluster where lists are cut, at the most: bounds the memory for the parts' results.
const MAX_ROUNDS: usize = 4;

/// How a call is cut into pieces of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Warpgroups that multiply, each for 64 heads.
    groups: usize,
    /// Parts of a list.
    splits: usize,
    /// Pieces of work.
    items: usize,
}

impl Plan {
    /// The plan that takes the least time on this many clusters, by what a tile and what a piece of work cost with one and with
    /// two warpgroups and what combining parts costs, in tiles (measured on one H200).
    fn new(tokens: usize, heads: usize, k: usize, clusters: usize) -> Self {
        let tiles = k.div_ceil(TILE).max(1);
        let mut best = (f64::INFINITY, Self { groups: 1, splits: 1, items: 0 });
        for (groups, tile, piece) in [(1, 0.85, 3.3), (2, 1.0, 4.0)] {
            if groups == 2 && heads <= TILE {
                continue;
            }
            let pieces = tokens * heads.div_ceil(groups * TILE);
            for splits in 1..=tiles.min(MAX_SPLITS) {
                let items = pieces * splits;
                let rounds = items.div_ceil(clusters);
                if splits > 1 && rounds > MAX_ROUNDS {
                    break;
                }
                let combine = if splits > 1 { 1.0 + 0.07 * splits as f64 } else { 0.0 };
                let cost = rounds as f64 * (tiles.div_ceil(splits) as f64 * tile + piece) + combine;
                if cost < best.0 {
                    best = (cost, Self { groups, splits, items });
                }
            }
        }
        best.1
    }
}

/// Whether [`sparse_mla`] takes these, whatever the slots.
pub(crate) fn takes(q: &Tensor, kv: &Tensor, value_dim: usize, softmax_scale: f64) -> Result<bool> {
    let known = q.dtype() == DType::BF16 && [DType::BF16, DType::U8].contains(&kv.dtype());
    let fits = known && (q.dim(2)?, value_dim) == (DIM, VALUE_DIM) && kv.dim(0)? > 0 && softmax_scale > 0.0;
    Ok(fits && aligned(kv) && multiprocessors_of_hopper(device_of(q)?)?.is_some())
}

/// Returns the result of `sparse_mla`; `None` if the kernels here are not for this device, these shapes and dtypes, or where
/// rows do not begin at multiples of 16 bytes.
pub(crate) fn sparse_mla(
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    value_dim: usize,
    softmax_scale: f64,
) -> Result<Option<(Tensor, Tensor)>> {
    let device = device_of(q)?;
    let (tokens, heads, _) = q.dims3()?;
    if !takes(q, kv, value_dim, softmax_scale)? {
        return Ok(None);
    }
    let Some(multiprocessors) = multiprocessors_of_hopper(device)? else { return Ok(None) };
    let q = if aligned(q) { q.clone() } else { q.contiguous()? };
    if !aligned(&q) {
        return Ok(None);
    }
    let clusters = (multiprocessors / BLOCKS).max(1);
    let plan = Plan::new(tokens, heads, indices.dim(1)?, clusters);
    run(device, plan, clusters, &q, kv, &contiguous_indices(indices)?, softmax_scale).map(Some)
}

/// Whether the rows of a tensor begin at multiples of 16 bytes and lie in one piece each.
pub(super) fn aligned(tensor: &Tensor) -> bool {
    let size = tensor.dtype().size_in_bytes();
    let Some((step, strides)) = tensor.stride().split_last() else { return false };
    let (_, layout) = tensor.storage_and_layout();
    *step == 1 && strides.iter().chain([&layout.start_offset()]).all(|at| at * size % 16 == 0)
}

fn run(
    device: &CudaDevice,
    plan: Plan,
    clusters: usize,
    q: &Tensor,
    kv: &Tensor,
    indices: &Tensor,
    softmax_scale: f64,
) -> Result<(Tensor, Tensor)> {
    let ((tokens, heads, _), (slots, k)) = (q.dims3()?, (kv.dim(0)?, indices.dim(1)?));
    let Plan { groups, splits, items } = plan;
    let out = empty((tokens, heads, VALUE_DIM), DType::BF16, device)?;
    let lse = empty((tokens, heads), DType::F32, device)?;
    let parts = match splits {
        1 => None,
        _ => Some((
            empty((tokens, heads, splits, VALUE_DIM), DType::F32, device)?,
            empty((tokens, heads, splits), DType::F32, device)?,
        )),
    };
    let module = match kv.dtype() {
        DType::U8 => &modules::SM90_SPARSE_MLA_DECODE,
        _ => &modules::SM90_SPARSE_MLA_PREFILL,
    };
    Launch::new(module, format!("sparse_mla_bf16_{}_{}", kv.dtype().as_str(), groups * TILE))
        .tensor("q", q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("kv", kv)
        .long(kv.stride()[0])
        .tensor("indices", indices)
        .tensor("out", &out)
        .tensor("softmax_lse", &lse)
        .maybe("part_out", parts.as_ref().map(|(out, _)| out))
        .maybe("part_lse", parts.as_ref().map(|(_, lse)| lse))
        .int(items)
        .int(heads)
        .int(slots)
        .int(k)
        .int(usize::from(indices.dtype() == DType::I64))
        .int(splits)
        .float(softmax_scale)
        .run(device, [BLOCKS * items.min(clusters), 1], (groups + 1) * WARPGROUP, SHARED[groups - 1])?;
    if let Some((part_out, part_lse)) = &parts {
        Launch::new(&modules::SM90_SPARSE_MLA_DECODE, "sparse_mla_combine_bf16")
            .tensor("part_out", part_out)
            .tensor("part_lse", part_lse)
            .tensor("out", &out)
            .tensor("softmax_lse", &lse)
            .int(splits)
            .run(device, [tokens * heads, 1], 2 * WARPGROUP, 0)?;
    }
    Ok((out, lse))
}

#[cfg(test)]
mod tests {
    use super::Plan;

    /// Clusters of an H200.
    const CLUSTERS: usize = 66;

    #[test]
    fn few_rows_are_cut_and_many_are_not() {
        let plan = |tokens, heads, k| Plan::new(tokens, heads, k, CLUSTERS);
        assert_eq!(plan(4096, 128, 2048), Plan { groups: 2, splits: 1, items: 4096 });
        assert_eq!(plan(128, 128, 2048), Plan { groups: 2, splits: 1, items: 128 });
        assert_eq!(plan(1, 128, 2048), Plan { groups: 1, splits: 16, items: 32 });
        assert_eq!(plan(1, 16, 2048), Plan { groups: 1, splits: 16, items: 16 });
        assert_eq!(plan(16, 128, 2048), Plan { groups: 2, splits: 4, items: 64 });
        assert_eq!(plan(3, 16, 0), Plan { groups: 1, splits: 1, items: 3 });
    }

    #[test]
    fn every_part_of_every_list_is_a_piece_of_work() {
        for tokens in [1, 2, 5, 33, 66, 67, 200, 5000] {
            for heads in [1, 64, 65, 128, 129, 300] {
                for k in [1, 64, 65, 2048] {
                    let plan = Plan::new(tokens, heads, k, CLUSTERS);
                    assert_eq!(plan.items, tokens * heads.div_ceil(64 * plan.groups) * plan.splits);
                    assert!(
                        plan.splits == 1 || plan.splits <= k.div_ceil(64) && plan.items <= 4 * CLUSTERS,
                        "{plan:?}"
                    );
                }
            }
        }
    }
}
