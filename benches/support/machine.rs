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

const LANES: usize = 16;
const CHAINS: usize = 12;
const STEPS: usize = 2_000_000;

fn fma() -> f64 {
    let threads = rayon::current_num_threads();
    best((threads * STEPS * CHAINS * LANES) as f64, || {
        (0..threads).into_par_iter().for_each(|_| {
            black_box(chains(black_box(0.999), black_box(1e-3)));
        });
    })
}

#[inline(always)]
fn chains_body(factor: f32, addend: f32) -> f32 {
    let mut sums = [[1f32; LANES]; CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            for lane in sum {
                *lane = lane.mul_add(factor, addend);
            }
        }
    }
    sums.iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
fn chains(factor: f32, addend: f32) -> f32 {
    #[target_feature(enable = "avx512f")]
    fn avx512(factor: f32, addend: f32) -> f32 {
        chains_body(factor, addend)
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2(factor: f32, addend: f32) -> f32 {
        chains_body(factor, addend)
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has it.
        unsafe { avx512(factor, addend) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has them.
        unsafe { avx2(factor, addend) }
    } else {
        chains_body(factor, addend)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn chains(factor: f32, addend: f32) -> f32 {
    chains_body(factor, addend)
}
