//! Activation checkpointing, training in bf16, deep models, and that a new model learns.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap, loss};
use deepseek_v32::config::{Config, IndexerType, MlpType};
use deepseek_v32::model::{Model, Trace, TrainingOptions, backward};
use deepseek_v32::ops::layout::BatchLayout;

use crate::checkpoint_writer::{tiny_config, tiny_v3_config};
use crate::training::{
    LENGTHS, ids, index_loss, largest, model, model_loss, small, tiny_glm_config, variables, weighted,
};

/// Greatest difference of hidden states of a size of one that are computed in bf16, from those in f32.
const BF16_TOLERANCE: f32 = 0.1;

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Compares the gradients of two backward passes to the last bit: which variables have one, and what it is.
fn same_gradients(what: &str, varmap: &VarMap, found: &GradStore, expected: &GradStore) {
    let mut count = 0;
    for (name, variable) in variables(varmap) {
        match (found.get(&variable), expected.get(&variable)) {
            (Some(found), Some(expected)) => assert_eq!(bits(found), bits(expected), "{what}: {name}"),
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{what}: {name}"),
        }
        count += usize::from(expected.get(&variable).is_some());
    }
    assert!(count > 5, "{what}: {count} gradients");
}

#[test]
fn checkpointing_changes_no_bit() {
    let glm = tiny_glm_config();
    for (what, config) in [("v3", small(tiny_v3_config())), ("v32", small(tiny_config())), ("glm", glm)] {
        let (model, varmap) = model(&config, 11);
        let layout = BatchLayout::uncached(&LENGTHS);
        let plain = TrainingOptions::default();
        let checkpointing = TrainingOptions { checkpointing: true, ..plain };
        let [found, expected] = [checkpointing, plain].map(|options| model_loss(&model, &layout, options));
        assert_eq!(bits(&found.0), bits(&expected.0), "{what}");
        assert_eq!(found.1, expected.1, "{what}");
        let expected = expected.0.backward().unwrap();
        same_gradients(what, &varmap, &found.0.backward().unwrap(), &expected);
        // A second time, as an optimizer with a line search would.
        same_gradients(what, &varmap, &found.0.backward().unwrap(), &expected);
        if config.has_indexer() {
            let [found, expected] = [checkpointing, plain].map(|options| index_loss(&model, &layout, options).0);
            assert_eq!(bits(&found), bits(&expected), "{what}: scores");
            let [found, expected] = [found, expected].map(|loss| loss.backward().unwrap());
            same_gradients(&format!("{what}: scores"), &varmap, &found, &expected);
        }
    }
}

/// What the losses of indexers and routers are computed from, with and without checkpointing.
#[test]
fn checkpointing_changes_no_bit_of_what_other_losses_need() {
    let config = small(tiny_config());
    let (model, varmap) = model(&config, 12);
    let layout = BatchLayout::uncached(&LENGTHS);
    let ids = ids(&config, layout.tokens());
    let run = |checkpointing| {
        let options = TrainingOptions { checkpointing, indexer_inputs: true, ..TrainingOptions::default() };
        let out = model.forward_training(&ids, &layout, options, None).unwrap();
        let mut total = weighted(&out.hidden, 1);
        for inputs in out.indexer_inputs.iter().flatten() {
            for part in [&inputs.index_q, &inputs.index_k, &inputs.weights] {
                total = (total + weighted(part, 2)).unwrap();
            }
            assert!(!inputs.q.track_op() && !inputs.kv.track_op());
        }
        assert_eq!(out.router_logits.iter().flatten().count(), 1);
        for logits in out.router_logits.iter().flatten() {
            total = (total + weighted(logits, 3)).unwrap();
        }
        total
    };
    let [found, expected] = [true, false].map(run);
    assert_eq!(bits(&found), bits(&expected));
    same_gradients("other losses", &varmap, &found.backward().unwrap(), &expected.backward().unwrap());
}

/// Rounds the weights that bf16 training leaves in f32, so that a model of bf16 weights has the same ones.
fn round_the_exact(varmap: &VarMap) {
    for (name, variable) in variables(varmap) {
        if name.ends_with("gate.weight") || name.contains("weights_proj") || name.contains("embed_tokens") {
            let rounded = variable.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
            variable.set(&rounded).unwrap();
        }
    }
}

#[test]
fn bf16_activations_over_f32_variables() {
    let config = small(tiny_config());
    let (model, varmap) = model(&config, 13);
    round_the_exact(&varmap);
    let layout = BatchLayout::uncached(&LENGTHS);
    let ids = ids(&config, layout.tokens());
    let options = TrainingOptions { dtype: Some(DType::BF16), ..TrainingOptions::default() };
    let hidden = model.forward_training(&ids, &layout, options, None).unwrap().hidden;
    assert_eq!(hidden.dtype(), DType::BF16);
    let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();

    // The model that a checkpoint in bf16 would give.
    let tensors = variables(&varmap).into_iter().map(|(name, variable)| {
        let dtype = if variable.rank() == 1 { DType::F32 } else { DType::BF16 };
        let tensor = Var::from_tensor(&variable.detach().to_dtype(dtype).unwrap()).unwrap();
        (name, tensor.as_tensor().clone())
    });
    let vb = VarBuilder::from_tensors(tensors.collect(), DType::BF16, &Device::Cpu);
    let rounded = Model::new(&config, vb).unwrap();
    let expected = rounded.forward_training(&ids, &layout, TrainingOptions::default(), None).unwrap().hidden;
    assert_eq!(bits(&wide(&hidden)), bits(&wide(&expected)));

    // In f32 with the choices of bf16: others would be other functions.
    let mut trace = Trace::default();
    model.forward_training(&ids, &layout, options, Some(&mut trace)).unwrap();
    let replay = model.replay(&layout, &trace.expert_indices, &trace.topk_indices).unwrap();
    let exact = TrainingOptions { replay: Some(&replay), ..TrainingOptions::default() };
    let exact = model.forward_training(&ids, &layout, exact, None).unwrap().hidden;
    let difference = largest(&(wide(&hidden) - exact).unwrap());
    assert!(difference > 0.0 && difference < BF16_TOLERANCE, "{difference}");

    let [plain, again] = [false, true].map(|checkpointing| {
        let (loss, _) = model_loss(&model, &layout, TrainingOptions { checkpointing, ..options });
        assert_eq!(loss.dtype(), DType::F32);
        loss.backward().unwrap()
    });
    for (name, variable) in variables(&varmap) {
        assert_eq!(variable.dtype(), DType::F32);
        if let Some(grad) = plain.get(&variable) {
            assert_eq!(grad.dtype(), DType::F32, "{name}");
        }
    }
    same_gradients("bf16", &varmap, &again, &plain);
    let refused = TrainingOptions { dtype: Some(DType::U32), ..TrainingOptions::default() };
    let error = model.forward_training(&ids, &layout, refused, None).unwrap_err().to_string();
    assert!(error.contains("training computes in f32, bf16, f16 or f64, got u32"), "{error}");
}

/// A gradient in bf16 points where that in f32 does.
#[test]
fn bf16_gradients_point_where_f32_gradients_do() {
    let config = small(tiny_v3_config());
    let (model, varmap) = model(&config, 14);
    let layout = BatchLayout::uncached(&LENGTHS);
    let [half, exact] = [Some(DType::BF16), None].map(|dtype| {
        let options = TrainingOptions { dtype, ..TrainingOptions::default() };
        model_loss(&model, &layout, options).0.backward().unwrap()
    });
    let dot = |a: &Tensor, b: &Tensor| f64::from((a * b).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
    for (name, variable) in variables(&varmap) {
        let (Some(a), Some(b)) = (half.get(&variable), exact.get(&variable)) else { continue };
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine > 0.97, "{name}: cosine {cosine}");
    }
}

/// 100 layers on a thread with a stack of 512 KiB.
#[test]
fn deep_models_do_not_overflow_a_small_stack() {
    let layers = 100;
    let config = Config {
        num_hidden_layers: layers,
        indexer_types: vec![IndexerType::Full; layers],
        mlp_layer_types: (0..layers).map(|i| if i % 2 == 0 { MlpType::Dense } else { MlpType::Sparse }).collect(),
        ..small(tiny_config())
    };
    let run = move || {
        let varmap = VarMap::new();
        let model = Model::init(&config, &varmap, 1, DType::F32, &Device::Cpu).unwrap();
        let layout = BatchLayout::uncached(&[9]);
        let losses = [false, true].map(|checkpointing| {
            let options = TrainingOptions { checkpointing, ..TrainingOptions::default() };
            let out = model.forward_training(&ids(&config, 9), &layout, options, None).unwrap();
            weighted(&model.logits(&out.hidden).unwrap(), 1)
        });
        let [plain, again] = losses.map(|loss| backward(loss).unwrap());
        same_gradients("deep", &varmap, &again, &plain);
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap().join().unwrap();
}

/// A new model as the family starts it, on a sequence that repeats: each token follows from the one before.
#[test]
fn a_new_model_learns() {
    let config = Config { initializer_range: 0.006, ..small(tiny_config()) };
    let varmap = VarMap::new();
    let model = Model::init(&config, &varmap, 7, DType::F32, &Device::Cpu).unwrap();
    let params = ParamsAdamW { lr: 0.01, weight_decay: 0.0, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(varmap.all_vars(), params).unwrap();
    let layout = BatchLayout::uncached(&[16, 16]);
    let ids: Vec<u32> = (0..32u32).map(|i| (i * 5 + i / 16) % 12).collect();
    let next = Tensor::from_vec(ids.iter().map(|id| (id + 5) % 12).collect(), 32, &Device::Cpu).unwrap();
    let mut values = Vec::new();
    for step in 0..60 {
        // Half of the steps as a large model would take them.
        let options = TrainingOptions {
            checkpointing: step % 2 == 0,
            dtype: (step % 2 == 0).then_some(DType::BF16),
            ..TrainingOptions::default()
        };
        let out = model.forward_training(&ids, &layout, options, None).unwrap();
        let loss = loss::cross_entropy(&model.logits(&out.hidden).unwrap(), &next).unwrap();
        values.push(loss.to_scalar::<f32>().unwrap());
        optimizer.step(&backward(loss).unwrap()).unwrap();
    }
    assert!((values[0] - 12f32.ln()).abs() < 0.2, "a new model's loss is {}", values[0]);
    assert!(values[59] < 0.1, "the loss after 60 steps is {}, from {}", values[59], values[0]);
}
