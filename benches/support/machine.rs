//! What the machine can do at most, measured.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// The limits of all of rayon's threads together.
pub struct Machine {
    pub name: String,
    /// Bytes a second read from memory.
    pub bandwidth: f64,
    /// f32 fused multiply-adds a second.
    pub fma: f64,
}

impl Machine {
    pub fn measure() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self { name: name.unwrap_or("unknown processor").to_string(), bandwidth: bandwidth(), fma: fma() }
    }
}

/// The best of several runs of `body`, in units a second.
fn best(units: f64, mut body: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        body();
        start.elapsed().as_secs_f64()
    };
    units / (0..5).map(time).fold(f64::INFINITY, f64::min)
}

fn bandwidth() -> f64 {
    let data = vec![1u64; 1 << 26];
    let part = data.len() / rayon::current_num_threads();
    let sum = |part: &[u64]| part.iter().fold(0u64, |sum, &value| sum.wrapping_add(value));
    best(8.0 * data.len() as f64, || {
        black_box(data.par_chunks(part).map(sum).reduce(|| 0, u64::wrapping_add));
    })
}

/// Independent sums, enough to keep every multiply-add unit busy.
const CHAINS: usize = 12;
const STEPS: usize = 2_000_000;

fn fma() -> f64 {
    let threads = rayon::current_num_threads();
    let mut lanes = 1;
    let time = best(1.0, || {
        lanes = (0..threads).into_par_iter().map(|_| black_box(chains(black_box(0.999)))).sum();
    });
    (STEPS * CHAINS * lanes) as f64 * time
}

/// Runs the chains on this thread; how many lanes each of them has.
#[cfg(target_arch = "x86_64")]
fn chains(factor: f32) -> usize {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    fn avx512(factor: f32) -> usize {
        let factor = _mm512_set1_ps(factor);
        let mut sums = [factor; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        16
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2(factor: f32) -> usize {
        let factor = _mm256_set1_ps(factor);
        let mut sums = [factor; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        8
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has it.
        unsafe { avx512(factor) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has them.
        unsafe { avx2(factor) }
    } else {
        plain(factor)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn chains(factor: f32) -> usize {
    plain(factor)
}

/// Chains of four lanes, which every target's vectors have.
fn plain(factor: f32) -> usize {
    let mut sums = [[factor; 4]; CHAINS];
    for _ in 0..STEPS {
        sums = sums.map(|sum| sum.map(|lane| lane * factor + factor));
    }
    black_box(sums);
    4
}
