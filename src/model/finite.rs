//! An overflow, found in the layer where it happens.

use candle::{CpuStorage, DType, Result, Storage, Tensor};
use candle_core as candle;

/// Refuses `x: [T, n]` with a value that is infinite or NaN.
pub(super) fn check_finite(what: &str, x: &Tensor) -> Result<()> {
    let Some(element) = not_finite(x)? else { return Ok(()) };
    let (row, dtype) = (element / x.dim(1)?.max(1), x.dtype().as_str());
    candle::bail!("{what} of row {row} is not finite: the weights overflow in {dtype}")
}

/// The first element that is not finite.
fn not_finite(x: &Tensor) -> Result<Option<usize>> {
    let (storage, layout) = x.storage_and_layout();
    if let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        let found = match storage {
            CpuStorage::F32(values) => Some(first(&values[from..to], |x| x.to_bits() & 0x7fff_ffff < 0x7f80_0000)),
            CpuStorage::BF16(values) => Some(first(&values[from..to], |x| x.to_bits() & 0x7fff < 0x7f80)),
            CpuStorage::F16(values) => Some(first(&values[from..to], |x| x.to_bits() & 0x7fff < 0x7c00)),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    drop(storage);
    // Elsewhere: zero times a number is zero, times anything else it is not.
    let zero = (x.detach().to_dtype(DType::F32)? * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    Ok(if zero == 0.0 { None } else { Some(0) })
}

/// The first value that is not `finite`. Whether there is one is known before where it is: the first pass has no branch
/// and costs next to nothing.
fn first<T: Copy>(values: &[T], finite: impl Fn(T) -> bool) -> Option<usize> {
    let all = values.iter().fold(true, |all, &x| all & finite(x));
    if all { None } else { values.iter().position(|&x| !finite(x)) }
}
