//! A new model: what its variables start as, and that it runs.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use deepseek_v32::Config;
use deepseek_v32::model::Model;

/// Standard errors that a mean or a standard deviation may lie from its expected value.
const STANDARD_ERRORS: f64 = 5.0;
/// How far the entropy of a new model's predictions may lie below that of a uniform choice, in nats.
const ENTROPY_TOLERANCE: f64 = 0.1;

fn new_model(cfg: &Config, varmap: &VarMap, seed: u64) -> Model {
    Model::init(cfg, varmap, seed, DType::F32, &Device::Cpu).unwrap()
}

fn variables(varmap: &VarMap) -> Vec<(String, Var)> {
    let mut variables: Vec<_> =
        varmap.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    variables.sort_by(|(a, _), (b, _)| a.cmp(b));
    variables
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Logits of the main model and of the MTP layer for a few tokens.
fn logits(model: &Model) -> [Tensor; 2] {
    let mut cache = model.new_cache(1).unwrap();
    let sequence = cache.create();
    let ids: Vec<u32> = (0..30).map(|i| i * 37 % model.config().vocab_size as u32).collect();
    let layout = cache.append(&[(sequence, ids.len())]).unwrap();
    let hidden = model.forward_batch(&ids, &layout, &mut cache, None).unwrap();
    let mtp = model.forward_mtp(&ids, &hidden, &layout, &mut cache, None).unwrap();
    [model.logits(&hidden).unwrap(), model.mtp_logits(&mtp).unwrap()]
}

/// Checks what every variable starts as; both generators are held to it.
fn check_variables(cfg: &Config, varmap: &VarMap) {
    let (mut drawn, mut ones, mut zeros) = (0, 0, 0);
    for (name, variable) in variables(varmap) {
        let values = values(&variable);
        if variable.rank() == 1 {
            let expected = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            assert!(values.iter().all(|&value| value == expected), "{name} is not {expected}");
            *if expected == 1.0 { &mut ones } else { &mut zeros } += 1;
            continue;
        }
        drawn += 1;
        let (count, stdev) = (values.len() as f64, cfg.initializer_range);
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < STANDARD_ERRORS * stdev / count.sqrt(), "{name}: mean {mean}");
        let error = (variance.sqrt() / stdev - 1.0).abs();
        assert!(error < STANDARD_ERRORS / (2.0 * count).sqrt(), "{name}: standard deviation {}", variance.sqrt());
        // A share of the normal distribution, which a uniform one misses: 4.55 % lie beyond two deviations.
        let beyond = values.iter().filter(|value| value.abs() > 2.0 * stdev).count() as f64;
        let (expected, spread) = (0.0455 * count, (0.0455 * 0.9545 * count).sqrt());
        assert!((beyond - expected).abs() < STANDARD_ERRORS * spread, "{name}: {beyond} of {count} beyond two");
    }
    // Six norms and one bias in each of five layers with an indexer, five norms beside; a router's bias in four layers.
    assert_eq!((ones, zeros), (5 * 5 + 4, 5 + 4), "norms and biases");
    assert!(drawn > 60, "{drawn} matrices");
}

/// One variable for all experts of a layer, which an optimizer can change in place.
#[test]
fn the_variables_of_experts_are_stacked() {
    let (cfg, varmap) = (Config::tiny(), VarMap::new());
    let mut model = new_model(&cfg, &varmap, 1);
    let variables = varmap.data().lock().unwrap();
    let experts: Vec<_> = variables.iter().filter(|(name, _)| name.contains(".mlp.experts.")).collect();
    // Three sparse layers and the MTP layer.
    assert_eq!(experts.len(), 4 * 3);
    for (name, variable) in experts {
        let expected = if name.contains("down_proj") { [16, 96, 24] } else { [16, 24, 96] };
        assert_eq!(variable.dims(), expected, "{name}");
    }
    let ids = Tensor::new(&[[1u32, 2, 3]], &Device::Cpu).unwrap();
    let before = bits(&model.forward(&ids, 0).unwrap());
    let down = &variables["model.layers.2.mlp.experts.down_proj.weight"];
    down.set(&(down.as_tensor() * 2.0).unwrap()).unwrap();
    assert_ne!(bits(&model.forward(&ids, 0).unwrap()), before);
    drop(variables);
    // Variables under the names of a checkpoint would be copied, and the copies would not follow them.
    let loose = VarMap::new();
    let name = "model.layers.1.mlp.experts.0.gate_proj.weight";
    let variable = Var::zeros((24, 96), DType::F32, &Device::Cpu).unwrap();
    loose.data().lock().unwrap().insert(name.to_string(), variable);
    let error = Model::init(&cfg, &loose, 1, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("stacked"), "{error}");
}

#[test]
fn variables_start_as_documented() {
    for stdev in [0.02, 0.3] {
        let cfg = Config { initializer_range: stdev, ..Config::tiny() };
        let varmap = VarMap::new();
        assert!(new_model(&cfg, &varmap, 1).has_mtp());
        check_variables(&cfg, &varmap);
    }
}

/// Without a seed, as candle's users make models.
#[test]
fn a_plain_varmap_starts_alike() {
    let (cfg, varmap) = (Config::tiny(), VarMap::new());
    let vb = || VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu);
    assert!(Model::new(&cfg, vb()).unwrap().has_mtp());
    check_variables(&cfg, &varmap);
    let count = variables(&varmap).len();
    let again = Model::new(&cfg, vb()).unwrap();
    assert!(again.has_mtp());
    assert_eq!(variables(&varmap).len(), count);
}

#[test]
fn the_seed_decides_every_value() {
    let cfg = Config::tiny();
    let [a, b, c] = [7, 7, 8].map(|seed| {
        let varmap = VarMap::new();
        new_model(&cfg, &varmap, seed);
        variables(&varmap)
    });
    for (((name, a), (_, b)), (_, c)) in a.iter().zip(&b).zip(&c) {
        assert_eq!(bits(a), bits(b), "{name}");
        assert!(a.rank() == 1 || bits(a) != bits(c), "{name}");
    }
    // No two tensors hold the same values.
    let mut starts: Vec<_> = a.iter().filter(|(_, a)| a.rank() > 1).map(|(_, a)| bits(a)[..8].to_vec()).collect();
    let count = starts.len();
    starts.sort();
    starts.dedup();
    assert_eq!(starts.len(), count);
}

#[test]
fn a_new_model_predicts_next_to_nothing() {
    let cfg = Config::tiny();
    let model = new_model(&cfg, &VarMap::new(), 3);
    for (logits, what) in logits(&model).iter().zip(["main", "MTP"]) {
        for row in logits.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap() {
            assert!(row.iter().all(|logit| logit.is_finite()), "{what}");
            let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
            let entropy: f64 = row.iter().map(|logit| -logit.exp() / sum * (logit.exp() / sum).ln()).sum();
            let uniform = (cfg.vocab_size as f64).ln();
            assert!(entropy < uniform && entropy > uniform - ENTROPY_TOLERANCE, "{what}: {entropy} of {uniform}");
        }
    }
}

/// What is there stays, what is missing is made: an MTP layer for a model that was trained without.
#[test]
fn an_mtp_layer_joins_a_model_that_lacks_it() {
    let with = Config::tiny();
    let without = Config { num_nextn_predict_layers: 0, ..with.clone() };
    let varmap = VarMap::new();
    assert!(!new_model(&without, &varmap, 5).has_mtp());
    let before = variables(&varmap);
    assert!(before.iter().all(|(name, _)| !name.starts_with("model.layers.4.")));
    // The map is not empty, so nothing is added to it unasked.
    assert!(!Model::new(&with, VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu)).unwrap().has_mtp());
    let joined = new_model(&with, &varmap, 6);
    for (name, old) in &before {
        assert_eq!(varmap.data().lock().unwrap()[name].id(), old.id(), "{name}");
    }
    // As in a model that was made at once with the second seed.
    let at_once = VarMap::new();
    new_model(&with, &at_once, 6);
    let at_once = at_once.data().lock().unwrap();
    for (name, variable) in variables(&varmap).iter().filter(|(name, _)| name.starts_with("model.layers.4.")) {
        assert_eq!(bits(variable), bits(&at_once[name]), "{name}");
    }
    assert!(logits(&joined)[1].sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite());
}

#[test]
fn a_variable_of_another_shape_is_named() {
    let varmap = VarMap::new();
    let wrong = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    varmap.data().lock().unwrap().insert("lm_head.weight".to_string(), wrong);
    let error = Model::init(&Config::tiny(), &varmap, 1, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight") && error.contains("[2, 3]"), "{error}");
}

#[test]
fn bf16_variables_keep_norms_in_f32() {
    let varmap = VarMap::new();
    let model = Model::init(&Config::tiny(), &varmap, 1, DType::BF16, &Device::Cpu).unwrap();
    for (name, variable) in variables(&varmap) {
        assert_eq!(variable.dtype(), if variable.rank() == 1 { DType::F32 } else { DType::BF16 }, "{name}");
    }
    assert!(logits(&model)[0].sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite());
}
