//! Writing a step's keys to their slots.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const OP: Op = Op { name: "cache_write", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_KEYS_TRACKED };

/// Writes each row of `rows` to its slot of `cache`, in place: `cache[slots[t]] = rows[t]`.
///
/// The write is not recorded for gradients: training takes keys from the batch's own rows.
///
/// # Shapes
/// - `cache`: `[slots, D]`, f32, bf16, f16, f64, f8e4m3 or, for the rows of an FP8 cache, u8; contiguous
/// - `rows`: `[T, D]`, any of the float dtypes, rounded to the dtype of `cache`; u8 if `cache` is
/// - `slots`: `[T]` u32, different from each other and below the slots of `cache`
///
/// # Errors
/// A wrong rank, dtype or size, a slot outside the cache. A failed call has written nothing.
pub fn cache_write(cache: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let _span = tracing::trace_span!("cache_write").entered();
    let [_, dim] = args::shape(OP.name, "cache", cache, [any("slots"), any("D")])?;
    let [tokens, _] = args::shape(OP.name, "rows", rows, [any("T"), exactly("D", dim)])?;
    args::shape(OP.name, "slots", slots, [exactly("T", tokens)])?;
    args::dtype(OP.name, "cache", cache, args::KEYS)?;
    args::dtype(OP.name, "rows", rows, if cache.dtype() == DType::U8 { &[DType::U8] } else { args::FLOATS_AND_FP8 })?;
    args::dtype(OP.name, "slots", slots, &[DType::U32])?;
    if !cache.is_contiguous() {
        candle::bail!("{}: cache must be contiguous", OP.name)
    }
    let rows = rows.detach().to_dtype(cache.dtype())?.contiguous()?;
    match OP.backend([cache, &rows, slots]) {
        Backend::Cpu => cpu::cache_write(cache, &rows, slots),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::cache_write(cache, &rows, slots),
        Backend::Reference => reference::cache_write(cache, &rows, slots),
    }
}
