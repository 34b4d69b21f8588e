//! AdamW and Muon against naive f64 loops; their states.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use deepseek_v32::training::{AdamW, AdamWOptions, Gradients, Muon, MuonOptions, Optimizer, Parameters};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::support::{difference, flat, random};

/// Greatest relative difference from the naive loops after all steps, in f64 and in f32.
const F64_TOLERANCE: f64 = 1e-11;
const F32_TOLERANCE: f64 = 2e-5;

const STEPS: usize = 7;

/// Names and shapes: a norm, a bias, matrices in both orientations, stacked experts, an embedding.
const SHAPES: [(&str, &[usize]); 6] = [
    ("model.layers.0.input_layernorm.weight", &[6]),
    ("model.layers.0.self_attn.indexer.k_norm.bias", &[3]),
    ("model.layers.0.mlp.up_proj.weight", &[3, 5]),
    ("model.layers.0.mlp.down_proj.weight", &[5, 3]),
    ("model.layers.0.mlp.experts.up_proj.weight", &[2, 4, 3]),
    ("model.embed_tokens.weight", &[7, 3]),
];

/// A run: start, and the gradients of each step; some steps lack some gradients.
struct Run {
    start: Vec<Vec<f64>>,
    gradients: Vec<Vec<Option<Vec<f64>>>>,
}

fn rate(step: usize) -> f64 {
    0.03 / (step + 1) as f64
}

impl Run {
    fn new() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let count = |i: usize| SHAPES[i].1.iter().product::<usize>();
        let start = (0..SHAPES.len()).map(|i| random(&mut rng, count(i), -1.0..1.0)).collect();
        let mut gradient = |i: usize, step: usize| {
            let values = random(&mut rng, count(i), -2.0..2.0);
            (step == 0 || !(step + i).is_multiple_of(4)).then_some(values)
        };
        let gradients = (0..STEPS).map(|step| (0..SHAPES.len()).map(|i| gradient(i, step)).collect()).collect();
        Self { start, gradients }
    }

    fn varmap(&self, dtype: DType) -> VarMap {
        let varmap = VarMap::new();
        for ((name, shape), values) in SHAPES.iter().zip(&self.start) {
            let tensor = Tensor::from_slice(values, *shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            varmap.data().lock().unwrap().insert(name.to_string(), Var::from_tensor(&tensor).unwrap());
        }
        varmap
    }

    /// The gradients of a step, from a loss that has them.
    fn gradients(&self, step: usize, parameters: &Parameters) -> Gradients {
        let mut loss = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
        for ((name, shape), values) in SHAPES.iter().zip(&self.gradients[step]) {
            if let (Some(values), Some(variable)) = (values, parameters.get(name)) {
                let values = Tensor::from_slice(values, *shape, &Device::Cpu).unwrap();
                let wide = variable.as_tensor().to_dtype(DType::F64).unwrap();
                loss = (loss + (wide * values).unwrap().sum_all().unwrap()).unwrap();
            }
        }
        Gradients::of(&loss.backward().unwrap(), parameters).unwrap()
    }

    fn check(&self, naive: &[Vec<f64>], optimizer: impl Fn(&Parameters) -> Box<dyn Optimizer>) {
        for (dtype, tolerance) in [(DType::F64, F64_TOLERANCE), (DType::F32, F32_TOLERANCE)] {
            let varmap = self.varmap(dtype);
            let parameters = Parameters::of(&varmap, |_| true);
            assert_eq!(parameters.len(), SHAPES.len());
            let mut optimizer = optimizer(&parameters);
            for step in 0..STEPS {
                optimizer.step(&self.gradients(step, &parameters), rate(step)).unwrap();
            }
            for ((name, _), expected) in SHAPES.iter().zip(naive) {
                let differ = difference(&flat(parameters.get(name).unwrap()), expected, 0.0);
                assert!(differ <= tolerance, "{dtype:?}: {name}: {differ}");
            }
        }
    }
}

fn adamw(value: &mut [f64], moments: &mut (Vec<f64>, Vec<f64>, i32), gradient: &[f64], rate: f64, decay: f64) {
    let AdamWOptions { beta1, beta2, epsilon, .. } = AdamWOptions::default();
    moments.2 += 1;
    for i in 0..value.len() {
        moments.0[i] = beta1 * moments.0[i] + (1.0 - beta1) * gradient[i];
        moments.1[i] = beta2 * moments.1[i] + (1.0 - beta2) * gradient[i] * gradient[i];
        let m = moments.0[i] / (1.0 - beta1.powi(moments.2));
        let v = moments.1[i] / (1.0 - beta2.powi(moments.2));
        value[i] -= rate * decay * value[i];
        value[i] -= rate * m / (v.sqrt() + epsilon);
    }
}

fn naive_adamw(run: &Run, decays: impl Fn(usize) -> bool, values: &mut [Vec<f64>], takes: impl Fn(usize) -> bool) {
    for i in (0..SHAPES.len()).filter(|&i| takes(i)) {
        let mut moments = (vec![0.0; values[i].len()], vec![0.0; values[i].len()], 0);
        for (step, gradients) in run.gradients.iter().enumerate() {
            if let Some(gradient) = &gradients[i] {
                adamw(&mut values[i], &mut moments, gradient, rate(step), if decays(i) { 0.1 } else { 0.0 });
            }
        }
    }
}

#[test]
fn adamw_is_the_naive_loop() {
    let run = Run::new();
    for decay_vectors in [false, true] {
        let mut expected = run.start.clone();
        naive_adamw(&run, |i| decay_vectors || i >= 2, &mut expected, |_| true);
        let options = AdamWOptions { decay_vectors, ..AdamWOptions::default() };
        run.check(&expected, |parameters| Box::new(AdamW::new(parameters, options).unwrap()));
    }
}

/// `a · b` of row-major `[n, k]` and `[k, m]`.
fn product(a: &[f64], b: &[f64], n: usize, k: usize, m: usize) -> Vec<f64> {
    let at = |i: usize| (0..k).map(|j| a[i / m * k + j] * b[j * m + i % m]).sum();
    (0..n * m).map(at).collect()
}

fn transposed(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..rows * columns).map(|i| a[i % rows * columns + i / rows]).collect()
}

/// Five iterations `x -> a x + (b g + c g g) x` with `g = x xᵀ`, on the wide form.
fn orthogonal(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    if rows > columns {
        let wide = orthogonal(&transposed(matrix, rows, columns), columns, rows);
        return transposed(&wide, columns, rows);
    }
    let norm = matrix.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
    let mut x: Vec<f64> = matrix.iter().map(|x| x / norm).collect();
    for _ in 0..5 {
        let gram = product(&x, &transposed(&x, rows, columns), rows, columns, rows);
        let square = product(&gram, &gram, rows, rows, rows);
        let polynomial: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| -4.7750 * g + 2.0315 * s).collect();
        let more = product(&polynomial, &x, rows, rows, columns);
        x.iter_mut().zip(more).for_each(|(x, more)| *x = 3.4445 * *x + more);
    }
    x
}

#[test]
fn muon_is_the_naive_loop() {
    let run = Run::new();
    let mut expected = run.start.clone();
    let is_matrix = |i: usize| (2..5).contains(&i);
    naive_adamw(&run, |i| i >= 2, &mut expected, |i| !is_matrix(i));
    for i in (0..SHAPES.len()).filter(|&i| is_matrix(i)) {
        let &[.., rows, columns] = SHAPES[i].1 else { unreachable!() };
        let mut momentum = vec![0.0; expected[i].len()];
        for (step, gradients) in run.gradients.iter().enumerate() {
            let Some(gradient) = &gradients[i] else { continue };
            momentum.iter_mut().zip(gradient).for_each(|(m, g)| *m = 0.95 * *m + g);
            let ahead: Vec<f64> = momentum.iter().zip(gradient).map(|(m, g)| g + 0.95 * m).collect();
            let size = 0.2 * (rows.max(columns) as f64).sqrt();
            let step_of = ahead.chunks(rows * columns).flat_map(|matrix| orthogonal(matrix, rows, columns));
            for (value, step_of) in expected[i].iter_mut().zip(step_of) {
                *value = *value * (1.0 - rate(step) * 0.1) - rate(step) * size * step_of;
            }
        }
    }
    run.check(&expected, |parameters| Box::new(Muon::new(parameters, MuonOptions::default()).unwrap()));
}

/// bf16 parameters are rounded copies of the f32 values that the optimizer keeps: small steps are not lost.
#[test]
fn low_precision_parameters_have_an_f32_master() {
    let mut run = Run::new();
    // What bf16 holds exactly, so that both begin alike.
    let round = |x: &mut f64| *x = f64::from(half::bf16::from_f64(*x));
    run.start.iter_mut().flatten().for_each(round);
    for muon in [false, true] {
        let optimizer = |parameters: &Parameters| -> Box<dyn Optimizer> {
            match muon {
                false => Box::new(AdamW::new(parameters, AdamWOptions::default()).unwrap()),
                true => Box::new(Muon::new(parameters, MuonOptions::default()).unwrap()),
            }
        };
        let maps = [DType::F32, DType::BF16].map(|dtype| run.varmap(dtype));
        let parameters = maps.each_ref().map(|varmap| Parameters::of(varmap, |_| true));
        let mut optimizers = parameters.each_ref().map(optimizer);
        for step in 0..STEPS {
            for (optimizer, parameters) in optimizers.iter_mut().zip(&parameters) {
                let gradients = run.gradients(step, &parameters.clone());
                // Steps far below the resolution of bf16.
                optimizer.step(&gradients, 1e-4).unwrap();
            }
        }
        let mut moved = 0;
        for (name, _) in SHAPES {
            let [wide, narrow] = parameters.each_ref().map(|p| p.get(name).unwrap().as_tensor().clone());
            let rounded = wide.to_dtype(DType::BF16).unwrap();
            // The gradients of the bf16 run are rounded to bf16.
            assert!(difference(&flat(&narrow), &flat(&rounded), 0.0) <= 1.0 / 128.0, "{name}");
            let master = &optimizers[1].state().unwrap()[&format!("{name}.master")];
            assert!(difference(&flat(master), &flat(&wide), 0.0) <= 1e-3, "{name}");
            moved += flat(master).iter().zip(flat(&narrow)).filter(|(m, n)| *m != n).count();
        }
        assert!(moved > 10, "the masters hold more than bf16 does: {moved}");
    }
}

#[test]
fn a_saved_state_goes_on_bit_for_bit() {
    let run = Run::new();
    for (muon, dtype) in [(false, DType::F32), (true, DType::F32), (true, DType::BF16)] {
        let optimizer = |parameters: &Parameters| -> Box<dyn Optimizer> {
            match muon {
                false => Box::new(AdamW::new(parameters, AdamWOptions::default()).unwrap()),
                true => Box::new(Muon::new(parameters, MuonOptions::default()).unwrap()),
            }
        };
        let varmap = run.varmap(dtype);
        let parameters = Parameters::of(&varmap, |_| true);
        let mut whole = optimizer(&parameters);
        let dir = tempfile::tempdir().unwrap();
        let (weights, state) = (dir.path().join("weights.safetensors"), dir.path().join("state.safetensors"));
        for step in 0..STEPS {
            if step == 3 {
                varmap.save(&weights).unwrap();
                let tensors: HashMap<String, Tensor> = whole.state().unwrap().into_iter().collect();
                candle_core::safetensors::save(&tensors, &state).unwrap();
            }
            whole.step(&run.gradients(step, &parameters), rate(step)).unwrap();
        }
        let mut loaded = run.varmap(dtype);
        loaded.load(&weights).unwrap();
        let resumed = Parameters::of(&loaded, |_| true);
        let mut second = optimizer(&resumed);
        let tensors = candle_core::safetensors::load(&state, &Device::Cpu).unwrap();
        second.load_state(&tensors).unwrap();
        for step in 3..STEPS {
            second.step(&run.gradients(step, &resumed), rate(step)).unwrap();
        }
        for (name, _) in SHAPES {
            assert_eq!(flat(parameters.get(name).unwrap()), flat(resumed.get(name).unwrap()), "{name}");
        }
        let mut lacking = tensors.clone();
        lacking.remove("model.embed_tokens.weight.exp_avg_sq").unwrap();
        let error = second.load_state(&lacking).unwrap_err().to_string();
        assert_eq!(error, "the state lacks `model.embed_tokens.weight.exp_avg_sq`");
        let wrong = Tensor::zeros((7, 2), DType::F32, &Device::Cpu).unwrap();
        lacking.insert("model.embed_tokens.weight.exp_avg_sq".to_string(), wrong);
        let error = second.load_state(&lacking).unwrap_err().to_string();
        assert_eq!(error, "the state's model.embed_tokens.weight.exp_avg_sq is [7, 2] f32, expected [7, 3] f32");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let run = Run::new();
    let varmap = run.varmap(DType::F32);
    let parameters = Parameters::of(&varmap, |_| true);
    let refused = |options: AdamWOptions, expected: &str| {
        assert_eq!(AdamW::new(&parameters, options).unwrap_err().to_string(), expected);
    };
    let options = AdamWOptions::default();
    refused(AdamWOptions { beta1: 1.0, ..options }, "beta1 is 1, expected in 0..1");
    refused(AdamWOptions { beta2: f64::NAN, ..options }, "beta2 is NaN, expected in 0..1");
    refused(AdamWOptions { epsilon: 0.0, ..options }, "epsilon is 0, expected more than 0");
    refused(AdamWOptions { weight_decay: -0.1, ..options }, "weight_decay is -0.1, expected at least 0");
    let muon = MuonOptions { momentum: -0.5, ..MuonOptions::default() };
    assert_eq!(Muon::new(&parameters, muon).unwrap_err().to_string(), "momentum is -0.5, expected in 0..1");
    let mut optimizer = AdamW::new(&parameters, options).unwrap();
    let error = optimizer.step(&Gradients::default(), f64::NAN).unwrap_err().to_string();
    assert_eq!(error, "learning_rate is NaN, expected finite");
    let error = serde_json::from_str::<AdamWOptions>(r#"{"beta3": 0.9}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `beta3`"), "{error}");
}
