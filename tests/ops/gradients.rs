//! Gradients of the ops of a training pass, on both backends, against differences of their own values and against each
//! other.

use candle_core::{DType, Device, Tensor, Var};
use deepseek_v32::ops::gate::GateConfig;
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use deepseek_v32::ops::moe::ExpertWeights;
use deepseek_v32::ops::{self, Backend, with_backend};

use crate::common_attn::{layout, rng, tensor, values};

/// Step of the differences, of fourth order.
const STEP: f64 = 1.0 / 128.0;
/// Greatest difference of a gradient from the difference of f32 values, whose rounding the step divides.
const DIFFERENCE_TOLERANCE: f64 = 1e-3;
/// Greatest difference of the backends' gradients.
const BACKEND_TOLERANCE: f64 = 2e-5;

/// The sum of the outputs' finite elements, each with a weight of its own.
fn weighted(outputs: &[Tensor]) -> f64 {
    let mut sum = 0.0;
    for (output, weight) in outputs.iter().zip(weights(outputs)) {
        let products = values(output).into_iter().zip(values(&weight)).map(|(x, w)| x * w);
        sum += products.filter(|x| x.is_finite()).sum::<f64>();
    }
    sum
}

/// Weights in `-1..1`; 0 where the output is not finite.
fn weights(outputs: &[Tensor]) -> Vec<Tensor> {
    let mut rng = rng(77);
    let weight = |output: &Tensor| {
        let weight = tensor(&mut rng, output.dims());
        let finite = output.detach().to_dtype(DType::F32).unwrap().abs().unwrap().lt(f32::INFINITY).unwrap();
        finite.where_cond(&weight, &weight.zeros_like().unwrap()).unwrap()
    };
    outputs.iter().map(weight).collect()
}

/// The gradients of [`weighted`] for each input.
fn gradients(inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Vec<Tensor>) -> Vec<Vec<f64>> {
    let vars: Vec<_> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tracked: Vec<_> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let outputs = f(&tracked);
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
    for (output, weight) in outputs.iter().zip(weights(&outputs)) {
        loss = (loss + (output.to_dtype(DType::F32).unwrap() * weight).unwrap().sum_all().unwrap()).unwrap();
    }
    let grads = loss.backward().unwrap();
    let of = |(i, var): (usize, &Var)| values(grads.get(var).unwrap_or_else(|| panic!("input {i} has no gradient")));
    vars.iter().enumerate().map(of).collect()
}

/// Checks every element of every input's gradient.
fn check(what: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Vec<Tensor>) {
    let [cpu, reference] =
        [Backend::Cpu, Backend::Reference].map(|backend| with_backend(backend, || gradients(inputs, &f)));
    for (i, input) in inputs.iter().enumerate() {
        let size = cpu[i].iter().fold(0f64, |size, x| size.max(x.abs()));
        assert!(size > 1e-2, "{what}: the gradient of input {i} is at most {size}");
        for (at, (cpu, reference)) in cpu[i].iter().zip(&reference[i]).enumerate() {
            let close = (cpu - reference).abs() <= BACKEND_TOLERANCE * (1.0 + size);
            assert!(close, "{what}: input {i}, element {at}: {cpu} on cpu, {reference} by the reference");
            let moved = |step: f64| {
                let mut all = values(input);
                all[at] += step;
                let mut inputs = inputs.to_vec();
                inputs[i] = Tensor::from_vec(all, input.dims(), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
                weighted(&f(&inputs))
            };
            let near = moved(STEP) - moved(-STEP);
            let far = moved(2.0 * STEP) - moved(-2.0 * STEP);
            let expected = (8.0 * near - far) / (12.0 * STEP);
            let close = (cpu - expected).abs() <= DIFFERENCE_TOLERANCE * (1.0 + size);
            assert!(close, "{what}: input {i}, element {at}: {cpu}, expected {expected}");
        }
    }
}

fn linear_weight(weight: &Tensor) -> LinearWeight {
    LinearWeight { weight: weight.clone(), weight_scale_inv: None }
}

#[test]
fn elementwise_and_norms() {
    let mut rng = rng(1);
    let x = tensor(&mut rng, &[3, 6]);
    let weight = tensor(&mut rng, &[6]);
    check("rms_norm", &[x.clone(), weight.clone()], |a| vec![ops::rms_norm(&a[0], &a[1], 1e-6).unwrap()]);
    let bias = tensor(&mut rng, &[6]);
    check("layer_norm", &[x.clone(), weight, bias], |a| vec![ops::layer_norm(&a[0], &a[1], &a[2], 1e-6).unwrap()]);
    check("swiglu", &[x, tensor(&mut rng, &[3, 6])], |a| vec![ops::swiglu(&a[0], &a[1]).unwrap()]);
    let x = tensor(&mut rng, &[3, 2, 6]);
    let angles = tensor(&mut rng, &[3, 3]);
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    for interleaved in [false, true] {
        let run = |a: &[Tensor]| vec![ops::rope(&a[0], &cos, &sin, interleaved).unwrap()];
        check(&format!("rope, interleaved: {interleaved}"), std::slice::from_ref(&x), run);
    }
}

#[test]
fn projections() {
    let mut rng = rng(2);
    let (x, weight) = (tensor(&mut rng, &[4, 5]), tensor(&mut rng, &[3, 5]));
    check("linear", &[x.clone(), weight], |a| vec![ops::linear(&a[0], &a[1], None).unwrap()]);
    let (gate, up, down) = (tensor(&mut rng, &[3, 5]), tensor(&mut rng, &[3, 5]), tensor(&mut rng, &[4, 3]));
    check("mlp", &[x, gate, up, down], |a| {
        let [gate, up, down] = [1, 2, 3].map(|i| linear_weight(&a[i]));
        vec![ops::mlp(&a[0], &gate, &up, &down, LinearMode::Dequant).unwrap()]
    });
    // Two heads of three key and two value rows.
    let (q, kv_b) = (tensor(&mut rng, &[3, 2, 3]), tensor(&mut rng, &[10, 4]));
    check("absorb_query", &[q, kv_b.clone()], |a| vec![ops::absorb_query(&a[0], &linear_weight(&a[1]), 2).unwrap()]);
    check("absorb_value", &[tensor(&mut rng, &[3, 2, 4]), kv_b], |a| {
        vec![ops::absorb_value(&a[0], &linear_weight(&a[1]), 3).unwrap()]
    });
}

#[test]
fn experts() {
    let mut rng = rng(3);
    let (experts, width, hidden) = (4, 3, 5);
    // Expert 3 is chosen by nobody.
    let indices = Tensor::new(&[[0u32, 2], [1, 2], [0, 1], [1, 2]], &Device::Cpu).unwrap();
    let x = tensor(&mut rng, &[4, hidden]);
    let weights = tensor(&mut rng, &[4, 2]);
    let stacks = [[experts, width, hidden], [experts, width, hidden], [experts, hidden, width]];
    let stacks = stacks.map(|dims| tensor(&mut rng, &dims));
    let inputs: Vec<_> = [x, weights].into_iter().chain(stacks).collect();
    let run = |a: &[Tensor]| {
        let [gate_proj, up_proj, down_proj] =
            [2, 3, 4].map(|i| StackedWeight { weight: a[i].clone(), weight_scale_inv: None });
        let experts = ExpertWeights { gate_proj, up_proj, down_proj };
        vec![ops::moe(&a[0], &experts, &indices, &a[1], LinearMode::Dequant).unwrap()]
    };
    check("moe", &inputs, run);
    for gradient in &with_backend(Backend::Cpu, || gradients(&inputs, &run))[2..] {
        assert!(gradient[3 * width * hidden..].iter().all(|&x| x == 0.0), "an expert that nobody chose learns");
    }
}

#[test]
fn router() {
    let mut rng = rng(4);
    let logits = tensor(&mut rng, &[3, 6]);
    for norm_topk_prob in [false, true] {
        let config = GateConfig {
            n_group: 1,
            topk_group: 1,
            num_experts_per_tok: 2,
            norm_topk_prob,
            routed_scaling_factor: 2.5,
        };
        // Whatever the router would choose.
        let indices = Tensor::new(&[[0u32, 1], [2, 5], [3, 4]], &Device::Cpu).unwrap();
        check(&format!("gate_weights, normalised: {norm_topk_prob}"), std::slice::from_ref(&logits), |a| {
            vec![ops::gate_weights(&a[0], &indices, &config).unwrap()]
        });
        let (chosen, weights) = ops::gate(&logits, None, &config).unwrap();
        check(&format!("gate, normalised: {norm_topk_prob}"), std::slice::from_ref(&logits), |a| {
            let (again, weights) = ops::gate(&a[0], None, &config).unwrap();
            assert_eq!(again.to_vec2::<u32>().unwrap(), chosen.to_vec2::<u32>().unwrap());
            vec![weights]
        });
        // The same weights, if it chooses the same.
        let again = ops::gate_weights(&logits, &chosen, &config).unwrap();
        assert_eq!(values(&again).len(), 6);
        for (again, weight) in values(&again).into_iter().zip(values(&weights)) {
            assert!((again - weight).abs() <= 1e-6, "{again} is not {weight}");
        }
    }
}

#[test]
fn attention_with_a_key_for_each_head() {
    let mut rng = rng(5);
    let layout = layout(&mut rng, &[(0, 4), (2, 2), (3, 1)]);
    let (tokens, context) = (layout.tokens(), layout.total_context());
    for value in [2, 0] {
        let (q, k) = (tensor(&mut rng, &[tokens, 2, 3]), tensor(&mut rng, &[context, 2, 3]));
        let v = tensor(&mut rng, &[context, 2, value]);
        let run = |q: &Tensor, k: &Tensor, v: &Tensor| {
            let (out, lse) = ops::mha(q, k, v, &layout, 0.4).unwrap();
            vec![out, lse]
        };
        match value {
            0 => check("mha without values", &[q, k], |a| run(&a[0], &a[1], &v)[1..].to_vec()),
            _ => check("mha", &[q, k, v], |a| run(&a[0], &a[1], &a[2])),
        }
    }
}

/// Rows with some slots, with none, and with one that is named twice.
fn indices(rows: usize, columns: usize, keys: usize) -> Tensor {
    let index = |row: usize, i: usize| match (row, i) {
        (1, _) => -1,
        (2, 0) => -1,
        (0, 1) => 0,
        (0, 2) => 0,
        _ => ((row * 5 + i * 3) % keys) as i64,
    };
    let all = (0..rows * columns).map(|at| index(at / columns, at % columns)).collect();
    Tensor::from_vec(all, (rows, columns), &Device::Cpu).unwrap()
}

#[test]
fn attention_over_chosen_keys() {
    let mut rng = rng(6);
    let keys = 7;
    let indices = indices(4, 4, keys);
    let q = tensor(&mut rng, &[4, 2, 3]);
    let (k, v) = (tensor(&mut rng, &[keys, 2, 3]), tensor(&mut rng, &[keys, 2, 2]));
    check("sparse_mha", &[q.clone(), k, v], |a| {
        let (out, lse) = ops::sparse_mha(&a[0], &a[1], &a[2], &indices, 0.4).unwrap();
        vec![out, lse]
    });
    let kv = tensor(&mut rng, &[keys, 3]);
    check("sparse_mla", &[q, kv], |a| {
        let (out, lse) = ops::sparse_mla(&a[0], &a[1], &indices, 2, 0.4).unwrap();
        vec![out, lse]
    });
}

#[test]
fn scores_of_the_indexer() {
    let mut rng = rng(7);
    // Far from the corner of the rectifier.
    let scaled = |x: Tensor| (x * 4.0).unwrap();
    let layout = BatchLayout::uncached(&[4, 2]);
    let (q, weights) = (scaled(tensor(&mut rng, &[6, 2, 3])), tensor(&mut rng, &[6, 2]));
    let index_k = scaled(tensor(&mut rng, &[128, 3]));
    let used = index_k.narrow(0, 0, 66).unwrap();
    let rest = index_k.narrow(0, 66, 62).unwrap();
    check("mqa_logits", &[q.clone(), used, weights.clone()], |a| {
        let index_k = Tensor::cat(&[&a[1], &rest], 0).unwrap();
        vec![ops::mqa_logits(&a[0], &index_k, &a[2], &layout).unwrap()]
    });
}
