//! `gate` where scores are -inf or tied between groups, and its gradient.

use candle_core::{DType, Device, Tensor, Var};
use deepseek_v32::ops::gate::{GateConfig, gate};
use deepseek_v32::ops::{Backend, with_backend};

use crate::common::{assert_close, tensor, to_f64, values};

const BACKENDS: [Backend; 2] = [Backend::Cpu, Backend::Reference];
/// Gradients against central differences in f64: f32 error of a sigmoid, a sum and a division.
const GRADIENT_TOLERANCE: f64 = 1e-5;

fn config(n_group: usize, topk_group: usize, k: usize) -> GateConfig {
    GateConfig { n_group, topk_group, num_experts_per_tok: k, norm_topk_prob: true, routed_scaling_factor: 2.5 }
}

fn chosen(logits: &[f32], bias: &[f32], cfg: &GateConfig, backend: Backend) -> Vec<u32> {
    let logits = Tensor::new(logits, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let bias = Tensor::new(bias, &Device::Cpu).unwrap();
    let (chosen, _) = with_backend(backend, || gate(&logits, Some(&bias), cfg)).unwrap();
    chosen.flatten_all().unwrap().to_vec1().unwrap()
}

/// Every way to choose `k` of the experts, the best by: sum of the choice values compared from the largest on, then the
/// smaller ids.
fn enumerated(choice: &[f64], k: usize) -> Vec<u32> {
    let sets = (0u32..1 << choice.len()).filter(|set| set.count_ones() as usize == k);
    let ids = |set: u32| (0..choice.len() as u32).filter(move |id| set >> id & 1 == 1).collect::<Vec<_>>();
    let sorted = |set: u32| {
        let mut values: Vec<f64> = ids(set).into_iter().map(|id| choice[id as usize]).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    };
    let better = |a: &u32, b: &u32| {
        let by_value = sorted(*a).iter().zip(sorted(*b)).map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne());
        by_value.unwrap_or(std::cmp::Ordering::Equal).then_with(|| ids(*b).cmp(&ids(*a)))
    };
    ids(sets.max_by(better).unwrap())
}

#[test]
fn selection_is_the_best_of_all_sets() {
    // Scores from few values, so that ties are everywhere; a bias of -inf shuts an expert out.
    let levels = [-1.0f32, 0.0, 0.0, 2.0];
    let biases = [0.0f32, 0.25, f32::NEG_INFINITY, 0.0];
    for seed in 0..60 {
        let draw = values(seed, 16);
        let pick = |table: &[f32; 4], x: f32| table[((x + 1.0) * 2.0) as usize % 4];
        let logits: Vec<f32> = draw[..8].iter().map(|&x| pick(&levels, x)).collect();
        let bias: Vec<f32> = draw[8..].iter().map(|&x| pick(&biases, x)).collect();
        let choice: Vec<f64> =
            logits.iter().zip(&bias).map(|(x, b)| f64::from(((-x).exp() + 1.0).recip() + b)).collect();
        for k in [1, 3, 8] {
            let expected = enumerated(&choice, k);
            for backend in BACKENDS {
                let got = chosen(&logits, &bias, &config(1, 1, k), backend);
                assert_eq!(got, expected, "{backend:?} {k} of {choice:?}");
            }
        }
        // Two of four groups of two by the sum of both, then the best of theirs; the rest counts as -inf.
        let groups: Vec<f64> = choice.chunks(2).map(|pair| f64::from(pair[0] as f32 + pair[1] as f32)).collect();
        let kept = enumerated(&groups, 2);
        let within = |id: usize| kept.contains(&(id as u32 / 2));
        let choice: Vec<f64> = (0..8).map(|id| if within(id) { choice[id] } else { f64::NEG_INFINITY }).collect();
        for k in [1, 3, 5] {
            let expected = enumerated(&choice, k);
            for backend in BACKENDS {
                let got = chosen(&logits, &bias, &config(4, 2, k), backend);
                assert_eq!(got, expected, "{backend:?} {k} of the groups {kept:?} of {choice:?}");
            }
        }
    }
}

/// The released model's 256 experts in 8 groups.
#[test]
fn many_tokens_select_as_on_cpu() {
    let (tokens, experts) = (512, 256);
    let logits = tensor(1, &[tokens, experts], DType::F32);
    let bias = tensor(2, &[experts], DType::F32);
    let [cpu, reference] =
        BACKENDS.map(|backend| with_backend(backend, || gate(&logits, Some(&bias), &config(8, 4, 8))).unwrap().0);
    assert_eq!(cpu.to_vec2::<u32>().unwrap(), reference.to_vec2::<u32>().unwrap());
}

#[test]
fn the_weights_have_a_gradient() {
    let (tokens, experts) = (3, 8);
    let cfg = config(4, 2, 3);
    let logits = Var::from_tensor(&tensor(5, &[tokens, experts], DType::F32)).unwrap();
    let bias = tensor(6, &[experts], DType::F32);
    let factors = tensor(7, &[tokens, 3], DType::F32);
    let (chosen, weights) = gate(&logits, Some(&bias), &cfg).unwrap();
    let grads = (weights * &factors).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = to_f64(grads.get(&logits).unwrap());

    let (x, factors) = (to_f64(&logits), to_f64(&factors));
    let chosen = chosen.to_vec2::<u32>().unwrap();
    let loss = |x: &[f64]| -> f64 {
        let row = |t: usize| {
            let score = |&id: &u32| 1.0 / (1.0 + (-x[t * experts + id as usize]).exp());
            let scores: Vec<f64> = chosen[t].iter().map(score).collect();
            let sum: f64 = scores.iter().sum();
            scores.iter().zip(&factors[t * 3..]).map(|(score, factor)| score / sum * 2.5 * factor).sum::<f64>()
        };
        (0..tokens).map(row).sum()
    };
    let step = 1e-5;
    let expected: Vec<f64> = (0..x.len())
        .map(|i| {
            let at = |step: f64| {
                let mut moved = x.clone();
                moved[i] += step;
                loss(&moved)
            };
            (at(step) - at(-step)) / (2.0 * step)
        })
        .collect();
    assert_close(&gradient, &expected, GRADIENT_TOLERANCE, "gradient");
    assert!(expected.iter().any(|x| x.abs() > 1e-2));
}
