//! Reductions over slices that the compiler turns into vector instructions inside a `simd_kernel!`.

/// Partial sums that a reduction keeps.
const LANES: usize = 32;

/// Folds every element into one of 32 sums with `add(value, sum)`, then adds these in a fixed order.
#[inline(always)]
pub(crate) fn sum(values: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum = add(value, *sum);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum = add(value, *sum);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
