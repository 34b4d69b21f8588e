//! The edge between candle tensors and the kernels' f32 slices.

use candle::{CpuStorage, DType, Device, Result, Storage, StorageRef, Tensor};
use candle_core as candle;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements that are worth a thread of their own in an element-wise op.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// A CPU float tensor's elements in row-major order as f32: borrowed where they lie so, else copied.
pub(crate) struct Floats<'a> {
    guard: StorageRef<'a>,
    start: usize,
    len: usize,
    copy: Option<Vec<f32>>,
}

impl<'a> Floats<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Result<Self> {
        let (guard, layout) = tensor.storage_and_layout();
        let (dims, stride, len) = (layout.dims(), layout.stride(), tensor.elem_count());
        let start = layout.start_offset();
        let copy = match (&*guard, layout.is_contiguous()) {
            (Storage::Cpu(CpuStorage::F32(_)), true) => None,
            (Storage::Cpu(storage), _) => {
                let mut copy = Vec::with_capacity(len);
                for_each_run(dims, stride, start, &mut |from, count| widen(storage, from, count, &mut copy))?;
                Some(copy)
            }
            _ => candle::bail!("expected a tensor on CPU, got one on {:?}", tensor.device()),
        };
        Ok(Self { guard, start, len, copy })
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        match (&self.copy, &*self.guard) {
            (Some(copy), _) => copy,
            (None, Storage::Cpu(CpuStorage::F32(values))) => &values[self.start..self.start + self.len],
            (None, _) => &[],
        }
    }

    /// The elements as a vector of their own.
    pub(crate) fn into_vec(self) -> Vec<f32> {
        match self.copy {
            Some(copy) => copy,
            None => self.as_slice().to_vec(),
        }
    }
}

/// Calls `run(offset, count)` for the runs of neighbours that make up a strided array, in row-major order.
fn for_each_run(
    dims: &[usize],
    stride: &[usize],
    offset: usize,
    run: &mut impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    // Trailing dimensions that lie densely make one run.
    let (mut outer, mut count) = (dims.len(), 1);
    while outer > 0 && (stride[outer - 1] == count || dims[outer - 1] == 1) {
        count *= dims[outer - 1];
        outer -= 1;
    }
    if outer == 0 {
        return run(offset, count);
    }
    for index in 0..dims[..outer].iter().product() {
        let (mut rest, mut from) = (index, offset);
        for (dim, stride) in dims[..outer].iter().zip(stride).rev() {
            from += rest % dim * stride;
            rest /= dim;
        }
        run(from, count)?;
    }
    Ok(())
}

/// Appends `storage[start..start + count]` to `to`.
fn widen(storage: &CpuStorage, start: usize, count: usize, to: &mut Vec<f32>) -> Result<()> {
    let range = start..start + count;
    match storage {
        CpuStorage::F32(values) => to.extend_from_slice(&values[range]),
        CpuStorage::BF16(values) => to.extend(values[range].iter().map(|v| v.to_f32())),
        CpuStorage::F16(values) => {
            let filled = to.len();
            to.resize(filled + count, 0.0);
            values[range].convert_to_f32_slice(&mut to[filled..]);
        }
        CpuStorage::F64(values) => to.extend(values[range].iter().map(|&v| v as f32)),
        _ => candle::bail!("expected a tensor of f32, bf16, f16 or f64"),
    }
    Ok(())
}

/// A CPU tensor of `dims` and `dtype` from f32 values.
pub(crate) fn to_tensor(values: Vec<f32>, dims: &[usize], dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::from_vec(values, dims, &Device::Cpu),
        DType::BF16 => {
            let narrow: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            Tensor::from_vec(narrow, dims, &Device::Cpu)
        }
        DType::F16 => {
            let mut narrow = vec![f16::ZERO; values.len()];
            narrow.convert_from_f32_slice(&values);
            Tensor::from_vec(narrow, dims, &Device::Cpu)
        }
        DType::F64 => {
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            Tensor::from_vec(wide, dims, &Device::Cpu)
        }
        other => candle::bail!("expected f32, bf16, f16 or f64 for a result, got {other:?}"),
    }
}

/// Calls `row(index, out_row)` for every row of `width` elements of `out`, in parallel where that pays.
pub(crate) fn for_rows<T: Send>(out: &mut [T], width: usize, row: impl Fn(usize, &mut [T]) + Send + Sync) {
    let rows_per_task = PARALLEL_ELEMENTS.div_ceil(width.max(1));
    if out.len() <= PARALLEL_ELEMENTS || rayon::current_num_threads() == 1 {
        out.chunks_mut(width.max(1)).enumerate().for_each(|(index, out)| row(index, out));
        return;
    }
    out.par_chunks_mut(width * rows_per_task).enumerate().for_each(|(task, out)| {
        out.chunks_mut(width).enumerate().for_each(|(index, out)| row(task * rows_per_task + index, out));
    });
}

/// A tensor of the shape and dtype of `x` whose rows `run(row of x, row of the result)` writes.
pub(crate) fn map_rows(x: &Tensor, run: impl Fn(&[f32], &mut [f32]) + Send + Sync) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1);
    let values = Floats::new(x)?;
    let values = values.as_slice();
    let mut out = vec![0.0; values.len()];
    for_rows(&mut out, width, |row, out| run(&values[row * width..][..width], out));
    to_tensor(out, x.dims(), x.dtype())
}
