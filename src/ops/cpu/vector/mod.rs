//! One vector register of f32 lanes per instruction set, for the kernels that the compiler does not vectorise well.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512_bf16::Avx512Bf16;
pub(crate) use portable::Portable;

use float8::F8E4M3;
use half::{bf16, f16};

/// A vector register of f32 lanes.
///
/// # Safety
/// Every method needs a processor with the implementing type's instruction set; pointers must be valid for the number
/// of elements named, with any alignment.
pub(crate) trait Vector: Copy {
    /// Lanes of a register.
    const LANES: usize;
    /// Rows of `x` that a matrix tile covers, so that its accumulators fit in the registers.
    const TILE_ROWS: usize;
    /// Rows of the weight that a matrix-vector product runs at once.
    const STREAMS: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` elements.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads `LANES` elements, exactly widened.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// Reads `LANES` elements, exactly widened.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// Reads `LANES` elements, widened to their value over [`Element::UNIT`].
    unsafe fn load_f8e4m3(from: *const F8E4M3) -> Self;
    /// Writes `LANES` elements.
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * other + addend`, in one rounding where the instruction set has it.
    unsafe fn mul_add(self, other: Self, addend: Self) -> Self;
    /// Zero in the lanes below zero; NaN stays.
    unsafe fn relu(self) -> Self;
    /// The first four elements of `LANES` rows that lie `stride` apart, column by column.
    unsafe fn load_columns(from: *const f32, stride: usize) -> [Self; 4];
    /// Sum of the lanes: each step adds the upper half of what is left to the lower half.
    unsafe fn sum(self) -> f32;
    /// [`Vector::sum`] of four vectors, with the same bits.
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4];
}

/// A weight element that vectors are loaded from.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// What loaded values are to be multiplied by; a power of two.
    const UNIT: f32;

    /// Reads `V::LANES` elements, exactly widened, over `UNIT`.
    ///
    /// # Safety
    /// As [`Vector`].
    unsafe fn load<V: Vector>(from: *const Self) -> V;

    /// Reads `count` elements, fewer than `V::LANES`, and zeros after them.
    ///
    /// # Safety
    /// As [`Vector`].
    #[inline(always)]
    unsafe fn load_partial<V: Vector>(from: *const Self, count: usize) -> V {
        let mut padded = [Self::default(); 16];
        // SAFETY: the caller guarantees `count` elements, fewer than a register has lanes, at most 16.
        unsafe {
            std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), count);
            Self::load(padded.as_ptr())
        }
    }
}

macro_rules! element {
    ($type:ty, $load:ident, $unit:literal) => {
        impl Element for $type {
            const UNIT: f32 = $unit;

            #[inline(always)]
            unsafe fn load<V: Vector>(from: *const Self) -> V {
                // SAFETY: the same contract.
                unsafe { V::$load(from) }
            }
        }
    };
}
element!(f32, load, 1.0);
element!(bf16, load_bf16, 1.0);
element!(f16, load_f16, 1.0);
element!(F8E4M3, load_f8e4m3, 256.0);
