//! Choices that are replayed: experts and positions of a rollout in the training pass.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarMap;
use deepseek_v32::config::Config;
use deepseek_v32::generation::{Engine, EngineOptions, LocalModel, RecordOptions, Request, Routes};
use deepseek_v32::model::{Model, Replay, Trace, TrainingOptions};
use deepseek_v32::ops::layout::BatchLayout;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checkpoint_writer::tiny_config;
use crate::training::{LENGTHS, check, ids, largest, model, model_loss, small, tiny_glm_config, variables};

/// Greatest difference of log-probabilities of a rollout and of the training pass that replays it.
const LOGPROB_TOLERANCE: f32 = 1e-5;

/// Experts for every MoE layer that have nothing to do with the router's, and for the MTP layer.
fn any_experts(config: &Config, rows: usize, seed: u64) -> Vec<Option<Tensor>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let k = config.num_experts_per_tok;
    (0..config.num_hidden_layers + config.num_nextn_predict_layers)
        .map(|layer| {
            let sparse = layer >= config.num_hidden_layers
                || config.mlp_layer_types[layer] == deepseek_v32::config::MlpType::Sparse;
            sparse.then(|| {
                let row = |_| sample(&mut rng, config.n_routed_experts, k).into_iter().map(|expert| expert as u32);
                let all: Vec<u32> = (0..rows).flat_map(row).collect();
                Tensor::from_vec(all, (rows, k), &Device::Cpu).unwrap()
            })
        })
        .collect()
}

/// Positions for every layer that have nothing to do with the indexer's, among them -1.
fn any_positions(config: &Config, layout: &BatchLayout, seed: u64) -> Vec<Option<Tensor>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let k = config.index_topk.unwrap();
    (0..config.num_hidden_layers + config.num_nextn_predict_layers)
        .map(|_| {
            let mut all = Vec::new();
            for position in layout.positions() {
                let seen = position as usize + 1;
                let count = rng.random_range(1..=k.min(seen));
                let row: Vec<i64> = sample(&mut rng, seen, count).into_iter().map(|p| p as i64).collect();
                all.extend(row.iter().copied().chain(std::iter::repeat_n(-1, k - count)));
            }
            Some(Tensor::from_vec(all, (layout.tokens(), k), &Device::Cpu).unwrap())
        })
        .collect()
}

fn rows_of(x: &Tensor) -> Vec<Vec<i64>> {
    x.to_dtype(DType::I64).unwrap().to_vec2().unwrap()
}

/// Ascending, without -1.
fn named(mut row: Vec<i64>) -> Vec<i64> {
    row.retain(|&x| x >= 0);
    row.sort_unstable();
    row
}

#[test]
fn what_is_replayed_is_used() {
    for (what, config) in [("v32", small(tiny_config())), ("glm", tiny_glm_config())] {
        let (model, _) = model(&config, 21);
        let layout = BatchLayout::uncached(&LENGTHS);
        let (experts, positions) = (any_experts(&config, 21, 1), any_positions(&config, &layout, 2));
        let replay = model.replay(&layout, &experts, &positions).unwrap();
        let mut trace = Trace::default();
        let options = TrainingOptions { replay: Some(&replay), ..TrainingOptions::default() };
        let hidden = model.forward_training(&ids(&config, 21), &layout, options, Some(&mut trace)).unwrap().hidden;
        if model.has_mtp() {
            model.forward_mtp_training(&ids(&config, 21), &hidden, &layout, options, Some(&mut trace)).unwrap();
        }
        assert_eq!(trace.expert_indices.len(), experts.len());
        for (layer, (found, expected)) in trace.expert_indices.iter().zip(&experts).enumerate() {
            assert_eq!(found.is_some(), expected.is_some(), "{what}: layer {layer}");
            let (Some(found), Some(expected)) = (found, expected) else { continue };
            let expected: Vec<_> = rows_of(expected).into_iter().map(named).collect();
            assert_eq!(rows_of(found), expected, "{what}: layer {layer}");
        }
        let topk = config.index_topk.unwrap();
        for (layer, (found, expected)) in trace.topk_indices.iter().zip(&positions).enumerate() {
            let rows = rows_of(found.as_ref().unwrap()).into_iter().zip(rows_of(expected.as_ref().unwrap()));
            for ((found, expected), position) in rows.zip(layout.positions()) {
                let all = (0..=i64::from(position)).collect();
                let expected = if (position as usize) < topk { all } else { named(expected) };
                assert_eq!(named(found), expected, "{what}: layer {layer}, position {position}");
            }
        }
        // What the model chooses itself is something else.
        let live = model.forward_training(&ids(&config, 21), &layout, TrainingOptions::default(), None).unwrap();
        assert!(largest(&(live.hidden - hidden).unwrap()) > 1e-2, "{what}");
    }
}

/// The gradients of a pass whose choices are not the model's, with and without checkpointing.
#[test]
fn gradients_with_replayed_choices() {
    for (what, config) in [("v32", small(tiny_config())), ("glm", tiny_glm_config())] {
        let (model, varmap) = model(&config, 22);
        let layout = BatchLayout::uncached(&LENGTHS);
        let replay = model.replay(&layout, &any_experts(&config, 21, 3), &any_positions(&config, &layout, 4)).unwrap();
        let learns = |name: &str| !name.contains(".indexer.") && !name.ends_with("e_score_correction_bias");
        for checkpointing in [false, true] {
            let options = TrainingOptions { checkpointing, replay: Some(&replay), ..TrainingOptions::default() };
            check(&format!("{what}, checkpointing: {checkpointing}"), &varmap, learns, || {
                model_loss(&model, &layout, options)
            });
        }
    }
}

/// All tokens are sent to two experts: the others learn nothing, and the router learns from these two, although it would
/// choose others.
#[test]
fn experts_that_are_not_replayed_learn_nothing() {
    let config = Config { num_nextn_predict_layers: 0, ..small(tiny_config()) };
    let (model, varmap) = model(&config, 23);
    let layout = BatchLayout::uncached(&LENGTHS);
    let pair = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap().broadcast_as((21, 2)).unwrap();
    let replay = model.replay(&layout, &[None, Some(pair)], &[]).unwrap();
    for checkpointing in [false, true] {
        let options = TrainingOptions { checkpointing, replay: Some(&replay), ..TrainingOptions::default() };
        let grads = model_loss(&model, &layout, options).0.backward().unwrap();
        for (name, variable) in variables(&varmap) {
            if !name.starts_with("model.layers.1.mlp.") || name.contains("shared") || name.contains("bias") {
                continue;
            }
            let grad = grads.get(&variable).unwrap_or_else(|| panic!("{name} has no gradient"));
            for expert in 0..4 {
                let size = largest(&grad.get(expert).unwrap());
                assert_eq!(size > 0.0, (1..=2).contains(&expert), "{name}, expert {expert}: {size}");
            }
        }
    }
}

/// The model's weights move away from those of the rollout: replayed choices bring the numbers back as far as the choices
/// are to blame, and all of them where only what chooses has moved.
#[test]
fn a_drifted_choice_is_repaired() {
    let config = small(tiny_config());
    let (model, varmap) = model(&config, 24);
    let layout = BatchLayout::uncached(&LENGTHS);
    let ids = ids(&config, layout.tokens());
    let run = |replay: Option<&Replay>, trace: Option<&mut Trace>| {
        let options = TrainingOptions { replay, ..TrainingOptions::default() };
        model.forward_training(&ids, &layout, options, trace).unwrap().hidden
    };
    let mut trace = Trace::default();
    let rollout = run(None, Some(&mut trace));
    let replay = model.replay(&layout, &trace.expert_indices, &trace.topk_indices).unwrap();
    assert_eq!(largest(&(run(Some(&replay), None) - &rollout).unwrap()), 0.0);
    // The router's bias and the indexers have a part in the choices alone.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (name, variable) in variables(&varmap) {
        if name.ends_with("e_score_correction_bias") || name.contains(".indexer.w") {
            let noise = (0..variable.elem_count()).map(|_| rng.random_range(-1f32..1.0)).collect();
            let noise = Tensor::from_vec::<_, f32>(noise, variable.dims(), &Device::Cpu).unwrap();
            variable.set(&(variable.as_tensor() + noise).unwrap()).unwrap();
        }
    }
    assert!(largest(&(run(None, None) - &rollout).unwrap()) > 1e-2);
    assert_eq!(largest(&(run(Some(&replay), None) - &rollout).unwrap()), 0.0);
    let positions_alone = model.replay(&layout, &[], &trace.topk_indices).unwrap();
    assert!(largest(&(run(Some(&positions_alone), None) - &rollout).unwrap()) > 1e-2);
}

/// Two turns of the engine, through its cache: their records, replayed in one batch, give the engine's log-probabilities.
#[test]
fn a_rollouts_log_probabilities_are_those_of_training() {
    let config = Config { num_nextn_predict_layers: 0, index_topk: Some(6), ..small(tiny_config()) };
    let (model, varmap) = model(&config, 25);
    let model = Arc::new(model);
    let mut engine = Engine::new(LocalModel::new(model.clone()).unwrap(), EngineOptions::default()).unwrap();
    let mut records = Vec::new();
    let mut prompt = vec![1, 7, 3];
    for turn in 0..3u64 {
        let mut request = Request::new(prompt.clone());
        request.max_tokens = Some(8);
        request.record = RecordOptions::ALL;
        request.params.temperature = 1.0;
        request.params.seed = Some(turn);
        let completion = engine.generate(request, |_| ()).unwrap();
        let record = completion.record.unwrap();
        // The next turn begins with this one and a tool's answer.
        prompt = [&record.prompt_ids[..], &record.generated_ids, &[4, 9]].concat();
        records.push(*record);
    }
    let rows: Vec<usize> = records.iter().map(|record| record.routes.as_ref().unwrap().rows()).collect();
    let tokens = |i: usize| [&records[i].prompt_ids[..], &records[i].generated_ids].concat();
    for (i, &rows) in rows.iter().enumerate() {
        assert_eq!(rows, tokens(i).len() - 1, "the last token is not fed back");
    }
    let layout = BatchLayout::uncached(&rows);
    let inputs: Vec<u32> = (0..3).flat_map(|i| tokens(i)[..rows[i]].to_vec()).collect();
    let routes: Vec<_> = records.iter().map(|record| record.routes.as_ref().unwrap()).collect();
    let replay = model.replay(&layout, &Routes::expert_indices(&routes, 2).unwrap(), &[]).unwrap();
    let error = Routes::expert_indices(&routes, 1).unwrap_err().to_string();
    assert!(error.contains("names layer 1, expected numbers below 1"), "{error}");
    let logprobs = |replay: Option<&Replay>| {
        let options = TrainingOptions { replay, ..TrainingOptions::default() };
        let hidden = model.forward_training(&inputs, &layout, options, None).unwrap().hidden;
        candle_nn::ops::log_softmax(&model.logits(&hidden).unwrap(), D::Minus1).unwrap().to_vec2::<f32>().unwrap()
    };
    let difference = |found: &[Vec<f32>]| {
        let mut most = 0f32;
        for (i, record) in records.iter().enumerate() {
            let first = layout.spans[i].tokens.start + record.prompt_ids.len() - 1;
            for (j, (&id, expected)) in record.generated_ids.iter().zip(record.logprobs.as_ref().unwrap()).enumerate() {
                most = most.max((found[first + j][id as usize] - expected).abs());
            }
        }
        most
    };
    let found = difference(&logprobs(Some(&replay)));
    assert!(found <= LOGPROB_TOLERANCE, "{found}");
    // The router's choice drifts; the replay does not.
    move_bias(&varmap);
    assert!(difference(&logprobs(None)) > 1e-2);
    let found = difference(&logprobs(Some(&replay)));
    assert!(found <= LOGPROB_TOLERANCE, "{found}");
}

fn move_bias(varmap: &VarMap) {
    for (name, variable) in variables(varmap) {
        if name.ends_with("e_score_correction_bias") {
            let order = Tensor::arange(0f32, variable.elem_count() as f32, &Device::Cpu).unwrap();
            variable.set(&order).unwrap();
        }
    }
}

#[test]
fn bad_records_are_refused() {
    let config = small(tiny_config());
    let (model, _) = model(&config, 26);
    let layout = BatchLayout::uncached(&[6]);
    let tensor = |rows: Vec<Vec<i64>>| Some(Tensor::new(rows, &Device::Cpu).unwrap());
    let good = || tensor(vec![vec![0, 1]; 6]);
    let positions = |last: Vec<i64>| {
        let mut rows: Vec<Vec<i64>> = (0..6).map(|p| vec![p, -1, -1, -1, -1]).collect();
        rows[5] = last;
        tensor(rows)
    };
    let refused = |model: &Model, experts: &[Option<Tensor>], positions: &[Option<Tensor>], expected: &str| {
        let error = model.replay(&layout, experts, positions).unwrap_err().to_string();
        assert_eq!(error, format!("replay: {expected}"));
    };
    assert!(model.replay(&layout, &[None, good()], &[None, positions(vec![0, 5, 3, -1, 1])]).is_ok());
    assert!(model.replay(&layout, &[None, good(), good()], &[]).is_ok());
    let layers = "expert_indices has 1 entries, expected 0, 2 or 3: one for each layer";
    refused(&model, &[None], &[], layers);
    refused(&model, &[good(), None], &[], "expert_indices of layer 0: the layer has no experts");
    let short = tensor(vec![vec![0, 1]; 5]);
    refused(&model, &[None, short], &[], "expert_indices of layer 1 is [5, 2], expected [6, 2]");
    let wide = tensor(vec![vec![0, 1, 2]; 6]);
    refused(&model, &[None, wide], &[], "expert_indices of layer 1 is [6, 3], expected [6, 2]");
    let beyond = tensor(vec![vec![0, 1], vec![4, 0], vec![0, 1], vec![0, 1], vec![0, 1], vec![0, 1]]);
    refused(&model, &[None, beyond], &[], "expert_indices of layer 1: row 1 names 4, expected 0 to 3");
    let below = tensor(vec![vec![0, 1], vec![-1, 0], vec![0, 1], vec![0, 1], vec![0, 1], vec![0, 1]]);
    refused(&model, &[None, below], &[], "expert_indices of layer 1: row 1 names -1, expected 0 to 3");
    let twice = tensor(vec![vec![3, 3]; 6]);
    refused(&model, &[None, twice], &[], "expert_indices of layer 1: row 0 names 3 twice");
    let floats = Some(Tensor::zeros((6, 2), DType::F32, &Device::Cpu).unwrap());
    refused(&model, &[None, floats], &[], "expert_indices of layer 1 is f32, expected an integer dtype");
    let late = positions(vec![0, 6, -1, -1, -1]);
    refused(&model, &[], &[None, late], "topk_indices of layer 1: row 5 names 6, expected 0 to 5");
    let negative = positions(vec![0, -2, -1, -1, -1]);
    refused(&model, &[], &[None, negative], "topk_indices of layer 1: row 5 names -2, expected 0 to 5");
    let none = positions(vec![-1; 5]);
    refused(&model, &[], &[None, none], "topk_indices of layer 1: row 5 names 0 positions, expected 1 to 4");
    let many = positions(vec![0, 1, 2, 3, 4]);
    refused(&model, &[], &[None, many], "topk_indices of layer 1: row 5 names 5 positions, expected 1 to 4");
    let twice = positions(vec![2, 0, 2, -1, -1]);
    refused(&model, &[], &[None, twice], "topk_indices of layer 1: row 5 names 2 twice");
    let dense = crate::training::model(&small(crate::checkpoint_writer::tiny_v3_config()), 1).0;
    refused(&dense, &[], &[None, positions(vec![0; 5])], "topk_indices of layer 1: the model has no indexer");

    let replay = model.replay(&layout, &[], &[None, positions(vec![0, 5, -1, -1, -1])]).unwrap();
    let run = |layout: &BatchLayout, options: TrainingOptions| {
        let options = TrainingOptions { replay: Some(&replay), ..options };
        model.forward_training(&ids(&config, layout.tokens()), layout, options, None).unwrap_err().to_string()
    };
    let error = run(&BatchLayout::uncached(&[5]), TrainingOptions::default());
    assert!(error.starts_with("the choices to replay are of a batch with another layout"), "{error}");
    let error = run(&layout, TrainingOptions { dense_attention: true, ..TrainingOptions::default() });
    assert!(error.starts_with("there are positions to replay, but with dense_attention none are chosen"), "{error}");
}
