//! One tensor of a [`Checkpoint`], chunk by chunk, to elements in memory.

use std::any::Any;

use candle_core::{DType, WithDType};
use float8::F8E4M3;
use half::{bf16, f16};
use safetensors::Dtype;

use super::checkpoint::{CHUNK_BYTES, Checkpoint, Located};
use super::decode::{Element, append, append_converted, check_fit, scale_runs, scales};
use super::error::TensorProblem;

type Result<T> = std::result::Result<T, TensorProblem>;

/// Reads one tensor.
pub(super) struct Reader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) located: &'a Located,
    /// The dtype that the values must fit in, whatever they are kept as.
    pub(super) becomes: Option<DType>,
    /// One for each block of an FP8 weight; multiplied into the values unless they stay FP8.
    pub(super) scales: &'a [f32],
}

impl Reader<'_> {
    /// Appends the tensor's elements to `out`, converted if they are stored in another dtype.
    pub(super) fn append<U: Element + WithDType>(&self, out: &mut Vec<U>) -> Result<()> {
        match self.located.entry.dtype {
            Dtype::F32 => self.append_from::<f32, U>(out),
            Dtype::BF16 => self.append_from::<bf16, U>(out),
            Dtype::F16 => self.append_from::<f16, U>(out),
            Dtype::F8_E4M3 => self.append_from::<F8E4M3, U>(out),
            found => Err(TensorProblem::DType { found, expected: "a float dtype" }),
        }
    }

    fn append_from<T: Element + WithDType, U: Element + WithDType>(&self, out: &mut Vec<U>) -> Result<()> {
        if let Some(out) = (out as &mut dyn Any).downcast_mut::<Vec<T>>() {
            return self.for_each_chunk::<T>(|bytes, first| {
                let start = out.len();
                append::<T>(bytes, first, out)?;
                self.check_fit(&out[start..], first)
            });
        }
        let mut chunk: Vec<T> = Vec::new();
        let columns = self.located.entry.shape.last().copied().unwrap_or(1);
        let block = self.checkpoint.config().quantization_config.as_ref().map(|q| q.weight_block_size);
        self.for_each_chunk::<T>(|bytes, first| {
            chunk.clear();
            append::<T>(bytes, first, &mut chunk)?;
            self.check_fit(&chunk, first)?;
            let (false, Some([block_rows, block_columns])) = (self.scales.is_empty(), block) else {
                return append_converted(chunk.iter().map(|value| value.to_f32()), first, out);
            };
            let scale_columns = columns.div_ceil(block_columns);
            let mut rest = chunk.as_slice();
            let mut element = first;
            while !rest.is_empty() {
                let (row, column) = (element / columns, element % columns);
                let run = (columns - column).min(rest.len());
                let (now, later) = rest.split_at(run);
                let row_scales = self.scales.get(row / block_rows * scale_columns..).unwrap_or_default();
                let row_scales = scale_runs(row_scales, block_columns, column, run);
                let values = now.iter().zip(row_scales).map(|(value, scale)| value.to_f32() * scale);
                append_converted(values, element, out)?;
                (rest, element) = (later, element + run);
            }
            Ok(())
        })
    }

    fn check_fit<T: Element + WithDType>(&self, values: &[T], first: usize) -> Result<()> {
        match self.becomes {
            Some(DType::F16) if T::DTYPE != DType::F16 => check_fit::<T, f16>(values, first),
            Some(DType::BF16) if T::DTYPE == DType::F32 => check_fit::<T, bf16>(values, first),
            _ => Ok(()),
        }
    }

    /// Calls `body(bytes, index of the first element)` for each chunk, and releases its pages.
    fn for_each_chunk<T: Element>(&self, mut body: impl FnMut(&[u8], usize) -> Result<()>) -> Result<()> {
        // A multiple of every element size.
        for (i, bytes) in self.checkpoint.bytes(self.located).chunks(CHUNK_BYTES).enumerate() {
            let start = i * CHUNK_BYTES;
            body(bytes, start / T::SIZE)?;
            self.checkpoint.release(self.located, start..start + bytes.len());
        }
        Ok(())
    }
}

/// The scales of an FP8 weight, by their name.
pub(super) fn read_scales(checkpoint: &Checkpoint, name: &str) -> Result<Vec<f32>> {
    let located = checkpoint.located(name).ok_or(TensorProblem::Missing)?;
    let bytes = checkpoint.bytes(located);
    let values = scales(bytes, located.entry.dtype)?;
    checkpoint.release(located, 0..bytes.len());
    Ok(values)
}
