//! Bytes of a file to elements in memory, checked to be finite.

use float8::F8E4M3;
use half::{bf16, f16};
use safetensors::Dtype;

use super::error::TensorProblem;

type Result<T> = std::result::Result<T, TensorProblem>;

/// An element type that weights are stored in.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// Bytes of an element.
    const SIZE: usize;
    /// The name of the type, for messages.
    const NAME: &'static str;
    /// From `SIZE` little-endian bytes.
    fn from_le(bytes: &[u8]) -> Self;
    fn is_finite(self) -> bool;
    fn to_f32(self) -> f32;
    /// Rounded to the nearest.
    fn from_f32(value: f32) -> Self;
}

macro_rules! element {
    ($t:ty, $size:literal, $name:literal, $to_f32:expr, $from_f32:expr) => {
        impl Element for $t {
            const SIZE: usize = $size;
            const NAME: &'static str = $name;

            #[inline(always)]
            fn from_le(bytes: &[u8]) -> Self {
                let mut array = [0; $size];
                array.copy_from_slice(bytes);
                <$t>::from_le_bytes(array)
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }

            #[inline(always)]
            fn to_f32(self) -> f32 {
                $to_f32(self)
            }

            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                $from_f32(value)
            }
        }
    };
}

element!(f32, 4, "F32", |value| value, |value| value);
element!(bf16, 2, "BF16", bf16::to_f32, bf16::from_f32);
element!(f16, 2, "F16", f16::to_f32, f16::from_f32);

impl Element for F8E4M3 {
    const SIZE: usize = 1;
    const NAME: &'static str = "F8_E4M3";

    #[inline(always)]
    fn from_le(bytes: &[u8]) -> Self {
        F8E4M3::from_bits(bytes[0])
    }

    /// The type has no infinity; its NaNs are the codes 0x7f and 0xff.
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.to_bits() & 0x7f != 0x7f
    }

    fn to_f32(self) -> f32 {
        F8E4M3::to_f32(&self)
    }

    fn from_f32(value: f32) -> Self {
        F8E4M3::from_f32(value)
    }
}

/// Appends the elements in `bytes` to `out`; `first` is the tensor's index of the first of them.
pub(super) fn append<T: Element>(bytes: &[u8], first: usize, out: &mut Vec<T>) -> Result<()> {
    let from = out.len();
    out.extend(bytes.chunks_exact(T::SIZE).map(T::from_le));
    // Whether, then where: the first pass has no branch and runs at the speed of memory.
    let new = &out[from..];
    if new.iter().fold(true, |finite, value| finite & value.is_finite()) {
        return Ok(());
    }
    let position = new.iter().position(|value| !value.is_finite()).unwrap_or(0);
    let value = new.get(position).map_or(f32::NAN, |value| value.to_f32());
    Err(TensorProblem::NonFinite { element: first + position, value })
}

/// Appends `values`, converted, to `out`; `first` is the tensor's index of the first of them.
pub(super) fn append_converted<U: Element>(
    values: impl Iterator<Item = f32>,
    first: usize,
    out: &mut Vec<U>,
) -> Result<()> {
    let from = out.len();
    let mut overflow = None;
    out.extend(values.enumerate().map(|(i, value)| {
        let converted = U::from_f32(value);
        if !converted.is_finite() && overflow.is_none() {
            overflow = Some((i, value));
        }
        converted
    }));
    match overflow {
        None => Ok(()),
        Some((i, value)) => {
            out.truncate(from);
            Err(TensorProblem::Overflow { element: first + i, value, dtype: U::NAME })
        }
    }
}

/// Refuses a value that does not fit in `U`, which it will be converted to later; `first` is the tensor's index of the
/// first of them.
pub(super) fn check_fit<T: Element, U: Element>(values: &[T], first: usize) -> Result<()> {
    match values.iter().map(|value| value.to_f32()).enumerate().find(|(_, value)| !U::from_f32(*value).is_finite()) {
        None => Ok(()),
        Some((i, value)) => Err(TensorProblem::Overflow { element: first + i, value, dtype: U::NAME }),
    }
}

/// The largest scale that keeps every e4m3 value finite in f32.
const MAX_SCALE: f32 = f32::MAX / 448.0;

/// The scales in `bytes`, as f32: stored as f32 or bf16, or as the exponent bytes of E8M0 (value `2^(byte - 127)`).
pub(super) fn scales(bytes: &[u8], dtype: Dtype) -> Result<Vec<f32>> {
    let exponent = |byte: &u8| if *byte == u8::MAX { f32::NAN } else { f32::powi(2.0, i32::from(*byte) - 127) };
    let values: Vec<f32> = match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(f32::from_le).collect(),
        Dtype::BF16 => bytes.chunks_exact(2).map(|bytes| bf16::from_le(bytes).to_f32()).collect(),
        Dtype::F8_E8M0 | Dtype::U8 => bytes.iter().map(exponent).collect(),
        found => return Err(TensorProblem::DType { found, expected: "F32, BF16, F8_E8M0 or U8" }),
    };
    match values.iter().position(|scale| !(*scale > 0.0 && *scale <= MAX_SCALE)) {
        None => Ok(values),
        Some(element) => Err(TensorProblem::BadScale { element, value: values[element], max: MAX_SCALE }),
    }
}

/// The scale of each element of a run of one row: `columns` consecutive columns from `column`, `block` columns sharing
/// an entry of `row_scales`.
pub(super) fn scale_runs(
    row_scales: &[f32],
    block: usize,
    column: usize,
    columns: usize,
) -> impl Iterator<Item = f32> + '_ {
    let end = column + columns;
    (column / block..end.div_ceil(block)).flat_map(move |b| {
        let run = ((b + 1) * block).min(end) - (b * block).max(column);
        std::iter::repeat_n(row_scales.get(b).copied().unwrap_or(1.0), run)
    })
}
