//! The indexer's loss through the model: recorded losses and gradients, and who learns from what.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use deepseek_v32::model::{Model, TrainingOptions};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::training::{IndexTarget, IndexerBatch, IndexerLoss, indexer_loss, indexer_loss_with};
use deepseek_v32::weights::{Checkpoint, LoadOptions};

use crate::checkpoint_writer::tiny_config;
use crate::support::{difference, flat, model, small, variables};

/// Greatest difference from recorded values (f64, rounded) relative to the largest: divergences and gradients.
const KL_TOLERANCE: f64 = 2e-5;
const GRADIENT_TOLERANCE: f64 = 1e-4;

/// A checkpoint with recorded values.
pub struct Golden {
    pub tensors: HashMap<String, Tensor>,
    pub model: Model,
    pub varmap: VarMap,
    pub ids: Vec<u32>,
    pub layout: BatchLayout,
}

pub fn golden() -> Golden {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/v32_mtp_train");
    let tensors = candle_core::safetensors::load(dir.join("golden.safetensors"), &Device::Cpu).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let varmap = VarMap::new();
    checkpoint.load_variables(&varmap, &LoadOptions::default(), |_| ()).unwrap();
    let model = Model::init(checkpoint.config(), &varmap, 0, DType::F32, &Device::Cpu).unwrap();
    let input = tensors["input_ids"].to_dtype(DType::U32).unwrap();
    let (sequences, tokens) = input.dims2().unwrap();
    let ids = input.flatten_all().unwrap().to_vec1().unwrap();
    let layout = BatchLayout::uncached(&vec![tokens; sequences]);
    Golden { tensors, model, varmap, ids, layout }
}

#[test]
fn recorded_losses_and_gradients() {
    let Golden { tensors, model, varmap, ids, layout } = golden();
    let rows = layout.tokens();
    for (case, dense_attention) in [("kl_dense", true), ("kl_sparse", false)] {
        let options = TrainingOptions { dense_attention, indexer_inputs: true, ..TrainingOptions::default() };
        let output = model.forward_training(&ids, &layout, options, None).unwrap();
        for (layer, inputs) in output.indexer_inputs.iter().enumerate() {
            let at = |name: &str| &tensors[&format!("{case}.layer{layer}.{name}")];
            let batch = IndexerBatch::of_layer(inputs.as_ref().unwrap(), &layout, model.config().index_topk).unwrap();
            // The target, position by position: sequences of 64 tokens have slots equal to rows.
            let recorded = flat(at("target_p"));
            let mut largest = 0f64;
            let found = indexer_loss_with(&batch, &vec![1.0 / rows as f64; rows], |block| {
                let (slots, target) = (block.slots.to_vec2::<i64>()?, block.target.to_vec2::<f32>()?);
                for (i, row) in block.rows.clone().enumerate() {
                    let slots = &slots[i.min(slots.len() - 1)];
                    for (&slot, &p) in slots.iter().zip(&target[i]).filter(|(slot, _)| **slot >= 0) {
                        let expected = recorded[row * 64 + slot as usize % 64];
                        largest = largest.max((f64::from(p) - expected).abs());
                    }
                }
                Ok(())
            })
            .unwrap();
            assert!(largest <= 1e-5, "{case}: target of layer {layer}: {largest}");
            let differ = difference(&found.kl, &flat(at("kl")), 0.0);
            assert!(differ <= KL_TOLERANCE, "{case}: KL of layer {layer}: {differ}");
            check_gradients(&found, &varmap, layer, &tensors, case);
            // From the recorded target.
            let mass = flat(at("target_p"));
            let mut by_slot = vec![0.0; rows * rows];
            for row in 0..rows {
                let first = row / 64 * 64;
                by_slot[row * rows + first..][..64].copy_from_slice(&mass[row * 64..][..64]);
            }
            let mass = Tensor::from_vec(by_slot, (rows, rows), &Device::Cpu).unwrap();
            let batch = IndexerBatch { target: IndexTarget::Mass(&mass), ..batch };
            let found = indexer_loss(&batch, &vec![1.0 / rows as f64; rows]).unwrap();
            check_gradients(&found, &varmap, layer, &tensors, case);
        }
    }
}

/// The gradients of one layer's indexer are the recorded ones, and nothing else has any.
fn check_gradients(found: &IndexerLoss, varmap: &VarMap, layer: usize, tensors: &HashMap<String, Tensor>, case: &str) {
    let grads = found.loss.backward().unwrap();
    let prefix = format!("model.layers.{layer}.self_attn.indexer.");
    let mut compared = 0;
    for (name, variable) in variables(varmap) {
        let grad = grads.get(&variable);
        let Some(parameter) = name.strip_prefix(&prefix) else {
            assert!(grad.is_none(), "{case}: {name} has a gradient");
            continue;
        };
        let expected = flat(&tensors[&format!("{case}.layer{layer}.grad.{parameter}")]);
        let differ = difference(&flat(grad.unwrap()), &expected, 0.0);
        assert!(differ <= GRADIENT_TOLERANCE, "{case}: {name}: {differ}");
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// A10: the language loss has no gradient for indexers, the indexers' loss none for anything else; the MTP layer's
/// indexer learns, too.
#[test]
fn each_loss_reaches_its_own_parameters() {
    let config = small(tiny_config());
    assert!(config.num_nextn_predict_layers == 1 && config.index_topk == Some(4));
    let (model, varmap) = model(&config, 5);
    let layout = BatchLayout::uncached(&[9, 70, 2]);
    let ids: Vec<u32> = (0..layout.tokens()).map(|i| ((i * 7 + i / 3) % config.vocab_size) as u32).collect();
    for dense_attention in [false, true] {
        let options = TrainingOptions { dense_attention, indexer_inputs: true, ..TrainingOptions::default() };
        let output = model.forward_training(&ids, &layout, options, None).unwrap();
        let mtp = model.forward_mtp_training(&ids, &output.hidden, &layout, options, None).unwrap();
        let inputs: Vec<_> = output.indexer_inputs.iter().chain(&mtp.indexer_inputs).flatten().collect();
        assert_eq!(inputs.len(), config.num_hidden_layers + 1);
        let loss = |inputs| {
            let batch = IndexerBatch::of_layer(inputs, &layout, config.index_topk).unwrap();
            indexer_loss(&batch, &vec![1.0; layout.tokens()]).unwrap().loss
        };
        let total = inputs.into_iter().map(loss).reduce(|sum, loss| (sum + loss).unwrap()).unwrap();
        let language = (model.logits(&output.hidden).unwrap().sqr().unwrap().sum_all().unwrap()
            + model.mtp_logits(&mtp.hidden).unwrap().sqr().unwrap().sum_all().unwrap())
        .unwrap();
        let (of_index, of_language) = (total.backward().unwrap(), language.backward().unwrap());
        let size = |grad: Option<&Tensor>| grad.map(|grad| flat(grad).iter().map(|g| g.abs()).sum::<f64>());
        for (name, variable) in variables(&varmap) {
            let (index, language) = (size(of_index.get(&variable)), size(of_language.get(&variable)));
            if name.contains(".indexer.") {
                assert!(index.unwrap() > 1e-3 && language.is_none(), "{name}: {index:?}, {language:?}");
            } else {
                assert!(index.is_none(), "{name}: {index:?}");
                // The selection bias has none at all.
                assert_eq!(language.is_some_and(|size| size > 1e-3), !name.ends_with("correction_bias"), "{name}");
            }
        }
    }
}
