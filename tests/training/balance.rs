//! Balance of experts.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use deepseek_v32::ops;
use deepseek_v32::ops::gate::GateConfig;
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::training::{ExpertLoad, sequence_balance_loss};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::support::{difference, flat, random, scalar};

const EXPERTS: usize = 16;
const BIAS: &str = "model.layers.3.mlp.gate.e_score_correction_bias";

fn bias() -> (VarMap, Var) {
    let varmap = VarMap::new();
    let bias = Var::zeros(EXPERTS, DType::F32, &Device::Cpu).unwrap();
    varmap.data().lock().unwrap().insert(BIAS.to_string(), bias.clone());
    (varmap, bias)
}

/// A router that prefers some experts by far: the bias evens the load out, with and without groups.
#[test]
fn a_skewed_router_becomes_even() {
    for n_group in [1, 4] {
        let (varmap, bias) = bias();
        let gate = GateConfig {
            n_group,
            topk_group: n_group.div_ceil(2),
            num_experts_per_tok: 4,
            norm_topk_prob: true,
            routed_scaling_factor: 1.0,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let (mut first, mut last) = (None, None);
        let rows = 512;
        for step in 0..400 {
            let mut logits = random(&mut rng, rows * EXPERTS, -1.0..1.0);
            logits.iter_mut().enumerate().for_each(|(i, logit)| *logit += 1.5 - (i % EXPERTS) as f64 * 0.2);
            let logits = Tensor::from_vec(logits, (rows, EXPERTS), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            let (chosen, _) = ops::gate(&logits, Some(bias.as_tensor()), &gate).unwrap();
            let mut load = ExpertLoad::default();
            load.add(3, &chosen, EXPERTS, &vec![true; rows]).unwrap();
            let metrics = load.metrics()[0];
            assert_eq!(metrics.layer, 3);
            first.get_or_insert(metrics);
            last = Some(metrics);
            // Large steps first.
            load.update_biases(&varmap, if step < 300 { 0.01 } else { 0.001 }).unwrap();
        }
        let (first, last) = (first.unwrap(), last.unwrap());
        assert!(first.max_violation > 1.0 && first.min_share < 0.1 && first.entropy < 0.9, "{first:?}");
        assert!(last.max_violation < 0.2 && last.min_share > 0.8 && last.entropy > 0.99, "{last:?}");
    }
}

#[test]
fn one_update_moves_each_bias_by_its_sign() {
    let (varmap, bias) = bias();
    let mut load = ExpertLoad::default();
    // Expert 0 has four rows, expert 1 one, which is the mean, all others but expert 2 one as well.
    let chosen: Vec<u32> = [0, 0, 0, 0].into_iter().chain([1]).chain(5..16).collect();
    let chosen = Tensor::from_vec(chosen, (16, 1), &Device::Cpu).unwrap();
    load.add(3, &chosen, EXPERTS, &[true; 16]).unwrap();
    load.update_biases(&varmap, 0.25).unwrap();
    let mut expected = [0.0; 16];
    expected[0] = -0.25;
    expected[2..5].fill(0.25);
    assert_eq!(flat(&bias), expected);
    // Twice the same load is the same direction, and rows that do not count are none.
    let mut twice = load.clone();
    twice.merge(&load).unwrap();
    twice.add(3, &chosen, EXPERTS, &[false; 16]).unwrap();
    assert_eq!(twice.layer(3).unwrap()[0], 8.0);
    twice.update_biases(&varmap, 0.25).unwrap();
    assert_eq!(flat(&bias), expected.map(|b| 2.0 * b));
    let metrics = load.metrics()[0];
    assert_eq!((metrics.max_violation, metrics.min_share), (3.0, 0.0));
    let refused =
        |error: deepseek_v32::training::TrainingError, expected: &str| assert_eq!(error.to_string(), expected);
    refused(load.update_biases(&varmap, -1.0).unwrap_err(), "speed is -1, expected at least 0");
    let error = load.update_biases(&VarMap::new(), 0.1).unwrap_err();
    refused(error, &format!("the state lacks `{BIAS}`"));
    refused(load.add(3, &chosen, 15, &[true; 16]).unwrap_err(), "experts: 15 of them, expected 16");
    refused(load.add(4, &chosen, 15, &[true; 16]).unwrap_err(), "an expert is 15, expected below 15");
    refused(load.add(3, &chosen, 16, &[true; 15]).unwrap_err(), "rows: 15 of them, expected 16");
}

#[test]
fn the_sequence_wise_loss_is_the_naive_sum() {
    let (lengths, k) = ([5usize, 1, 9], 3);
    let layout = BatchLayout::uncached(&lengths);
    let tokens = layout.tokens();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let logits = random(&mut rng, tokens * EXPERTS, -2.0..2.0);
    let chosen: Vec<u32> = (0..tokens * k).map(|i| ((i * i + i / 4) % EXPERTS) as u32).collect();
    let denominator = 20.0;
    let naive = |logits: &[f64]| {
        let (mut loss, mut first) = (0.0, 0);
        for length in lengths {
            let rows = first..first + length;
            for e in 0..EXPERTS {
                let count = chosen[rows.start * k..rows.end * k].iter().filter(|&&c| c as usize == e).count();
                let f = EXPERTS as f64 / (k * length) as f64 * count as f64;
                let score = |row: usize, e: usize| 1.0 / (1.0 + (-logits[row * EXPERTS + e]).exp());
                let share = |row: usize| score(row, e) / (0..EXPERTS).map(|e| score(row, e)).sum::<f64>();
                let p = rows.clone().map(share).sum::<f64>() / length as f64;
                loss += length as f64 / denominator * f * p;
            }
            first += length;
        }
        loss
    };
    let variable = Tensor::from_slice(&logits, (tokens, EXPERTS), &Device::Cpu).unwrap();
    let variable = Var::from_tensor(&variable.to_dtype(DType::F32).unwrap()).unwrap();
    let chosen = Tensor::from_slice(&chosen, (tokens, k), &Device::Cpu).unwrap();
    let loss = sequence_balance_loss(&variable, &chosen, &layout, denominator).unwrap();
    assert!((scalar(&loss) - naive(&logits)).abs() <= 1e-6);
    let found = flat(loss.backward().unwrap().get(&variable).unwrap());
    let slope = |i: usize| {
        let at = |step: f64| {
            let mut logits = logits.clone();
            logits[i] += step;
            naive(&logits)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    };
    let expected: Vec<f64> = (0..logits.len()).map(slope).collect();
    assert!(difference(&found, &expected, 0.0) <= 1e-5);
    // An even load has the loss 1.
    let even: Vec<u32> = (0..16 * k as u32).map(|i| i % 16).collect();
    let even = Tensor::from_vec(even, (16, k), &Device::Cpu).unwrap();
    let logits = Tensor::zeros((16, EXPERTS), DType::F32, &Device::Cpu).unwrap();
    let loss = sequence_balance_loss(&logits, &even, &BatchLayout::uncached(&[16]), 16.0).unwrap();
    assert!((scalar(&loss) - 1.0).abs() <= 1e-6);
}
