//! `gate`, `mlp` and `moe` against f64 loops, enumeration and golden vectors.

use crate::common::{ISAS, assert_close, bits, strided, tensor, to_f64, unit};
use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::ops::fp8::{BLOCK, block_dequant, block_quant};
use deepseek_v32::ops::gate::{GateConfig, gate};
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use deepseek_v32::ops::moe::{ExpertWeights, mlp, moe};
use deepseek_v32::ops::simd::{Isa, with_isa};
use deepseek_v32::ops::{Backend, with_backend};

const BACKENDS: [Backend; 2] = [Backend::Cpu, Backend::Reference];
/// Router weights: a sigmoid, a sum of eight and a division in f32.
const GATE_TOLERANCE: f64 = 1e-6;
/// Three products in f32.
const MOE_TOLERANCE: f64 = 2e-5;
/// FP8 activations twice: a flip of one code is 1/16 of a term.
const FP8_TOLERANCE: f64 = 2e-2;

fn config(n_group: usize, topk_group: usize, k: usize) -> GateConfig {
    GateConfig { n_group, topk_group, num_experts_per_tok: k, norm_topk_prob: true, routed_scaling_factor: 2.5 }
}

fn indices(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

// ---- gate

#[test]
fn gate_matches_the_golden_vectors() {
    let unit = unit();
    let expected: Vec<i64> = unit["router.expert_idx"].flatten_all().unwrap().to_vec1().unwrap();
    for backend in BACKENDS {
        let (logits, bias) = (&unit["router.logits"], &unit["router.bias"]);
        let (chosen, weights) = with_backend(backend, || gate(logits, Some(bias), &config(8, 4, 8))).unwrap();
        assert_eq!(indices(&chosen).into_iter().map(i64::from).collect::<Vec<_>>(), expected, "{backend:?}");
        assert_close(&to_f64(&weights), &to_f64(&unit["router.expert_w"]), GATE_TOLERANCE, &format!("{backend:?}"));
    }
}

/// As many experts as four groups have: all of theirs and no other.
#[test]
fn gate_keeps_the_golden_groups() {
    let unit = unit();
    let expected: Vec<Vec<i64>> = unit["router.groups"].to_vec2().unwrap();
    for backend in BACKENDS {
        let (logits, bias) = (&unit["router.logits"], &unit["router.bias"]);
        let (chosen, _) = with_backend(backend, || gate(logits, Some(bias), &config(8, 4, 128))).unwrap();
        for (row, groups) in chosen.to_vec2::<u32>().unwrap().iter().zip(&expected) {
            let all: Vec<u32> = groups.iter().flat_map(|&group| group as u32 * 32..(group as u32 + 1) * 32).collect();
            assert_eq!(row, &all, "{backend:?}");
        }
    }
}

/// Sorts everything, larger first and of equals the smaller index.
fn naive_gate(logits: &[f64], bias: &[f64], cfg: &GateConfig) -> (Vec<u32>, Vec<f64>) {
    let order = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        order
    };
    let scores: Vec<f64> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    // Selection in f32, where ties of the op are ties.
    let mut choice: Vec<f64> = scores.iter().zip(bias).map(|(s, b)| f64::from(*s as f32 + *b as f32)).collect();
    let size = choice.len() / cfg.n_group;
    let group_score = |group: &[f64]| order(group).iter().take(2).map(|&i| group[i] as f32).sum::<f32>();
    let group_scores: Vec<f64> = choice.chunks(size).map(|group| f64::from(group_score(group))).collect();
    for &group in &order(&group_scores)[cfg.topk_group..] {
        choice[group * size..][..size].fill(f64::NEG_INFINITY);
    }
    let mut chosen: Vec<usize> = order(&choice)[..cfg.num_experts_per_tok].to_vec();
    chosen.sort();
    let sum = if cfg.norm_topk_prob { chosen.iter().map(|&e| scores[e]).sum::<f64>() + 1e-20 } else { 1.0 };
    let weights = chosen.iter().map(|&e| scores[e] / sum * cfg.routed_scaling_factor).collect();
    (chosen.into_iter().map(|e| e as u32).collect(), weights)
}

#[test]
fn gate_matches_sorting_with_ties() {
    let cases = [
        (8, 1, 1, 2),
        (8, 4, 2, 3),
        (8, 8, 3, 3),
        (6, 2, 1, 3),
        (6, 3, 1, 5),
        (12, 3, 3, 12),
        (1, 1, 1, 1),
        (5, 1, 1, 0),
    ];
    for (experts, n_group, topk_group, k) in cases {
        for norm_topk_prob in [true, false] {
            let cfg = GateConfig { norm_topk_prob, ..config(n_group, topk_group, k) };
            // Few distinct values, so that most rows have ties.
            let coarse = |tensor: Tensor| (tensor * 2.0).unwrap().round().unwrap();
            let logits = coarse(tensor(1, &[40, experts], DType::F32));
            let bias = (coarse(tensor(2, &[experts], DType::F32)) * 0.25).unwrap();
            let (rows, biases) = (to_f64(&logits), to_f64(&bias));
            let naive: Vec<_> = rows.chunks(experts).map(|row| naive_gate(row, &biases, &cfg)).collect();
            let expected: Vec<u32> = naive.iter().flat_map(|(chosen, _)| chosen.clone()).collect();
            let factors: Vec<f64> = naive.into_iter().flat_map(|(_, weights)| weights).collect();
            for backend in BACKENDS {
                let (chosen, weights) = with_backend(backend, || gate(&strided(&logits), Some(&bias), &cfg)).unwrap();
                assert_eq!((chosen.dims(), weights.dims()), ([40, k].as_slice(), [40, k].as_slice()));
                assert_eq!(indices(&chosen), expected, "{experts} experts, {cfg:?}, {backend:?}");
                assert_close(&to_f64(&weights), &factors, GATE_TOLERANCE, &format!("{cfg:?} {backend:?}"));
            }
        }
    }
}

#[test]
fn gate_names_wrong_arguments() {
    let logits = tensor(1, &[2, 6], DType::F32);
    let expect = |result: Result<(Tensor, Tensor)>, part: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} should name {part:?}");
    };
    expect(gate(&logits, None, &config(4, 1, 2)), "n_group");
    expect(gate(&logits, None, &config(0, 1, 2)), "n_group");
    expect(gate(&logits, None, &config(2, 3, 2)), "topk_group");
    expect(gate(&logits, None, &config(2, 0, 2)), "topk_group");
    expect(gate(&logits, None, &config(2, 1, 7)), "num_experts_per_tok");
    expect(gate(&logits, Some(&tensor(1, &[5], DType::F32)), &config(2, 1, 2)), "e_score_correction_bias");
    expect(gate(&logits.to_dtype(DType::BF16).unwrap(), None, &config(2, 1, 2)), "logits must be f32, got bf16");
    expect(gate(&logits.flatten_all().unwrap(), None, &config(2, 1, 2)), "[T, E]");
    let nan = Tensor::new(&[[0.0f32, 1.0], [f32::NAN, 1.0]], &Device::Cpu).unwrap();
    for backend in BACKENDS {
        expect(with_backend(backend, || gate(&nan, None, &config(1, 1, 1))), "NaN");
    }
    let empty = Tensor::zeros((0, 6), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(gate(&empty, None, &config(2, 1, 2)).unwrap().0.dims(), [0, 2]);
}

// ---- mlp and moe

fn weight(seed: u64, n: usize, k: usize, dtype: DType) -> LinearWeight {
    let weight = tensor(seed, &[n, k], DType::F32);
    if dtype == DType::F8E4M3 {
        let (codes, scale) = block_quant(&weight, BLOCK, true).unwrap();
        return LinearWeight { weight: codes, weight_scale_inv: Some(scale) };
    }
    LinearWeight { weight: weight.to_dtype(dtype).unwrap(), weight_scale_inv: None }
}

/// Gate, up and down of one expert.
fn expert(seed: u64, hidden: usize, width: usize, dtype: DType) -> [LinearWeight; 3] {
    [
        weight(3 * seed, width, hidden, dtype),
        weight(3 * seed + 1, width, hidden, dtype),
        weight(3 * seed + 2, hidden, width, dtype),
    ]
}

/// The same experts one by one, for the loops, and stacked, for the op.
struct Experts {
    single: Vec<[LinearWeight; 3]>,
    stacked: ExpertWeights,
}

fn stack(weights: Vec<&LinearWeight>) -> StackedWeight {
    let stack = |tensors: Vec<&Tensor>| Tensor::stack(&tensors, 0).unwrap();
    let scales: Vec<&Tensor> = weights.iter().filter_map(|weight| weight.weight_scale_inv.as_ref()).collect();
    StackedWeight {
        weight: stack(weights.iter().map(|weight| &weight.weight).collect()),
        weight_scale_inv: (!scales.is_empty()).then(|| stack(scales)),
    }
}

fn experts(count: u64, hidden: usize, width: usize, dtype: DType) -> Experts {
    let single: Vec<_> = (0..count).map(|seed| expert(100 + seed, hidden, width, dtype)).collect();
    let [gate_proj, up_proj, down_proj] =
        [0, 1, 2].map(|projection| stack(single.iter().map(|expert| &expert[projection]).collect()));
    Experts { single, stacked: ExpertWeights { gate_proj, up_proj, down_proj } }
}

fn product(x: &[f64], weight: &LinearWeight) -> Vec<f64> {
    let values = match &weight.weight_scale_inv {
        Some(scale) => to_f64(&block_dequant(&weight.weight, scale, BLOCK).unwrap()),
        None => to_f64(&weight.weight),
    };
    values.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn naive_mlp(x: &[f64], [gate, up, down]: &[LinearWeight; 3]) -> Vec<f64> {
    let (gate, up) = (product(x, gate), product(x, up));
    let hidden: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    product(&hidden, down)
}

fn naive_moe(x: &Tensor, experts: &Experts, chosen: &Tensor, weights: &Tensor) -> Vec<f64> {
    let (hidden, k) = (x.dims()[1], chosen.dims()[1]);
    let (x, chosen, weights) = (to_f64(x), indices(chosen), to_f64(weights));
    let mut out = vec![0.0; x.len()];
    for (choice, (&expert, weight)) in chosen.iter().zip(weights).enumerate() {
        let token = choice / k;
        let y = naive_mlp(&x[token * hidden..][..hidden], &experts.single[expert as usize]);
        out[token * hidden..][..hidden].iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
    }
    out
}

/// Routing of `tokens` to `k` of `experts`.
fn route(tokens: usize, experts: usize, k: usize) -> (Tensor, Tensor) {
    gate(&tensor(50, &[tokens, experts], DType::F32), None, &config(1, 1, k)).unwrap()
}

#[test]
fn mlp_matches_f64_loops() {
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F8E4M3] {
        let [gate_proj, up_proj, down_proj] = &expert(1, 70, 150, dtype);
        for tokens in [1, 2, 9] {
            let x = tensor(2, &[1, tokens, 70], DType::F32);
            let expected: Vec<f64> =
                to_f64(&x).chunks(70).flat_map(|x| naive_mlp(x, &expert(1, 70, 150, dtype))).collect();
            for isa in ISAS {
                let y = with_isa(isa, || mlp(&x, gate_proj, up_proj, down_proj, LinearMode::Dequant)).unwrap();
                assert_eq!(y.dims(), x.dims());
                assert_close(&to_f64(&y), &expected, MOE_TOLERANCE, &format!("{dtype:?} {isa:?}"));
            }
            let reference = || mlp(&x, gate_proj, up_proj, down_proj, LinearMode::Dequant);
            let y = with_backend(Backend::Reference, reference).unwrap();
            assert_close(&to_f64(&y), &expected, MOE_TOLERANCE, &format!("{dtype:?} reference"));
        }
    }
}

#[test]
fn moe_matches_f64_loops() {
    for dtype in [DType::F32, DType::BF16, DType::F8E4M3] {
        let experts = experts(6, 40, 24, dtype);
        for (tokens, k) in [(1, 2), (1, 6), (2, 1), (33, 3)] {
            let (chosen, weights) = route(tokens, 6, k);
            let x = tensor(3, &[tokens, 40], DType::F32);
            let expected = naive_moe(&x, &experts, &chosen, &weights);
            for isa in ISAS {
                let y = with_isa(isa, || moe(&strided(&x), &experts.stacked, &chosen, &weights, LinearMode::Dequant))
                    .unwrap();
                assert_close(&to_f64(&y), &expected, MOE_TOLERANCE, &format!("{tokens} tokens {dtype:?} {isa:?}"));
            }
            let reference = || moe(&x, &experts.stacked, &chosen, &weights, LinearMode::Dequant);
            let y = with_backend(Backend::Reference, reference).unwrap();
            assert_close(&to_f64(&y), &expected, MOE_TOLERANCE, &format!("{tokens} tokens {dtype:?} reference"));
        }
    }
}

#[test]
fn fp8_activations_agree_between_backends() {
    let experts = experts(4, 200, 130, DType::F8E4M3);
    let (chosen, weights) = route(5, 4, 2);
    let x = tensor(4, &[5, 200], DType::F32);
    let run = |backend| {
        with_backend(backend, || moe(&x, &experts.stacked, &chosen, &weights, LinearMode::Fp8 { ue8m0: true })).unwrap()
    };
    let (cpu, reference) = (to_f64(&run(Backend::Cpu)), to_f64(&run(Backend::Reference)));
    assert!(crate::common::calc_diff(&cpu, &reference) < 1e-6, "cpu and reference differ");
    let exact = moe(&x, &experts.stacked, &chosen, &weights, LinearMode::Dequant).unwrap();
    assert!(crate::common::calc_diff(&cpu, &to_f64(&exact)) < FP8_TOLERANCE, "FP8 is too far from f32");
    assert!(crate::common::calc_diff(&cpu, &to_f64(&exact)) > 0.0, "activations were not quantised");
}

#[test]
fn a_token_has_the_same_bits_whatever_the_batch() {
    for (tokens, hidden, width) in [(30, 48, 20), (50, 140, 200), (120, 140, 200)] {
        for dtype in [DType::F32, DType::BF16, DType::F8E4M3] {
            let experts = experts(5, hidden, width, dtype);
            let (chosen, weights) = route(tokens, 5, 2);
            let x = tensor(5, &[tokens, hidden], DType::F32);
            for mode in [LinearMode::Dequant, LinearMode::Fp8 { ue8m0: true }] {
                for isa in ISAS {
                    // From 32 rows an expert on the matrix unit may add in another order; see `ops_linear_amx`.
                    if tokens == 120 && isa == Isa::Avx512 && dtype != DType::F32 {
                        continue;
                    }
                    let together = with_isa(isa, || moe(&x, &experts.stacked, &chosen, &weights, mode)).unwrap();
                    for token in [0, 7, tokens - 1] {
                        let row = |tensor: &Tensor| tensor.narrow(0, token, 1).unwrap();
                        let (x, chosen, weights) = (row(&x), row(&chosen), row(&weights));
                        let alone = with_isa(isa, || moe(&x, &experts.stacked, &chosen, &weights, mode)).unwrap();
                        assert_eq!(bits(&alone), bits(&row(&together)), "token {token} {dtype:?} {mode:?} {isa:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn moe_takes_half_precision_and_empty_inputs() {
    let experts = experts(3, 16, 8, DType::BF16);
    for (dtype, tolerance) in [(DType::BF16, 4e-3), (DType::F16, 5e-4)] {
        let (chosen, weights) = route(4, 3, 2);
        let x = tensor(6, &[4, 16], dtype);
        let expected = naive_moe(&x, &experts, &chosen, &weights);
        for backend in BACKENDS {
            let y =
                with_backend(backend, || moe(&x, &experts.stacked, &chosen, &weights, LinearMode::Dequant)).unwrap();
            assert_eq!(y.dtype(), dtype);
            assert_close(&to_f64(&y), &expected, tolerance, &format!("{dtype:?} {backend:?}"));
        }
    }
    for backend in BACKENDS {
        with_backend(backend, || {
            let zeros =
                |rows: usize, columns: usize, dtype| Tensor::zeros((rows, columns), dtype, &Device::Cpu).unwrap();
            let run = |tokens, k| {
                moe(
                    &zeros(tokens, 16, DType::F32),
                    &experts.stacked,
                    &zeros(tokens, k, DType::U32),
                    &zeros(tokens, k, DType::F32),
                    LinearMode::Dequant,
                )
            };
            assert_eq!(run(0, 2).unwrap().dims(), [0, 16]);
            assert_eq!(to_f64(&run(3, 0).unwrap()), [0.0; 48]);
        });
    }
}

#[test]
fn moe_names_wrong_arguments() {
    let experts = experts(3, 16, 8, DType::F32).stacked;
    let (chosen, weights) = route(4, 3, 2);
    let x = tensor(7, &[4, 16], DType::F32);
    let run = |x: &Tensor, experts: &ExpertWeights, chosen: &Tensor, weights: &Tensor| {
        moe(x, experts, chosen, weights, LinearMode::Dequant).unwrap_err().to_string()
    };
    let expect = |message: String, part: &str| assert!(message.contains(part), "{message:?} should name {part:?}");
    expect(run(&x.narrow(0, 0, 3).unwrap(), &experts, &chosen, &weights), "expert_indices");
    expect(run(&x, &experts, &chosen, &weights.narrow(1, 0, 1).unwrap()), "expert_weights");
    expect(run(&x, &experts, &chosen.to_dtype(DType::I64).unwrap(), &weights), "u32");
    expect(run(&x.flatten_all().unwrap(), &experts, &chosen, &weights), "[T, H]");
    expect(run(&tensor(7, &[4, 15], DType::F32), &experts, &chosen, &weights), "15");
    for backend in BACKENDS {
        let beyond = Tensor::new(&[[0u32, 1], [0, 3], [0, 1], [1, 2]], &Device::Cpu).unwrap();
        expect(with_backend(backend, || run(&x, &experts, &beyond, &weights)), "expert index 3 is out of range");
    }
    let with = |change: fn(&mut ExpertWeights)| {
        let mut changed = experts.clone();
        change(&mut changed);
        run(&x, &changed, &chosen, &weights)
    };
    expect(with(|experts| experts.up_proj.weight = tensor(8, &[3, 9, 16], DType::F32)), "up_proj");
    expect(with(|experts| experts.up_proj.weight = tensor(8, &[2, 8, 16], DType::F32)), "up_proj");
    expect(with(|experts| experts.down_proj.weight = tensor(8, &[3, 16, 9], DType::F32)), "down_proj");
    expect(with(|experts| experts.down_proj.weight = tensor(8, &[3, 15, 8], DType::F32)), "down_proj");
    expect(with(|experts| experts.gate_proj.weight = tensor(8, &[8, 16], DType::F32)), "gate_proj.weight");
    expect(with(|experts| experts.gate_proj.weight_scale_inv = Some(tensor(8, &[3, 1, 1], DType::F32))), "f8e4m3");
    let fp8 = |experts: &mut ExpertWeights, scales: &[usize]| {
        experts.gate_proj.weight = experts.gate_proj.weight.to_dtype(DType::F8E4M3).unwrap();
        experts.gate_proj.weight_scale_inv = Some(tensor(8, scales, DType::F32));
    };
    for scales in [&[2, 1, 1][..], &[3, 2, 1], &[1, 1]] {
        let mut changed = experts.clone();
        fp8(&mut changed, scales);
        expect(run(&x, &changed, &chosen, &weights), "gate_proj.weight_scale_inv");
    }
}

/// Every input of the op by finite differences, the stacked weights included; an expert that no token chose gets zeros.
#[test]
fn gradients_reach_x_and_the_expert_weights() {
    let experts = experts(3, 6, 4, DType::F32).stacked;
    let chosen = Tensor::new(&[[0u32, 2], [0, 2], [2, 0]], &Device::Cpu).unwrap();
    let (x, factors) = (tensor(9, &[3, 6], DType::F32), tensor(10, &[3, 2], DType::F32));
    let ExpertWeights { gate_proj, up_proj, down_proj } = &experts;
    let inputs = [&x, &factors, &gate_proj.weight, &up_proj.weight, &down_proj.weight];
    let loss = |[x, factors, gate, up, down]: [&Tensor; 5]| {
        let stacked = |weight: &Tensor| StackedWeight { weight: weight.clone(), weight_scale_inv: None };
        let experts = ExpertWeights { gate_proj: stacked(gate), up_proj: stacked(up), down_proj: stacked(down) };
        moe(x, &experts, &chosen, factors, LinearMode::Dequant)?.sqr()?.sum_all()
    };
    let variables = inputs.map(|input| candle_core::Var::from_tensor(input).unwrap());
    let gradients = loss(variables.each_ref().map(|variable| variable.as_tensor())).unwrap().backward().unwrap();
    for (i, name) in ["x", "expert_weights", "gate_proj", "up_proj", "down_proj"].iter().enumerate() {
        let gradient = to_f64(gradients.get(variables[i].as_tensor()).unwrap());
        let values: Vec<f32> = inputs[i].flatten_all().unwrap().to_vec1().unwrap();
        for element in 0..values.len() {
            let at = |step: f32| {
                let mut moved = values.clone();
                moved[element] += step;
                let moved = Tensor::from_vec(moved, inputs[i].dims(), &Device::Cpu).unwrap();
                let mut inputs = inputs;
                inputs[i] = &moved;
                to_f64(&loss(inputs).unwrap())[0]
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert_close(&[gradient[element]], &[slope], 1e-2, &format!("gradient of {name}, element {element}"));
        }
        let per_expert = values.len() / 3;
        if i >= 2 {
            assert!(gradient[per_expert..2 * per_expert].iter().all(|&slope| slope == 0.0), "{name} of expert 1");
        }
    }
}
