//! Speed of `ops::linear`, `mlp` and `moe`: ours against candle's f32 matmul on the same shape. `bf16 x` are bf16 weights in the mode
//! that rounds activations to bf16.
//!
//! `cargo bench --bench ops_linear [-- avx2 | baseline]`; with `RAYON_NUM_THREADS=1` on Linux it measures processor time, which other load on
//! the machine disturbs less.

use std::hint::black_box;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::ops::fp8::act_quant;
use deepseek_v32::ops::gate::{GateConfig, gate};
use deepseek_v32::ops::hadamard::hadamard;
use deepseek_v32::ops::layer_norm::layer_norm;
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use deepseek_v32::ops::moe::{ExpertWeights, moe};
use deepseek_v32::ops::rms_norm::rms_norm;
use deepseek_v32::ops::rope::rope;
use deepseek_v32::ops::simd::{Isa, with_isa};
use deepseek_v32::ops::swiglu::swiglu;

/// Seconds so far: processor time of the process where one thread is all that works, else time on the clock.
fn now(start: Instant) -> f64 {
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let line = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<f64>().ok()
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) if rayon::current_num_threads() == 1 => tasks.filter_map(of_thread).sum::<f64>() / 1e9,
        _ => start.elapsed().as_secs_f64(),
    }
}

/// Mean seconds per call over half a second.
fn seconds(mut call: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    black_box(call()?);
    let (start, mut calls) = (Instant::now(), 0);
    let began = now(start);
    while start.elapsed().as_secs_f64() < 0.5 {
        black_box(call()?);
        calls += 1;
    }
    Ok((now(start) - began) / f64::from(calls))
}

fn weight(n: usize, k: usize, dtype: DType) -> Result<LinearWeight> {
    let values: Vec<f32> = (0..n * k).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 1000.0).collect();
    let weight = Tensor::from_vec(values, (n, k), &Device::Cpu)?.to_dtype(dtype)?;
    let scale = Tensor::full(0.5f32, (n.div_ceil(128), k.div_ceil(128)), &Device::Cpu)?;
    Ok(LinearWeight { weight, weight_scale_inv: (dtype == DType::F8E4M3).then_some(scale) })
}

fn main() -> Result<()> {
    let limit = std::env::args().find_map(|argument| match argument.as_str() {
        "baseline" => Some(Isa::Baseline),
        "avx2" => Some(Isa::Avx2),
        _ => None,
    });
    with_isa(limit.unwrap_or(Isa::Avx512), measure)
}

fn measure() -> Result<()> {
    println!("{}", deepseek_v32::ops::backend_report());
    println!(
        "{:>6} {:>6} {:>6} {:>8} {:>10} {:>9} {:>9} {:>10} {:>6}",
        "m", "n", "k", "weight", "us", "GMAC/s", "GB/s", "candle us", "ratio"
    );
    for (n, k) in [(256, 256), (2048, 2048), (2048, 7168), (7168, 2048)] {
        for m in [1, 4, 64, 512, 1024] {
            if m * n * k > 512 * 2048 * 7168 {
                continue;
            }
            let x = weight(m, k, DType::F32)?.weight;
            let dense = weight(n, k, DType::F32)?.weight;
            let baseline = seconds(|| x.matmul(&dense.t()?))?;
            let cases = [
                ("f32", DType::F32, LinearMode::Dequant),
                ("bf16", DType::BF16, LinearMode::Dequant),
                ("bf16 x", DType::BF16, LinearMode::Bf16),
                ("f16", DType::F16, LinearMode::Dequant),
                ("f8e4m3", DType::F8E4M3, LinearMode::Dequant),
            ];
            for (name, dtype, mode) in cases {
                let weight = weight(n, k, dtype)?;
                let ours = seconds(|| weight.forward(&x, mode))?;
                let macs = (m * n * k) as f64 / ours / 1e9;
                let bytes = (n * k * dtype.size_in_bytes()) as f64 / ours / 1e9;
                let (us, base) = (ours * 1e6, baseline * 1e6);
                println!(
                    "{m:>6} {n:>6} {k:>6} {name:>8} {us:>10.1} {macs:>9.1} {bytes:>9.1} {base:>10.1} {:>6.2}",
                    base / us
                );
            }
        }
    }
    for tokens in [1, 256] {
        let (x, row) = (weight(tokens, 256, DType::F32)?.weight, weight(1, 256, DType::F32)?.weight.squeeze(0)?);
        let (heads, table) = (x.reshape((tokens, 4, 64))?, weight(tokens, 32, DType::F32)?.weight);
        let times = [
            ("rms_norm", seconds(|| rms_norm(&x, &row, 1e-6))?),
            ("layer_norm", seconds(|| layer_norm(&x, &row, &row, 1e-6))?),
            ("rope", seconds(|| rope(&heads, &table, &table, true))?),
            ("hadamard", seconds(|| hadamard(&x))?),
            ("swiglu", seconds(|| swiglu(&x, &x))?),
            ("act_quant", seconds(|| Ok(act_quant(&x, 128, true)?.0))?),
        ];
        let times: Vec<String> = times.iter().map(|(name, time)| format!("{name} {:.2} us", time * 1e6)).collect();
        println!("[{tokens}, 256]: {}", times.join(", "));
    }
    let cases = [(1, 256, 64, 8, 2), (64, 256, 64, 8, 2), (1, 1024, 512, 32, 8), (256, 1024, 512, 32, 8)];
    for (tokens, hidden, width, experts, k) in cases {
        let stack = |n: usize, k: usize| -> Result<StackedWeight> {
            let weight = weight(experts * n, k, DType::BF16)?.weight.reshape((experts, n, k))?;
            Ok(StackedWeight { weight, weight_scale_inv: None })
        };
        let weights = ExpertWeights {
            gate_proj: stack(width, hidden)?,
            up_proj: stack(width, hidden)?,
            down_proj: stack(hidden, width)?,
        };
        let x = weight(tokens, hidden, DType::F32)?.weight;
        let cfg = GateConfig {
            n_group: 1,
            topk_group: 1,
            num_experts_per_tok: k,
            norm_topk_prob: true,
            routed_scaling_factor: 1.0,
        };
        let logits = weight(tokens, experts, DType::F32)?.weight;
        let (indices, factors) = gate(&logits, None, &cfg)?;
        let gating = seconds(|| Ok(gate(&logits, None, &cfg)?.0))?;
        let ours = seconds(|| moe(&x, &weights, &indices, &factors, LinearMode::Dequant))?;
        let macs = (tokens * k * 3 * hidden * width) as f64 / ours / 1e9;
        println!(
            "moe tokens {tokens} hidden {hidden} width {width} experts {experts} top {k}: {:.1} us, {macs:.1} GMAC/s; gate {:.1} us",
            ours * 1e6,
            gating * 1e6
        );
    }
    Ok(())
}
