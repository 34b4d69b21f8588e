//! The largest logit of each row, without a copy of the logits.

use candle_core::{CpuStorage, D, DType, Result, Storage, Tensor};

/// The largest logit of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Largest {
    /// Its token; among equal logits the smallest. If a logit is NaN or +inf, the first token with such a one.
    pub id: u32,
    /// The logit.
    pub logit: f32,
}

impl Largest {
    /// Of one row of logits `[vocab_size]`, which must not be empty.
    pub fn of(row: &[f32]) -> Self {
        let mut best = Self { id: 0, logit: f32::NEG_INFINITY };
        for (id, &logit) in row.iter().enumerate() {
            if logit > best.logit || logit.is_nan() {
                best = Self { id: id as u32, logit };
                if logit.is_nan() || logit == f32::INFINITY {
                    break;
                }
            }
        }
        best
    }
}

/// The largest logit of each row of `[n, vocab_size]`, in any float dtype on any device.
///
/// # Errors
/// If `logits` has another rank, no column, or a tensor operation fails.
pub fn largest(logits: &Tensor) -> Result<Vec<Largest>> {
    let (_, vocab_size) = logits.dims2()?;
    if vocab_size == 0 {
        candle_core::bail!("logits of an empty vocabulary")
    }
    let logits = logits.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = logits.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        return Ok(values[start..end].chunks_exact(vocab_size).map(Largest::of).collect());
    }
    drop(storage);
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = logits.device() {
        let largest = crate::ops::cuda::empty((logits.dim(0)?, 2), DType::U32, device)?;
        crate::ops::cuda::write_largest(&logits, &largest)?;
        let pairs = largest.flatten_all()?.to_vec1::<u32>()?;
        return Ok(pairs.chunks_exact(2).map(|pair| Largest { id: pair[0], logit: f32::from_bits(pair[1]) }).collect());
    }
    by_operations(&logits)
}

/// [`largest`] of f32 logits by tensor operations, which run where the logits are.
fn by_operations(logits: &Tensor) -> Result<Vec<Largest>> {
    let (_, vocab_size) = logits.dims2()?;
    let largest = logits.max_keepdim(D::Minus1)?;
    let ids = Tensor::arange(0u32, vocab_size as u32, logits.device())?.broadcast_as(logits.shape())?;
    let none = Tensor::full(u32::MAX, logits.shape(), logits.device())?;
    // `argmax` of candle does not say which of equal numbers it takes.
    let first = logits.broadcast_eq(&largest)?.where_cond(&ids, &none)?.min(D::Minus1)?.to_vec1::<u32>()?;
    let nan = logits.ne(logits)?.to_dtype(DType::F32)?.max(D::Minus1)?.to_vec1::<f32>()?;
    let largest = largest.squeeze(D::Minus1)?.to_vec1::<f32>()?;
    let rows = first.into_iter().zip(largest).zip(nan).enumerate();
    rows.map(|(row, ((id, logit), nan))| {
        if nan == 0.0 && id != u32::MAX {
            Ok(Largest { id, logit })
        } else {
            Ok(Largest::of(&logits.get(row)?.to_vec1::<f32>()?))
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Both ways agree with a plain search, with ties, -inf, NaN and +inf.
    #[test]
    fn the_first_of_the_largest_is_found() -> Result<()> {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let rows = [
            ([1.0, 3.0, 3.0, -1.0], (1, 3.0)),
            ([-0.0, 0.0, -5.0, -inf], (0, 0.0)),
            ([-inf, -inf, -inf, -7.0], (3, -7.0)),
            ([-inf; 4], (0, -inf)),
            ([2.0, inf, nan, 3.0], (1, inf)),
            ([2.0, nan, inf, 3.0], (1, nan)),
        ];
        let values: Vec<f32> = rows.iter().flat_map(|(row, _)| *row).collect();
        let logits = Tensor::from_vec(values, (rows.len(), 4), &Device::Cpu)?;
        for found in [largest(&logits)?, by_operations(&logits)?] {
            for (largest, (row, (id, logit))) in found.iter().zip(&rows) {
                assert_eq!(largest.id, *id, "{row:?}");
                assert!(largest.logit == *logit || largest.logit.is_nan() && logit.is_nan(), "{row:?}: {largest:?}");
            }
        }
        let part = largest(&logits.narrow(0, 1, 2)?)?;
        assert_eq!(part.iter().map(|largest| largest.id).collect::<Vec<_>>(), [0, 3]);
        assert!(largest(&Tensor::zeros((2, 0), DType::F32, &Device::Cpu)?).is_err());
        Ok(())
    }
}
