//! The residual stream's sums on CPU: one pass on this crate's threads, where candle's sums of pairs wait for threads of
//! their own.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::cpu::floats::{Floats, for_rows, to_tensor};

/// [`add`](super::add) of f32 tensors: the same bits as candle's `x + (a + b)`.
pub(super) fn add(x: &Tensor, a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (values, a, b) = (Floats::new(x)?, Floats::new(a)?, b.map(Floats::new).transpose()?);
    let (values, a, b) = (values.as_slice(), a.as_slice(), b.as_ref().map(Floats::as_slice));
    let width = x.dims().last().copied().unwrap_or(1);
    let mut out = vec![0.0f32; values.len()];
    for_rows(&mut out, width, |row, out| {
        let range = row * width..row * width + out.len();
        let (values, a) = (&values[range.clone()], &a[range.clone()]);
        match b.map(|b| &b[range]) {
            Some(b) => {
                for (((out, value), a), b) in out.iter_mut().zip(values).zip(a).zip(b) {
                    *out = value + (a + b);
                }
            }
            None => {
                for ((out, value), a) in out.iter_mut().zip(values).zip(a) {
                    *out = value + a;
                }
            }
        }
    });
    to_tensor(out, x.dims(), x.dtype())
}
