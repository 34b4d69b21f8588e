//! The loss of a batch: recorded logits, and the same sum however a step is divided.

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use candle_nn::VarMap;
use deepseek_v32::config::Config;
use deepseek_v32::distributed::Threads;
use deepseek_v32::model::{Model, TrainingOptions};
use deepseek_v32::training::{
    Batch, BatchLoss, Denominators, Example, ExpertLoad, Gradients, Objective, Parameters, Stage, batch_loss,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checkpoint_writer::{tiny_config, tiny_v3_config};
use crate::indexer_model::golden;
use crate::support::{difference, flat, model, scalar, small};

/// Greatest relative difference of f32 sums in another order: losses, and a parameter's gradient.
const LOSS_TOLERANCE: f64 = 2e-6;
const GRADIENT_TOLERANCE: f64 = 2e-5;

/// Sequences of which some tokens are not learnt.
fn examples(config: &Config, lengths: &[usize]) -> Vec<Example> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut example = |&length: &usize| Example {
        ids: (0..length).map(|_| rng.random_range(0..config.vocab_size as u32)).collect(),
        learnt: (0..length).map(|_| rng.random_bool(0.7)).collect(),
    };
    lengths.iter().map(&mut example).collect()
}

/// Cross entropy of `ids` under rows of recorded logits, in f64: the mean over the rows that have a target.
fn cross_entropy(logits: &[f64], vocab_size: usize, targets: &[Option<u32>]) -> f64 {
    let rows: Vec<f64> = logits
        .chunks(vocab_size)
        .zip(targets)
        .filter_map(|(row, target)| Some((row.iter().map(|l| l.exp()).sum::<f64>()).ln() - row[(*target)? as usize]))
        .collect();
    rows.iter().sum::<f64>() / rows.len() as f64
}

#[test]
fn losses_of_recorded_logits() {
    let golden = golden();
    let vocab_size = golden.model.config().vocab_size;
    let ids = golden.ids.chunks(64);
    let batch = Batch::new(&ids.map(|ids| Example::whole(ids.to_vec())).collect::<Vec<_>>()).unwrap();
    let objective = Objective { stage: Stage::Sparse, mtp_weight: 0.3, ..Objective::default() };
    let denominators = Denominators::of(&batch);
    assert_eq!((denominators.next_token, denominators.mtp, denominators.mtp_rows), (126.0, 124.0, 126.0));
    let found = batch_loss(&golden.model, &batch, &objective, &denominators, TrainingOptions::default()).unwrap();
    let targets = batch.targets(1);
    let expected = cross_entropy(&flat(&golden.tensors["logits"]), vocab_size, &targets);
    assert!((found.next_token - expected).abs() <= 1e-5, "{} {expected}", found.next_token);
    // The recorded MTP logits have no row for the last token of a sequence.
    let mtp = flat(&golden.tensors["mtp.logits"]);
    let targets: Vec<_> = batch.targets(2).chunks(64).flat_map(|rows| rows[..63].to_vec()).collect();
    let expected = cross_entropy(&mtp, vocab_size, &targets);
    assert!((found.mtp - expected).abs() <= 1e-5, "{} {expected}", found.mtp);
    let kl: f64 = (0..2).map(|layer| flat(&golden.tensors[&format!("kl_sparse.layer{layer}.kl")])).map(mean).sum();
    assert!(found.indexer > kl, "the MTP layer's indexer adds to {kl}: {}", found.indexer);
    let total = found.next_token + 0.3 * found.mtp + found.indexer;
    assert!((scalar(&found.loss) - total).abs() <= 1e-5 * total);
    // The experts that were recorded.
    let mut load = ExpertLoad::default();
    let chosen = golden.tensors["layer1.expert_idx"].to_dtype(DType::U32).unwrap();
    load.add(1, &chosen, 16, &[true; 128]).unwrap();
    let chosen = golden.tensors["mtp.expert_idx"].to_dtype(DType::U32).unwrap();
    load.add(2, &chosen, 16, &[true; 126]).unwrap();
    assert_eq!(found.load, load);
    let warm_up = Objective { stage: Stage::IndexerWarmUp, ..objective };
    let found = batch_loss(&golden.model, &batch, &warm_up, &denominators, TrainingOptions::default()).unwrap();
    assert_eq!((found.next_token, found.mtp), (0.0, 0.0));
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What a step gives: losses, load, and gradients by name.
struct Step {
    parts: [f64; 5],
    load: ExpertLoad,
    gradients: Gradients,
}

/// The step over `batches`, which are parts of one step.
fn step(
    model: &Model,
    parameters: &Parameters,
    batches: &[Batch],
    objective: &Objective,
    denominators: Denominators,
) -> Step {
    let mut step = Step { parts: [0.0; 5], load: ExpertLoad::default(), gradients: Gradients::default() };
    for batch in batches {
        let BatchLoss { loss, next_token, mtp, indexer, balance, load } =
            batch_loss(model, batch, objective, &denominators, TrainingOptions::default()).unwrap();
        let parts = [scalar(&loss), next_token, mtp, indexer, balance];
        step.parts.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        step.load.merge(&load).unwrap();
        step.gradients.add(Gradients::of(&loss.backward().unwrap(), parameters).unwrap()).unwrap();
    }
    step
}

fn batches(examples: &[Example], sizes: &[usize]) -> Vec<Batch> {
    let mut examples = examples;
    let mut next = |&size: &usize| {
        let (first, rest) = examples.split_at(size);
        examples = rest;
        Batch::new(first).unwrap()
    };
    sizes.iter().map(&mut next).collect()
}

fn same(what: &str, found: &Step, expected: &Step) {
    for (found, expected) in found.parts.iter().zip(expected.parts) {
        assert!((found - expected).abs() <= LOSS_TOLERANCE * expected.abs().max(1.0), "{what}: {found}, {expected}");
    }
    assert_eq!(found.load, expected.load, "{what}");
    let of = |step: &Step| -> BTreeMap<String, Vec<f64>> {
        step.gradients.iter().map(|(name, tensor)| (name.to_string(), flat(tensor))).collect()
    };
    let (found, expected) = (of(found), of(expected));
    assert!(found.keys().eq(expected.keys()), "{what}");
    for (name, expected) in &expected {
        let differ = difference(&found[name], expected, 1e-3);
        assert!(differ <= GRADIENT_TOLERANCE, "{what}: {name}: {differ}");
    }
}

fn objectives(config: &Config) -> Vec<Objective> {
    let objective = Objective { mtp_weight: 0.3, indexer_weight: 0.7, balance_weight: 0.1, ..Objective::default() };
    let stages: &[Stage] =
        if config.has_indexer() { &[Stage::Language, Stage::IndexerWarmUp, Stage::Sparse] } else { &[Stage::Language] };
    stages.iter().map(|&stage| Objective { stage, ..objective }).collect()
}

/// Packed sequences are those sequences alone; micro-batches add up to the whole step.
#[test]
fn a_step_does_not_depend_on_how_it_is_divided() {
    for (what, config) in [("v3", small(tiny_v3_config())), ("v32", small(tiny_config()))] {
        let (model, varmap) = model(&config, 11);
        let examples = examples(&config, &[5, 70, 9, 2, 33]);
        for objective in objectives(&config) {
            let parameters = Parameters::of(&varmap, |name| objective.stage.learns(name));
            let denominators = Denominators::of(&Batch::new(&examples).unwrap());
            let run = |sizes: &[usize]| {
                let batches = batches(&examples, sizes);
                assert_eq!(batches.iter().map(Denominators::of).sum::<Denominators>(), denominators);
                step(&model, &parameters, &batches, &objective, denominators)
            };
            let whole = run(&[5]);
            // Every parameter of the stage learns.
            assert_eq!(whole.gradients.iter().count(), parameters.len(), "{what} {:?}", objective.stage);
            assert!(whole.gradients.norm().unwrap() > 1e-3);
            for sizes in [&[1, 1, 1, 1, 1][..], &[2, 3], &[4, 1]] {
                same(&format!("{what} {:?} {sizes:?}", objective.stage), &run(sizes), &whole);
            }
        }
    }
}

/// Two ranks, each with a part of the step, have the gradients of the whole.
#[test]
fn ranks_add_up_to_the_step() {
    let config = small(tiny_config());
    let objective = Objective { stage: Stage::Sparse, ..Objective::default() };
    let examples = examples(&config, &[5, 40, 9, 2]);
    let run = move |rank: Option<&Threads>| {
        let (model, varmap) = model(&config, 12);
        let parameters = Parameters::of(&varmap, |name| objective.stage.learns(name));
        use deepseek_v32::distributed::Communicator;
        let own: Vec<Batch> = match rank {
            None => batches(&examples, &[4]),
            Some(rank) => vec![batches(&examples, &[1, 3]).swap_remove(rank.rank())],
        };
        let denominators: Denominators = own.iter().map(Denominators::of).sum();
        let denominators = match rank {
            None => denominators,
            Some(rank) => denominators.all_reduce(rank).unwrap(),
        };
        let mut step = step(&model, &parameters, &own, &objective, denominators);
        if let Some(rank) = rank {
            step.gradients.all_reduce(rank, &parameters).unwrap();
            step.load.all_reduce(rank).unwrap();
            step.parts = rank.all_reduce_numbers(&step.parts).unwrap().try_into().unwrap();
        }
        step
    };
    let whole = run(None);
    let threads = Threads::new(2).into_iter().map(|rank| {
        let run = run.clone();
        std::thread::spawn(move || run(Some(&rank)))
    });
    for thread in threads.collect::<Vec<_>>() {
        same("ranks", &thread.join().unwrap(), &whole);
    }
}

#[test]
fn gradients_are_clipped_by_their_common_norm() {
    let config = small(tiny_v3_config());
    let (model, varmap) = model(&config, 13);
    let parameters = Parameters::of(&varmap, |name| Stage::Language.learns(name));
    let batch = batches(&examples(&config, &[9]), &[1]);
    let objective = Objective::default();
    let found = step(&model, &parameters, &batch, &objective, Denominators::of(&batch[0]));
    let all: Vec<f64> = found.gradients.iter().flat_map(|(_, tensor)| flat(tensor)).collect();
    let norm = all.iter().map(|g| g * g).sum::<f64>().sqrt();
    for (limit, factor) in [(norm * 2.0, 1.0), (norm / 4.0, 0.25)] {
        let mut gradients = found.gradients.clone();
        let before = gradients.clip(limit).unwrap();
        assert!((before - norm).abs() <= 1e-5 * norm);
        let clipped: Vec<f64> = gradients.iter().flat_map(|(_, tensor)| flat(tensor)).collect();
        let expected: Vec<f64> = all.iter().map(|g| g * factor).collect();
        assert!(difference(&clipped, &expected, 0.0) <= 1e-5);
    }
    let error = found.gradients.clone().clip(0.0).unwrap_err().to_string();
    assert_eq!(error, "max_norm is 0, expected more than 0");
    let name = "model.norm.weight";
    let poison = candle_core::Tensor::full(f32::NAN, parameters.get(name).unwrap().dims(), &Device::Cpu).unwrap();
    let loss = (parameters.get(name).unwrap().as_tensor() * poison).unwrap().sum_all().unwrap();
    let gradients = Gradients::of(&loss.backward().unwrap(), &parameters).unwrap();
    assert_eq!(gradients.norm().unwrap_err().to_string(), format!("the gradient of {name} is not finite"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = small(tiny_v3_config());
    let (model, _): (Model, VarMap) = model(&config, 14);
    let batch = &batches(&examples(&config, &[9]), &[1])[0];
    let denominators = Denominators::of(batch);
    let refused = |objective: Objective, denominators: Denominators, expected: &str| {
        assert_eq!(
            batch_loss(&model, batch, &objective, &denominators, TrainingOptions::default()).unwrap_err().to_string(),
            expected
        );
    };
    let objective = Objective::default();
    refused(Objective { mtp_weight: -1.0, ..objective }, denominators, "mtp_weight is -1, expected at least 0");
    let sparse = Objective { stage: Stage::Sparse, ..objective };
    refused(sparse, denominators, "stage is Sparse, expected language: the model has no indexer");
    let none = Denominators::default();
    let counted = denominators.next_token;
    refused(objective, none, &format!("denominators.next_token is 0, expected at least {counted}"));
    assert_eq!(
        Batch::new(&[Example::default()]).unwrap_err().to_string(),
        "example 0 is empty, expected at least one id"
    );
    let uneven = Example { ids: vec![1, 2], learnt: vec![true] };
    assert_eq!(Batch::new(&[uneven]).unwrap_err().to_string(), "learnt: 1 of them, expected 2");
}

#[test]
fn targets_stay_within_their_sequence() {
    let marks = |bits: &[u8]| bits.iter().map(|&bit| bit == 1).collect::<Vec<_>>();
    let first = Example { ids: vec![1, 2, 3, 4], learnt: marks(&[1, 0, 1, 1]) };
    let second = Example { ids: vec![5, 6], learnt: marks(&[1, 1]) };
    assert_eq!((first.counted(), second.counted()), (2, 1));
    let batch = Batch::new([&first, &second]).unwrap();
    assert_eq!(batch.targets(1), [None, Some(3), Some(4), None, Some(6), None]);
    assert_eq!(batch.targets(2), [Some(3), Some(4), None, None, None, None]);
    assert_eq!(batch.next_ids(), [2, 3, 4, 0, 6, 0]);
    assert_eq!(batch.has_next(), marks(&[1, 1, 1, 0, 1, 0]));
    let expected = Denominators { next_token: 3.0, mtp: 2.0, rows: 6.0, mtp_rows: 4.0 };
    assert_eq!(Denominators::of(&batch), expected);
}
