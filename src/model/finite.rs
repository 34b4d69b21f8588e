//! Overflows, found in the layer where they happen.

use candle::{CpuStorage, DType, Result, Storage, Tensor};
use candle_core as candle;

use crate::ops;
use crate::ops::residual::NOTHING;

/// The check of one step: on CPU each tensor is looked at when it is seen, elsewhere the device keeps the first row that is
/// not finite, which is read at the end.
#[derive(Debug, Default)]
pub(crate) struct FiniteCheck {
    /// What was seen and not read yet: its name and its dtype.
    seen: Vec<(String, DType)>,
    /// The row and the index into `seen` of what was found, `[2]` u32, as [`ops::mark_not_finite`] writes them.
    first: Option<Tensor>,
}

impl FiniteCheck {
    /// A check that keeps what it finds in `first`: `[2]` u32, both [`NOTHING`].
    #[cfg(feature = "cuda")]
    pub(crate) fn keeping(first: Tensor) -> Self {
        Self { seen: Vec::new(), first: Some(first) }
    }

    /// Takes note of `x: [T, n]`; `what` names it in the error.
    ///
    /// Fails if `x` is on CPU and has a value that is infinite or NaN.
    pub(super) fn see(&mut self, what: impl FnOnce() -> String, x: &Tensor) -> Result<()> {
        match in_memory(x)? {
            Some(None) => Ok(()),
            Some(Some(element)) => refuse(&what(), element / x.dim(1)?.max(1), x.dtype()),
            None => self.defer(what(), x),
        }
    }

    /// Fails if a tensor that was seen has a value that is infinite or NaN, with the name of the first one.
    pub(crate) fn finish(self) -> Result<()> {
        match &self.first {
            Some(first) => {
                let found = first.to_vec1::<u32>()?;
                self.verify([found[0], found[1]])
            }
            None => Ok(()),
        }
    }

    /// [`Self::finish`] with what was read of the device: a row and the number of the tensor, both [`NOTHING`] if all were
    /// finite.
    pub(crate) fn verify(&self, [row, index]: [u32; 2]) -> Result<()> {
        match self.seen.get(index as usize) {
            Some((what, dtype)) => refuse(what, row as usize, *dtype),
            None => Ok(()),
        }
    }

    fn defer(&mut self, what: String, x: &Tensor) -> Result<()> {
        let first = match self.first.take() {
            Some(first) => first,
            None => Tensor::new(&[NOTHING, NOTHING], x.device())?,
        };
        let marked = ops::mark_not_finite(x, self.seen.len() as u32, &first);
        self.first = Some(first);
        self.seen.push((what, x.dtype()));
        marked
    }
}

fn refuse(what: &str, row: usize, dtype: DType) -> Result<()> {
    candle::bail!("{what} of row {row} is not finite: the weights overflow in {}", dtype.as_str())
}

/// The first element that is not finite of a contiguous tensor on CPU; `None` for other tensors.
fn in_memory(x: &Tensor) -> Result<Option<Option<usize>>> {
    let (storage, layout) = x.storage_and_layout();
    let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else { return Ok(None) };
    Ok(match storage {
        CpuStorage::F32(values) => Some(first(&values[from..to], |x| x.to_bits() & 0x7fff_ffff < 0x7f80_0000)),
        CpuStorage::BF16(values) => Some(first(&values[from..to], |x| x.to_bits() & 0x7fff < 0x7f80)),
        CpuStorage::F16(values) => Some(first(&values[from..to], |x| x.to_bits() & 0x7fff < 0x7c00)),
        _ => None,
    })
}

/// The first value that is not `finite`. Whether there is one is known before where it is: the first pass has no branch
/// and costs next to nothing.
fn first<T: Copy>(values: &[T], finite: impl Fn(T) -> bool) -> Option<usize> {
    let all = values.iter().fold(true, |all, &x| all & finite(x));
    if all { None } else { values.iter().position(|&x| !finite(x)) }
}

#[cfg(test)]
mod tests {
    use candle::Device;

    use super::*;

    #[test]
    fn the_first_tensor_and_row_are_named_at_once_and_at_the_end() {
        let tensor = |values: [[f32; 2]; 3]| Tensor::new(&values, &Device::Cpu).unwrap();
        let fine = tensor([[1.0, -2.0], [f32::MAX, f32::MIN], [0.0, 3.0]]);
        let spoilt = [
            tensor([[1.0, 2.0], [0.0, f32::INFINITY], [f32::NAN, 0.0]]),
            tensor([[1.0, 2.0], [f32::NEG_INFINITY, f32::INFINITY], [0.0, 0.0]]),
            tensor([[1.0, 2.0], [f32::NAN, 0.0], [0.0, 0.0]]),
        ];
        let expected = "layer 1 of row 1 is not finite: the weights overflow in f32";
        for bad in spoilt {
            let mut check = FiniteCheck::default();
            check.see(|| "layer 0".to_string(), &fine).unwrap();
            let error = check.see(|| "layer 1".to_string(), &bad).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");

            let mut check = FiniteCheck::default();
            for (what, x) in [("layer 0", &fine), ("layer 1", &bad), ("layer 2", &bad)] {
                check.defer(what.to_string(), x).unwrap();
            }
            let error = check.finish().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        let mut check = FiniteCheck::default();
        check.defer("layer 0".to_string(), &fine).unwrap();
        check.finish().unwrap();
    }
}
