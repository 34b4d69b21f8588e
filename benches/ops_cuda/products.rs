//! Products with block-FP8 weights of V3.2's shapes: experts and linear layers.

use anyhow::Result;
use candle_core::{DType, Tensor};
use deepseek_v32::ops::fp8::{BLOCK, act_dequant, act_quant, block_dequant, block_quant};
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use deepseek_v32::ops::moe as run_moe;
use deepseek_v32::ops::moe::ExpertWeights;

use crate::Bench;
use crate::ceilings::Ceiling;
use crate::check::{numbers, relative_error, rows};
use crate::report::{Case, Report};
use crate::timer::Call;

const HIDDEN: usize = 7168;
const WIDTH: usize = 2048;
const CHOSEN: usize = 8;
/// bf16 inputs and outputs; in FP8 arithmetic hidden values that fall to the other side of a rounding.
const TOLERANCE: f64 = 1e-2;
/// Rows from which the operations bound a product.
const MANY: usize = 256;

/// The modes that FP8 weights are multiplied in, by name.
const MODES: [(&str, LinearMode); 2] = [("fp8", LinearMode::Fp8 { ue8m0: true }), ("dequant", LinearMode::Dequant)];

fn weight(bench: &Bench, n: usize, k: usize) -> Result<LinearWeight> {
    let values = (bench.normal((n, k))? * (k as f64).powf(-0.5))?;
    let (weight, scale) = block_quant(&values, BLOCK, true)?;
    Ok(LinearWeight { weight, weight_scale_inv: Some(scale) })
}

fn stack(bench: &Bench, count: usize, n: usize, k: usize) -> Result<StackedWeight> {
    let weights = Tensor::zeros((count, n, k), DType::F8E4M3, &bench.device)?;
    let scales = Tensor::zeros((count, n.div_ceil(BLOCK), k.div_ceil(BLOCK)), DType::F32, &bench.device)?;
    for expert in 0..count {
        let one = weight(bench, n, k)?;
        weights.slice_set(&one.weight.unsqueeze(0)?, 0, expert)?;
        if let Some(scale) = one.weight_scale_inv {
            scales.slice_set(&scale.unsqueeze(0)?, 0, expert)?;
        }
    }
    Ok(StackedWeight { weight: weights, weight_scale_inv: Some(scales) })
}

/// `x · weightᵀ` in f32, with `x: [n, K]` rounded as `mode` says; by the same roundings as the op and candle's f32 product.
fn product(x: &Tensor, weight: &LinearWeight, mode: LinearMode) -> Result<Tensor> {
    let x = match mode {
        LinearMode::Fp8 { ue8m0 } => {
            let (codes, scale) = act_quant(x, BLOCK, ue8m0)?;
            act_dequant(&codes, &scale, BLOCK)?
        }
        _ => x.clone(),
    };
    let Some(scale) = &weight.weight_scale_inv else { anyhow::bail!("a weight without scales") };
    Ok(x.matmul(&block_dequant(&weight.weight, scale, BLOCK)?.t()?)?)
}

/// The weighted sum of the chosen experts' outputs for one token, `x: [1, HIDDEN]` f32.
fn experts_of(
    x: &Tensor,
    weights: &ExpertWeights,
    chosen: &[u32],
    factors: &[f32],
    mode: LinearMode,
) -> Result<Tensor> {
    let mut sum = x.zeros_like()?;
    for (&expert, &factor) in chosen.iter().zip(factors) {
        let of = |stack: &StackedWeight| stack.get(expert as usize);
        let (gate, up) = (of(&weights.gate_proj)?, of(&weights.up_proj)?);
        let hidden = (product(x, &gate, mode)?.silu()? * product(x, &up, mode)?)?;
        sum = (sum + (product(&hidden, &of(&weights.down_proj)?, mode)? * f64::from(factor))?)?;
    }
    Ok(sum)
}

/// Gate, up and down projections of the chosen experts with SwiGLU between and the weighted sum after them.
pub fn moe(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let op = "moe";
    // Experts, and rows of each: of all of them, or 0 for one token after the other.
    let cases = [(32, vec![2048]), (256, vec![4096, 1, 8, 64])];
    for (experts, batches) in cases {
        let named = |tokens: usize, mode: &str| match tokens * CHOSEN / experts {
            0 => format!("E{experts} T{tokens} {mode}"),
            each => format!("E{experts} m{each} {mode}"),
        };
        let wanted = |tokens: &usize| MODES.iter().any(|(mode, _)| report.wants(op, &named(*tokens, mode)));
        let batches: Vec<usize> = batches.into_iter().filter(wanted).collect();
        if batches.is_empty() {
            continue;
        }
        let weights = ExpertWeights {
            gate_proj: stack(bench, experts, WIDTH, HIDDEN)?,
            up_proj: stack(bench, experts, WIDTH, HIDDEN)?,
            down_proj: stack(bench, experts, HIDDEN, WIDTH)?,
        };
        for tokens in batches {
            let x = bench.normal((tokens, HIDDEN))?.to_dtype(DType::BF16)?;
            // Every expert has as many rows as every other, as far as they go; a token's are in ascending order.
            let mut chosen = Vec::with_capacity(tokens * CHOSEN);
            for token in 0..tokens {
                let mut of_token: Vec<u32> = (0..CHOSEN).map(|i| ((token * CHOSEN + i) % experts) as u32).collect();
                of_token.sort_unstable();
                chosen.extend(of_token);
            }
            let used = (tokens * CHOSEN).min(experts);
            let indices = Tensor::from_vec(chosen, (tokens, CHOSEN), &bench.device)?;
            let factors = bench.normal((tokens, CHOSEN))?.abs()?;
            for (name, mode) in MODES {
                let shape = named(tokens, name);
                if !report.wants(op, &shape) {
                    continue;
                }
                let each = tokens * CHOSEN / experts;
                let one = (3 * HIDDEN * WIDTH) as f64;
                let call: Call = Box::new(|| run_moe(&x, &weights, &indices, &factors, mode).map(drop));
                let check = || {
                    let sampled: &[usize] = if tokens == 1 { &[0] } else { &[0, tokens - 1] };
                    let found = rows(&run_moe(&x, &weights, &indices, &factors, mode)?, sampled)?;
                    let mut expected = Vec::new();
                    for &row in sampled {
                        let x = x.narrow(0, row, 1)?.to_dtype(DType::F32)?;
                        let chosen = indices.narrow(0, row, 1)?.flatten_all()?.to_vec1::<u32>()?;
                        let factors = factors.narrow(0, row, 1)?.flatten_all()?.to_vec1::<f32>()?;
                        expected.push(experts_of(&x, &weights, &chosen, &factors, mode)?);
                    }
                    let expected = Tensor::cat(&expected, 0)?;
                    Ok(relative_error(&numbers(&found)?, &numbers(&expected)?))
                };
                let is_peer = name == "fp8" && each >= 128;
                let peer = |n: usize, k: usize| ("moe", format!("E{experts} m{each} N{n} K{k}"));
                report.run(Case {
                    op,
                    shape,
                    flops: 2.0 * (tokens * CHOSEN) as f64 * one,
                    bytes: used as f64 * one,
                    ceiling: match (each >= 128, name) {
                        (false, _) => Ceiling::Copy,
                        (true, "fp8") => Ceiling::Fp8,
                        (true, _) => Ceiling::Bf16,
                    },
                    peers: if is_peer { vec![peer(2 * WIDTH, HIDDEN), peer(HIDDEN, WIDTH)] } else { Vec::new() },
                    tolerance: TOLERANCE,
                    calls: vec![call],
                    check: Box::new(check),
                })?;
            }
        }
    }
    Ok(())
}

/// One linear layer.
pub fn linear(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let op = "linear";
    for (n, k) in [(4096, 7168), (7168, 16_384)] {
        for tokens in [1, 8, 64, 4096] {
            for (name, mode) in MODES {
                let shape = format!("m{tokens} N{n} K{k} {name}");
                if !report.wants(op, &shape) {
                    continue;
                }
                let sets = if tokens < MANY { 4 } else { 1 };
                let weights = (0..sets).map(|_| weight(bench, n, k)).collect::<Result<Vec<_>>>()?;
                let x = bench.normal((tokens, k))?.to_dtype(DType::BF16)?;
                let calls = weights.iter().map(|weight| -> Call { Box::new(|| weight.forward(&x, mode).map(drop)) });
                let check = || {
                    let sampled: &[usize] = if tokens == 1 { &[0] } else { &[0, tokens - 1] };
                    let found = rows(&weights[0].forward(&x, mode)?, sampled)?;
                    let x = rows(&x, sampled)?.to_dtype(DType::F32)?;
                    let expected = product(&x, &weights[0], mode)?;
                    Ok(relative_error(&numbers(&found)?, &numbers(&expected)?))
                };
                report.run(Case {
                    op,
                    shape,
                    flops: 2.0 * (tokens * n * k) as f64,
                    bytes: (n * k + 2 * tokens * (n + k)) as f64,
                    ceiling: match (tokens >= MANY, name) {
                        (false, _) => Ceiling::Copy,
                        (true, "fp8") => Ceiling::Fp8,
                        (true, _) => Ceiling::Bf16,
                    },
                    peers: Vec::new(),
                    tolerance: TOLERANCE,
                    calls: calls.collect(),
                    check: Box::new(check),
                })?;
            }
        }
    }
    Ok(())
}
