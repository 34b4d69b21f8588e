//! Models and numbers that the tests share.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use deepseek_v32::config::Config;
use deepseek_v32::generation::Tokenizer;
use deepseek_v32::model::Model;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A configuration with few and small parts.
pub fn small(config: Config) -> Config {
    Config { vocab_size: 12, hidden_size: 24, intermediate_size: 20, ..config }
}

/// A model over variables of a size that keeps activations near one.
pub fn model(config: &Config, seed: u64) -> (Model, VarMap) {
    let varmap = VarMap::new();
    let model = Model::init(config, &varmap, seed, DType::F32, &Device::Cpu).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (name, variable) in variables(&varmap) {
        let width = (*variable.dims().last().unwrap() as f32).sqrt();
        let range = match name.as_str() {
            name if name.ends_with("norm.weight") => 0.5..1.5,
            name if name.ends_with("bias") => -0.3..0.3,
            name if name.ends_with("embed_tokens.weight") => -1.7..1.7,
            _ => -1.7 / width..1.7 / width,
        };
        let values: Vec<f32> = (0..variable.elem_count()).map(|_| rng.random_range(range.clone())).collect();
        variable.set(&Tensor::from_vec(values, variable.dims(), &Device::Cpu).unwrap()).unwrap();
    }
    (model, varmap)
}

/// The tokenizer of the embedded checkpoint.
pub fn tiny_tokenizer() -> Tokenizer {
    Tokenizer::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")).unwrap()
}

/// In order of name.
pub fn variables(varmap: &VarMap) -> Vec<(String, Var)> {
    let mut all: Vec<_> = varmap.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// Numbers in `range`, f64.
pub fn random(rng: &mut ChaCha8Rng, count: usize, range: std::ops::Range<f64>) -> Vec<f64> {
    (0..count).map(|_| rng.random_range(range.clone())).collect()
}

/// A tensor's elements as f64.
pub fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// The greatest absolute difference, relative to the greatest expected element (at least `least`).
pub fn difference(found: &[f64], expected: &[f64], least: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(least, |size, x| size.max(x.abs()));
    let differ = |(a, b): (&f64, &f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
    found.iter().zip(expected).map(differ).fold(0.0, f64::max) / size
}
