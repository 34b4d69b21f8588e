//! `cache_write` on CPU: one copy a row.

use candle::{CpuStorage, InplaceOp3, Layout, Result, Tensor};
use candle_core as candle;

/// `cache` and `rows` have the same dtype and are contiguous.
pub(super) fn cache_write(cache: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    cache.inplace_op3(rows, &slots.contiguous()?, &CacheWrite)
}

struct CacheWrite;

impl InplaceOp3 for CacheWrite {
    fn name(&self) -> &'static str {
        "cache_write"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        cache_layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
        slots: &CpuStorage,
        slots_layout: &Layout,
    ) -> Result<()> {
        let (count, dim) = cache_layout.shape().dims2()?;
        let slots = part(slots.as_slice::<u32>()?, slots_layout)?;
        if let Some(at) = slots.iter().position(|&slot| slot as usize >= count) {
            candle::bail!("cache_write: slots[{at}] is {}, the cache has {count} slots", slots[at])
        }
        macro_rules! copy {
            ($($kind:ident),*) => {
                match (cache, rows) {
                    $((CpuStorage::$kind(cache), CpuStorage::$kind(rows)) => {
                        let rows = part(rows, rows_layout)?;
                        let start = cache_layout.start_offset();
                        for (row, &slot) in rows.chunks_exact(dim.max(1)).zip(slots) {
                            cache[start + slot as usize * dim..][..dim].copy_from_slice(row);
                        }
                        Ok(())
                    })*
                    _ => candle::bail!("cache_write: no copy between these dtypes"),
                }
            };
        }
        copy!(F32, BF16, F16, F64, F8E4M3, U8)
    }
}

/// The elements of a contiguous tensor.
fn part<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&values[from..to]),
        None => candle::bail!("cache_write: rows and slots must be contiguous"),
    }
}
