//! Rows of a CPU tensor (everything but the last dimension flattened), read as f32.

use candle::{CpuStorage, DType, Layout, Result, Storage, Tensor};
use candle_core as candle;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::ops::fp8::{BLOCK, Fp8Row, e4m3};

/// The elements of a tensor from its first one on.
#[derive(Clone, Copy)]
enum Elements<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    /// Bytes of packed rows.
    Fp8(&'a [u8], Fp8Row),
}

/// Rows of `width` elements that lie `stride` elements apart; packed rows lie `stride` bytes apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    elements: Elements<'a>,
    stride: usize,
    width: usize,
}

/// The tensor itself where [`Rows`] can read it, a converted or contiguous copy elsewhere.
pub(crate) fn readable(tensor: &Tensor) -> Result<Tensor> {
    let tensor = match tensor.dtype() {
        DType::F32 | DType::BF16 | DType::F16 | DType::U8 => tensor.clone(),
        _ => tensor.to_dtype(DType::F32)?,
    };
    if row_stride(tensor.layout()).is_some() { Ok(tensor) } else { tensor.force_contiguous() }
}

/// Elements between one row and the next, where rows are contiguous and equally far apart.
fn row_stride(layout: &Layout) -> Option<usize> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let (&width, leading) = dims.split_last()?;
    if width > 1 && strides[leading.len()] != 1 {
        return None;
    }
    let (mut row_stride, mut expected) = (None, None);
    for (&dim, &stride) in leading.iter().zip(strides).rev().filter(|&(&dim, _)| dim != 1) {
        if expected.is_some_and(|expected| expected != stride) {
            return None;
        }
        row_stride.get_or_insert(stride);
        expected = Some(stride * dim);
    }
    Some(row_stride.unwrap_or(width))
}

impl<'a> Rows<'a> {
    /// The rows of a tensor that came from [`readable`], given what it holds.
    pub(crate) fn new(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        match storage {
            Storage::Cpu(storage) => Self::of_cpu(storage, layout),
            _ => candle::bail!("attention: expected a tensor on the CPU"),
        }
    }

    /// [`Rows::new`] of keys, which may be the packed rows of an FP8 cache.
    pub(crate) fn keys(storage: &'a Storage, layout: &Layout, row: Fp8Row) -> Result<Self> {
        let Storage::Cpu(CpuStorage::U8(data)) = storage else { return Self::new(storage, layout) };
        match (row_stride(layout), data.get(layout.start_offset()..)) {
            (Some(stride), Some(data)) => Ok(Self { elements: Elements::Fp8(data, row), stride, width: row.width() }),
            _ => candle::bail!("attention: rows of {layout:?} are scattered"),
        }
    }

    /// [`Rows::new`] of what a CPU tensor holds.
    pub(crate) fn of_cpu(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let Some(stride) = row_stride(layout) else { candle::bail!("attention: rows of {layout:?} are scattered") };
        let start = layout.start_offset();
        let elements = match storage {
            CpuStorage::F32(data) => data.get(start..).map(Elements::F32),
            CpuStorage::BF16(data) => data.get(start..).map(Elements::Bf16),
            CpuStorage::F16(data) => data.get(start..).map(Elements::F16),
            _ => candle::bail!("attention: expected f32, bf16 or f16"),
        };
        let Some(elements) = elements else { candle::bail!("attention: {layout:?} starts beyond its storage") };
        Ok(Self { elements, stride, width: layout.dims().last().copied().unwrap_or(1) })
    }

    /// Elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Copies a row into the front of `out`.
    #[inline]
    pub(crate) fn copy(&self, row: usize, out: &mut [f32]) {
        let (at, out) = (row * self.stride, &mut out[..self.width]);
        match self.elements {
            Elements::F32(data) => out.copy_from_slice(&data[at..at + self.width]),
            Elements::Bf16(data) => {
                for (out, x) in out.iter_mut().zip(&data[at..at + self.width]) {
                    *out = f32::from_bits((x.to_bits() as u32) << 16);
                }
            }
            Elements::F16(data) => data[at..at + self.width].convert_to_f32_slice(out),
            Elements::Fp8(data, row) => unpack(&data[at..at + row.bytes()], row, out),
        }
    }

    /// `count` rows from `first` on and their stride: in place where they are f32, else copied into `scratch`.
    pub(crate) fn block<'b>(&'b self, first: usize, count: usize, scratch: &'b mut [f32]) -> (&'b [f32], usize) {
        if let Elements::F32(data) = self.elements {
            let at = first * self.stride;
            let len = if count == 0 { 0 } else { (count - 1) * self.stride + self.width };
            return (&data[at..at + len], self.stride);
        }
        for i in 0..count {
            self.copy(first + i, &mut scratch[i * self.width..]);
        }
        (&scratch[..count * self.width], self.width)
    }

    /// Writes `lanes` rows, every `step`-th from `first` on, as columns: `out[d * width + lane]`, zeros in the lanes
    /// beyond.
    pub(crate) fn transpose(&self, first: usize, step: usize, lanes: usize, width: usize, out: &mut [f32]) {
        let mut rows = super::scratch::Scratch::new(lanes * self.width);
        for lane in 0..lanes {
            self.copy(first + lane * step, &mut rows[lane * self.width..]);
        }
        for (d, out) in out[..self.width * width].chunks_exact_mut(width).enumerate() {
            let (used, unused) = out.split_at_mut(lanes);
            for (lane, out) in used.iter_mut().enumerate() {
                *out = rows[lane * self.width + d];
            }
            unused.fill(0.);
        }
    }
}

/// The values of a packed row.
fn unpack(bytes: &[u8], row: Fp8Row, out: &mut [f32]) {
    let (codes, rest) = bytes.split_at(row.quantized);
    let (scales, plain) = rest.split_at(row.plain_start() - row.quantized);
    let (quantized, plain_out) = out.split_at_mut(row.quantized);
    let groups = codes.chunks(BLOCK).zip(scales.as_chunks::<4>().0).zip(quantized.chunks_mut(BLOCK));
    for ((codes, &scale), out) in groups {
        let scale = f32::from_le_bytes(scale);
        out.iter_mut().zip(codes).for_each(|(out, &code)| *out = e4m3::decode(code) * scale);
    }
    for (out, &value) in plain_out.iter_mut().zip(plain.as_chunks::<2>().0) {
        *out = bf16::from_le_bytes(value).to_f32();
    }
}
