//! The training pass: its numbers, the gradient of every parameter against central differences, and the indexer's losses
//! against recorded gradients.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::checkpoint_writer::{tiny_config, tiny_v3_config};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::VarMap;
use deepseek_v32::config::{Config, IndexerType, MlpType, ModelType, Rope};
use deepseek_v32::model::{Model, Precision, Trace, TrainingOptions};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::weights::{Checkpoint, LoadOptions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Greatest absolute difference of hidden states of a size of one, with and without a cache.
const HIDDEN_TOLERANCE: f32 = 2e-5;
/// Steps of the central differences, along a direction of length one in a parameter's space: the largest one that changes
/// no choice of positions or experts is taken.
const STEPS: [f64; 4] = [4e-3, 1e-3, 2.5e-4, 6e-5];
/// Greatest difference of a derivative from its central difference: relative, and from the rounding of f32 losses of a
/// size of one, which the step divides.
const RELATIVE_TOLERANCE: f64 = 1e-2;
const ROUNDING: f64 = 4e-6;
/// Greatest difference of recorded gradients (f64, rounded) from ours, relative to the largest element.
const GOLDEN_TOLERANCE: f32 = 1e-4;

/// Rows of the test's sequences: the first slot of the second is no neighbour of the last one of the first.
pub const LENGTHS: [usize; 2] = [9, 12];

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

/// In order of name.
pub fn variables(varmap: &VarMap) -> Vec<(String, Var)> {
    let mut all: Vec<_> = varmap.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

pub fn ids(config: &Config, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7 + i / 3) % config.vocab_size) as u32).collect()
}

/// Fixed weights of a size of one.
fn weights_like(x: &Tensor, seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..x.elem_count()).map(|_| rng.random_range(-1f32..1.0)).collect();
    Tensor::from_vec(values, x.dims(), x.device()).unwrap()
}

/// A weighted sum of `x`, of a size of one.
pub fn weighted(x: &Tensor, seed: u64) -> Tensor {
    let sum = (x * weights_like(x, seed)).unwrap().sum_all().unwrap();
    (sum / (x.elem_count() as f64).sqrt()).unwrap()
}

/// What was chosen: positions and experts of every layer.
pub type Choices = Vec<Vec<i64>>;

pub fn choices(trace: &Trace) -> Choices {
    let chosen = trace.topk_indices.iter().chain(&trace.expert_indices).flatten();
    let flat = |t: &Tensor| t.to_dtype(DType::I64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    chosen.map(flat).collect()
}

/// The loss that the model learns from: logits of the main layers and, where there is one, of the MTP layer.
pub fn model_loss(model: &Model, layout: &BatchLayout, options: TrainingOptions) -> (Tensor, Choices) {
    let ids = ids(model.config(), layout.tokens());
    let mut trace = Trace::default();
    let out = model.forward_training(&ids, layout, options, Some(&mut trace)).unwrap();
    let mut loss = weighted(&model.logits(&out.hidden).unwrap(), 1);
    if model.has_mtp() {
        let mtp = model.forward_mtp_training(&ids, &out.hidden, layout, options, Some(&mut trace)).unwrap();
        loss = (loss + weighted(&model.mtp_logits(&mtp.hidden).unwrap(), 2)).unwrap();
    }
    (loss, choices(&trace))
}

/// A loss on the indexers' scores.
pub fn index_loss(model: &Model, layout: &BatchLayout, options: TrainingOptions) -> (Tensor, Choices) {
    let ids = ids(model.config(), layout.tokens());
    let options = TrainingOptions { index_scores: true, ..options };
    let mut trace = Trace::default();
    let out = model.forward_training(&ids, layout, options, Some(&mut trace)).unwrap();
    let mut scores = out.index_scores;
    if model.has_mtp() {
        let mtp = model.forward_mtp_training(&ids, &out.hidden, layout, options, Some(&mut trace)).unwrap();
        scores.extend(mtp.index_scores);
    }
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
    for (seed, scores) in (3..).zip(scores.iter().flatten()) {
        let seen = scores.detach().gt(f32::NEG_INFINITY).unwrap();
        let scores = seen.where_cond(scores, &scores.zeros_like().unwrap().detach()).unwrap();
        loss = (loss + weighted(&scores, seed)).unwrap();
    }
    (loss, choices(&trace))
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    let product = (a.to_dtype(DType::F64).unwrap() * b.to_dtype(DType::F64).unwrap()).unwrap();
    product.sum_all().unwrap().to_scalar().unwrap()
}

/// Compares the gradient of every variable that `learns` with central differences; the others must have none.
pub fn check(what: &str, varmap: &VarMap, learns: impl Fn(&str) -> bool, loss: impl Fn() -> (Tensor, Choices)) {
    let (value_here, chosen) = loss();
    let grads: GradStore = value_here.backward().unwrap();
    for (name, variable) in variables(varmap) {
        let grad = grads.get(variable.as_tensor());
        let length = grad.map_or(0.0, |grad| dot(grad, grad).sqrt());
        if !learns(&name) {
            assert_eq!(length, 0.0, "{what}: {name} must have no gradient");
            continue;
        }
        let grad = grad.unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
        assert!(length > 1e-3, "{what}: the gradient of {name} has the length {length}");
        // Half along the gradient, so that there is something to see, and half anywhere.
        let other = weights_like(grad, 99);
        let other_length = dot(&other, &other).sqrt();
        let direction =
            ((grad / (length * 2f64.sqrt())).unwrap() + (other / (other_length * 2f64.sqrt())).unwrap()).unwrap();
        let value = variable.as_tensor().copy().unwrap();
        // The loss, if the choices are still the same.
        let at = |step: f64| -> Option<f64> {
            variable.set(&(&value + (&direction * step).unwrap()).unwrap()).unwrap();
            let (loss, found) = loss();
            (found == chosen).then(|| f64::from(loss.to_scalar::<f32>().unwrap()))
        };
        let difference = |step: f64| Some(((at(step)? - at(-step)?) / (2.0 * step), step));
        let (expected, step) =
            STEPS.into_iter().find_map(difference).unwrap_or_else(|| panic!("{what}: {name}: every step is too large"));
        variable.set(&value).unwrap();
        let derivative = dot(grad, &direction);
        let tolerance = ROUNDING / step + RELATIVE_TOLERANCE * expected.abs();
        assert!(
            (derivative - expected).abs() <= tolerance,
            "{what}: {name}: {derivative}, expected {expected} ± {tolerance}"
        );
    }
}

fn check_model(what: &str, config: &Config, seed: u64) {
    let (model, varmap) = model(config, seed);
    let layout = BatchLayout::uncached(&LENGTHS);
    let options = TrainingOptions::default();
    let indexer = |name: &str| name.contains(".indexer.");
    let chosen = |name: &str| name.ends_with("e_score_correction_bias");
    check(what, &varmap, |name| !indexer(name) && !chosen(name), || model_loss(&model, &layout, options));
    if config.has_indexer() {
        check(&format!("{what}: index scores"), &varmap, indexer, || index_loss(&model, &layout, options));
    }
}

#[test]
fn gradients_of_dense_attention_and_experts() {
    check_model("v3", &small(tiny_v3_config()), 1);
}

#[test]
fn gradients_of_sparse_attention_and_the_mtp_layer() {
    let config = small(tiny_config());
    assert!(config.num_nextn_predict_layers == 1 && config.index_topk == Some(4));
    check_model("v32", &config, 2);
}

/// GLM-5's kind: one selection for several layers, neighbouring pairs rotated in the indexer, experts in one group.
pub fn tiny_glm_config() -> Config {
    Config {
        model_type: ModelType::GlmMoeDsa,
        num_hidden_layers: 3,
        num_nextn_predict_layers: 0,
        n_group: 1,
        topk_group: 1,
        n_shared_experts: 2,
        indexer_rope_interleave: true,
        indexer_types: vec![IndexerType::Full, IndexerType::Shared, IndexerType::Full],
        mlp_layer_types: vec![MlpType::Dense, MlpType::Sparse, MlpType::Sparse],
        rms_norm_eps: 1e-5,
        rope: Rope { rope_theta: 1e6, yarn: None },
        ..small(tiny_config())
    }
}

#[test]
fn gradients_of_a_selection_that_layers_share() {
    check_model("glm", &tiny_glm_config(), 4);
}

/// A query without a latent, experts in every layer, none of them shared, weights not normalised.
#[test]
fn gradients_of_a_direct_query() {
    let config = Config {
        q_lora_rank: None,
        n_shared_experts: 0,
        norm_topk_prob: false,
        first_k_dense_replace: 0,
        mlp_layer_types: vec![MlpType::Sparse; 2],
        tie_word_embeddings: true,
        ..small(tiny_v3_config())
    };
    check_model("direct", &config, 5);
}

#[test]
fn the_numbers_are_those_of_an_empty_cache() {
    for (what, config) in [
        ("v3", small(tiny_v3_config())),
        ("v32", small(tiny_config())),
        (
            "one selection for two layers",
            Config { indexer_types: vec![IndexerType::Full, IndexerType::Shared], ..small(tiny_config()) },
        ),
    ] {
        let (model, _) = model(&config, 3);
        for lengths in [&[21][..], &[64, 5], &[9, 70, 1, 33]] {
            let layout = BatchLayout::uncached(lengths);
            let ids = ids(&config, layout.tokens());
            let (mut found, mut expected) = (Trace::default(), Trace::default());
            let out = model.forward_training(&ids, &layout, TrainingOptions::default(), Some(&mut found)).unwrap();
            let mut cache = model.new_cache(0).unwrap();
            let new: Vec<_> = lengths.iter().map(|&tokens| (cache.create(), tokens)).collect();
            let cached = cache.append(&new).unwrap();
            let hidden = model.forward_batch(&ids, &cached, &mut cache, Some(&mut expected)).unwrap();
            let difference = largest(&(out.hidden - hidden).unwrap());
            assert!(difference <= HIDDEN_TOLERANCE, "{what}: {lengths:?}: {difference}");
            for (found, expected) in found.topk_indices.iter().zip(&expected.topk_indices) {
                let positions = |chosen: &Option<Tensor>| chosen.as_ref().map(|c| c.to_vec2::<i64>().unwrap());
                assert_eq!(positions(found), positions(expected), "{what}: {lengths:?}");
            }
        }
    }
}

pub fn largest(x: &Tensor) -> f32 {
    x.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The recorded losses: a layer's KL from the recorded target, over what its rows attend to, averaged over all rows.
#[test]
fn the_indexers_losses_have_the_recorded_gradients() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/v32_mtp_train");
    let load = |name: &str| candle_core::safetensors::load(dir.join(name), &Device::Cpu).unwrap();
    let golden = load("golden.safetensors");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let (config, varmap) = (checkpoint.config().clone(), VarMap::new());
    checkpoint.load_variables(&varmap, &LoadOptions::default(), |_| ()).unwrap();
    let model = Model::init(&config, &varmap, 0, DType::F32, &Device::Cpu).unwrap();
    let input = golden["input_ids"].to_dtype(DType::U32).unwrap();
    let (sequences, tokens) = input.dims2().unwrap();
    let layout = BatchLayout::uncached(&vec![tokens; sequences]);
    let ids: Vec<u32> = input.flatten_all().unwrap().to_vec1().unwrap();
    let named: HashMap<_, _> = variables(&varmap).into_iter().collect();
    for (case, dense_attention) in [("kl_dense", true), ("kl_sparse", false)] {
        let mut trace = Trace::default();
        let options = TrainingOptions { dense_attention, index_scores: true, ..TrainingOptions::default() };
        let out = model.forward_training(&ids, &layout, options, Some(&mut trace)).unwrap();
        let logits = model.logits(&out.hidden).unwrap();
        let expected = golden[&format!("{case}.logits")].flatten_to(1).unwrap();
        assert!(largest(&(logits - expected).unwrap()) <= 1e-4, "{case}: logits");
        for layer in 0..config.num_hidden_layers {
            let target = golden[&format!("{case}.layer{layer}.target_p")].flatten_to(1).unwrap();
            let attended = attended(trace.topk_indices[layer].as_ref().unwrap(), tokens);
            let kl = kl(out.index_scores[layer].as_ref().unwrap(), &target, &attended);
            let expected = golden[&format!("{case}.layer{layer}.kl")].flatten_all().unwrap();
            assert!(largest(&(&kl - expected).unwrap()) <= 1e-4, "{case}: KL of layer {layer}");
            let grads = kl.mean_all().unwrap().backward().unwrap();
            for parameter in ["wq_b.weight", "wk.weight", "k_norm.weight", "k_norm.bias", "weights_proj.weight"] {
                let variable = &named[&format!("model.layers.{layer}.self_attn.indexer.{parameter}")];
                let expected = &golden[&format!("{case}.layer{layer}.grad.{parameter}")];
                let difference = largest(&(grads.get(variable.as_tensor()).unwrap() - expected).unwrap());
                let size = largest(expected);
                assert!(
                    difference <= GOLDEN_TOLERANCE * size,
                    "{case}: layer {layer}: {parameter}: {difference} of {size}"
                );
            }
        }
    }
}

/// 1 where a row attends, `[T, tokens]` u8, from positions `[T, k]`.
fn attended(positions: &Tensor, tokens: usize) -> Tensor {
    let mut seen = vec![0u8; positions.dim(0).unwrap() * tokens];
    for (row, positions) in positions.to_vec2::<i64>().unwrap().into_iter().enumerate() {
        positions.into_iter().filter(|&p| p >= 0).for_each(|p| seen[row * tokens + p as usize] = 1);
    }
    Tensor::from_vec(seen, (positions.dim(0).unwrap(), tokens), &Device::Cpu).unwrap()
}

/// KL(target || softmax of the attended scores) of each row, `[T]`.
fn kl(scores: &Tensor, target: &Tensor, attended: &Tensor) -> Tensor {
    // A finite number in place of -inf: a target of 0 times it is 0.
    let hidden = Tensor::full(-1e30f32, scores.dims(), scores.device()).unwrap();
    let scores = attended.where_cond(scores, &hidden).unwrap();
    let log_q = candle_nn::ops::log_softmax(&scores, D::Minus1).unwrap();
    let log_p = target.maximum(1e-30f32).unwrap().log().unwrap();
    (target * (log_p - log_q).unwrap()).unwrap().sum(D::Minus1).unwrap()
}

#[test]
fn what_training_does_not_take_is_refused() {
    let config = small(tiny_config());
    let (model, varmap) = model(&config, 4);
    let refused = |layout: &BatchLayout, part: &str| {
        let run = model.forward_training(&ids(&config, layout.tokens()), layout, TrainingOptions::default(), None);
        let error = run.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let mut layout = BatchLayout::uncached(&[5]);
    layout.spans[0].start = 3;
    layout.spans[0].prefill = None;
    refused(&layout, "rows 0..5 start at position 3: without a cache all start at 0");
    let mut layout = BatchLayout::uncached(&[5]);
    layout.spans[0].block_table = vec![7];
    refused(&layout, "page 0 of span 0 reaches slot");
    let vb = candle_nn::VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu);
    let model = Model::with_options(&config, Precision::Fp8, vb).unwrap();
    let run = model.forward_training(&[1, 2], &BatchLayout::uncached(&[2]), TrainingOptions::default(), None);
    assert!(run.unwrap_err().to_string().starts_with("FP8 arithmetic has no gradient"));
}
