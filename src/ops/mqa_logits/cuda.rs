//! `mqa_logits` on a GPU. Here its kernel is chosen.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::cuda::{
    DeviceLayout, Launch, Module, blocks, device_of, empty, modules, multiprocessors_of_hopper, unit_step,
};
use crate::ops::layout::{BatchLayout, PAGE_SIZE};

/// Widths of keys that the kernels of each name hold in registers.
const WIDTHS: [(&str, usize); 2] = [("narrow", 128), ("wide", 256)];

/// [`mqa_logits`](super::mqa_logits) of tensors on one GPU.
pub(super) fn mqa_logits(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
    let (tokens, _, dim) = q.dims3()?;
    // Keys in e4m3 without scales are nothing that a cache holds.
    let width = WIDTHS.iter().find(|(_, width)| dim <= *width && index_k.dtype() != DType::F8E4M3);
    let Some((width, _)) = width else {
        return super::reference::mqa_logits(q, index_k, weights, layout);
    };
    let logits = empty((tokens, layout.max_context()), DType::F32, device_of(q)?)?;
    match hopper_takes(q, index_k)? {
        Some(kernels) => {
            hopper(&kernels, q, index_k, weights, layout, Hidden::Infinite, &logits)?;
        }
        None if super::narrow::takes(q, index_k)? => super::narrow::mqa_logits(q, index_k, weights, layout, &logits)?,
        None => any_gpu(width, q, index_k, weights, layout, &logits)?,
    }
    Ok(logits)
}

/// Scores for a selection of `k`: `[T, layout.max_context()]` f32, of which the scores of rows that see at most `k` positions,
/// and those of positions that a row does not see, may be anything. `None` if no kernel leaves these out.
pub(crate) fn seen_logits(
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    k: usize,
) -> Result<Option<Tensor>> {
    let Some(kernels) = hopper_takes(q, index_k)? else { return Ok(None) };
    let (tokens, columns) = (q.dim(0)?, layout.max_context());
    // Rows begin at multiples of 16 bytes, as a selection likes them.
    let logits = empty((tokens, columns.next_multiple_of(4)), DType::F32, device_of(q)?)?.narrow(1, 0, columns)?;
    hopper(&kernels, q, index_k, weights, layout, Hidden::Anything { seen: k }, &logits)?;
    Ok(Some(logits))
}

/// What is written where a row does not see a position.
enum Hidden {
    Infinite,
    /// Nothing, nor for a row that sees at most so many positions.
    Anything {
        seen: usize,
    },
}

/// Elements of a vector and heads that the kernels of Hopper take.
const HOPPER_DIM: usize = 128;
const HOPPER_HEADS: usize = 64;
/// Their threads.
const HOPPER_BLOCK: usize = 384;
/// Rows of `q` of a block of rows.
const HOPPER_QUERIES: [usize; 3] = [1, 2, 4];

/// The kernels of Hopper for one form of queries and keys.
struct Hopper {
    multiprocessors: usize,
    module: &'static Module,
    /// Shared memory for each of [`HOPPER_QUERIES`].
    shared: [usize; 3],
}

/// Returns the kernels of Hopper that take these on their GPU: `q` in e4m3 and the rows of an FP8 cache, or both in bf16.
fn hopper_takes(q: &Tensor, index_k: &Tensor) -> Result<Option<Hopper>> {
    let (_, heads, dim) = q.dims3()?;
    let (slots, row) = index_k.dims2()?;
    let (module, shared) = match (q.dtype(), index_k.dtype()) {
        (DType::F8E4M3, DType::U8) => (&modules::SM90_MQA_LOGITS, [118_784, 136_192, 169_984]),
        (DType::BF16, DType::BF16) => (&modules::SM90_MQA_LOGITS_BF16, [230_400, 215_040, 232_448]),
        _ => return Ok(None),
    };
    // Whole pages are read, from multiples of 16 bytes on.
    let is_cache = index_k.stride() == [row, 1]
        && slots.is_multiple_of(PAGE_SIZE)
        && (index_k.layout().start_offset() * index_k.dtype().size_in_bytes()).is_multiple_of(16);
    if !is_cache || dim != HOPPER_DIM || !(1..=HOPPER_HEADS).contains(&heads) {
        return Ok(None);
    }
    let multiprocessors = multiprocessors_of_hopper(device_of(q)?)?;
    Ok(multiprocessors.map(|multiprocessors| Hopper { multiprocessors, module, shared }))
}

/// Products of the tensor cores.
fn hopper(
    kernels: &Hopper,
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    hidden: Hidden,
    logits: &Tensor,
) -> Result<()> {
    let (device, (tokens, heads, _)) = (device_of(q)?, q.dims3()?);
    if tokens == 0 {
        return Ok(());
    }
    let layout_rows = layout.spans.iter().map(|span| span.tokens.len()).max().unwrap_or(0);
    let which = HOPPER_QUERIES.iter().position(|queries| layout_rows <= *queries).unwrap_or(2);
    let (queries, shared) = (HOPPER_QUERIES[which], kernels.shared[which]);
    let is_aligned = |tensor: &Tensor| {
        let (strides, size) = (tensor.stride(), tensor.dtype().size_in_bytes());
        let begins = [strides[0], strides[1], tensor.layout().start_offset()];
        strides[2] == 1 && begins.iter().all(|n| (n * size).is_multiple_of(16))
    };
    let q = if is_aligned(q) { q.clone() } else { q.force_contiguous()? };
    let weights = weights.to_dtype(DType::F32)?.contiguous()?;
    let layout_there = DeviceLayout::of(layout, device)?;
    let (seen, fill) = match hidden {
        Hidden::Infinite => (0, 1),
        Hidden::Anything { seen } => (seen.min(layout.max_context()), 0),
    };
    let dtypes = format!("{}_{}", q.dtype().as_str(), index_k.dtype().as_str());
    Launch::new(kernels.module, format!("mqa_logits_{dtypes}_x{queries}"))
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("index_k", index_k)
        .tensor("weights", &weights)
        .layout(&layout_there)
        .tensor("logits", logits)
        .long(logits.stride()[0])
        .int(tokens)
        .int(heads)
        .int(logits.dim(1)?)
        .int(seen)
        .int(fill)
        .run(device, [kernels.multiprocessors, 1], HOPPER_BLOCK, shared)
}

/// One block a row and a page of columns.
fn any_gpu(
    width: &str,
    q: &Tensor,
    index_k: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    logits: &Tensor,
) -> Result<()> {
    /// Threads of a block: eight keys for each of its warps are a page.
    const BLOCK: usize = PAGE_SIZE / 8 * 32;

    let device = device_of(q)?;
    let ((tokens, heads, dim), columns) = (q.dims3()?, layout.max_context());
    let layout = DeviceLayout::of(layout, device)?;
    let (q, index_k) = (unit_step(q)?, unit_step(index_k)?);
    let weights = weights.to_dtype(DType::F32)?.contiguous()?;
    Launch::new(&modules::MQA_LOGITS, format!("mqa_logits_{}_{}_{width}", q.dtype().as_str(), index_k.dtype().as_str()))
        .tensor("q", &q)
        .long(q.stride()[0])
        .long(q.stride()[1])
        .tensor("index_k", &index_k)
        .long(index_k.stride()[0])
        .tensor("weights", &weights)
        .layout(&layout)
        .tensor("logits", logits)
        .int(heads)
        .int(dim)
        .int(columns)
        .run(device, [tokens, blocks(columns, PAGE_SIZE)], BLOCK, 0)
}
