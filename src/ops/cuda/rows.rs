//! Views as kernels address them.

use candle::cuda_backend::cudarc::driver::DeviceRepr;
use candle::{Result, Tensor};
use candle_core as candle;

/// The rows of a tensor `[.., width]` of any strides, of up to four dimensions; `Rows` of `kernels/common/rows.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Rows {
    dims: [u32; 3],
    step: i32,
    strides: [i64; 3],
}

// SAFETY: plain numbers in the layout of the C struct.
unsafe impl DeviceRepr for Rows {}

impl Rows {
    /// Returns the tensor, copied only if no `Rows` describes it, and its rows.
    ///
    /// # Errors
    /// If it is a scalar, has 2^32 rows or more, or the copy fails.
    pub(crate) fn of(tensor: &Tensor) -> Result<(Tensor, Self)> {
        if let Some(rows) = Self::new(tensor.dims(), tensor.stride()) {
            return Ok((tensor.clone(), rows));
        }
        let Some(&width) = tensor.dims().last() else { candle::bail!("a scalar has no rows") };
        let flat = tensor.contiguous()?.reshape(((), width))?;
        match Self::new(flat.dims(), flat.stride()) {
            Some(rows) => Ok((flat, rows)),
            None => candle::bail!("{:?} has too many rows for a kernel", tensor.dims()),
        }
    }

    fn new(dims: &[usize], strides: &[usize]) -> Option<Self> {
        let ((_, outer), (step, outer_strides)) = (dims.split_last()?, strides.split_last()?);
        let unused = 3usize.checked_sub(outer.len())?;
        u32::try_from(outer.iter().product::<usize>()).ok()?;
        let mut rows = Self { dims: [1; 3], step: i32::try_from(*step).ok()?, strides: [0; 3] };
        for (i, (&dim, &stride)) in outer.iter().zip(outer_strides).enumerate() {
            rows.dims[unused + i] = u32::try_from(dim).ok()?;
            rows.strides[unused + i] = i64::try_from(stride).ok()?;
        }
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn offsets_are_those_of_the_strides() {
        let rows = Rows::new(&[2, 5, 8], &[100, 16, 2]).unwrap();
        assert_eq!((rows.dims, rows.step, rows.strides), ([1, 2, 5], 2, [0, 100, 16]));
        let row = Rows::new(&[8], &[1]).unwrap();
        assert_eq!((row.dims, row.step, row.strides), ([1, 1, 1], 1, [0, 0, 0]));
        assert!(Rows::new(&[], &[]).is_none());
        assert!(Rows::new(&[1, 1, 1, 1, 8], &[8, 8, 8, 8, 1]).is_none());
        assert!(Rows::new(&[1 << 20, 1 << 20, 8], &[1 << 23, 8, 1]).is_none());
    }
}
