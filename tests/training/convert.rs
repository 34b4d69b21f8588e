//! A dense checkpoint becomes a sparse one: what is added, what stays, and that the indexers learn to choose.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::VarMap;
use deepseek_v32::config::{Config, ModelType};
use deepseek_v32::model::Model;
use deepseek_v32::training::{
    ConversionEvent, ConversionOptions, Example, IndexerShape, SparseReport, Stage, convert, measure_sparsity,
    with_indexers,
};
use deepseek_v32::weights::{self, Checkpoint};

use crate::checkpoint_writer::{tiny_config, tiny_v3_config};
use crate::support::{model, small, variables};

/// A model without variables takes other forms of some ops.
const LOAD_TOLERANCE: f64 = 1e-5;

const SHAPE: IndexerShape = IndexerShape { index_n_heads: 4, index_head_dim: 8, index_topk: 4 };

/// Sequences in which a token depends on some before it.
fn examples(count: u32) -> Vec<Example> {
    let sentence = |i: u32| Example::whole((0..24).map(|t| (i * 5 + t * (1 + i % 4) + t / 3) % 12).collect());
    (0..count).map(sentence).collect()
}

/// A dense checkpoint whose attention looks at some positions more than at others.
fn write_dense(dir: &Path) -> VarMap {
    let config = small(tiny_v3_config());
    let (_, varmap) = model(&config, 11);
    for (_, variable) in variables(&varmap).iter().filter(|(name, _)| name.ends_with("q_b_proj.weight")) {
        variable.set(&(variable.as_tensor().detach() * 6.0).unwrap()).unwrap();
    }
    weights::save_variables(dir, &config, &varmap, 1 << 30).unwrap();
    varmap
}

fn bits(varmap: &VarMap) -> BTreeMap<String, Vec<u32>> {
    let of = |variable: &candle_core::Var| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bits = |variable| of(variable).into_iter().map(f32::to_bits).collect();
    variables(varmap).iter().map(|(name, variable)| (name.clone(), bits(variable))).collect()
}

fn options(warm_up: u64, sparse: u64) -> ConversionOptions {
    let mut options = ConversionOptions::new(SHAPE, warm_up, sparse, 96);
    options.warm_up.trainer.schedule.learning_rate = 1e-2;
    options.sparse.trainer.schedule.learning_rate = 1e-3;
    options
}

#[test]
fn the_warm_up_moves_the_indexers_alone_and_the_recall_rises() {
    let dir = tempfile::tempdir().unwrap();
    let dense = bits(&write_dense(dir.path()));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut reports: Vec<(Option<Stage>, SparseReport)> = Vec::new();
    let mut steps = 0;
    let mut tell = |event| match event {
        ConversionEvent::Measured(stage, report) => reports.push((stage, report)),
        ConversionEvent::Step(stage, report) => {
            assert_eq!((stage, report.step, report.next_token), (Stage::IndexerWarmUp, steps, 0.0));
            steps += 1;
        }
    };
    let (all, held_out) = (examples(40), examples(8));
    let (converted, varmap) = convert(&checkpoint, &all, &held_out, &options(60, 0), &Device::Cpu, &mut tell).unwrap();
    assert_eq!(steps, 60);
    let [(None, before), (Some(Stage::IndexerWarmUp), after)] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!((before.recall.len(), after.recall.len()), (2, 2));
    assert!(after.mean_recall() > before.mean_recall() + 0.05, "{before:?} {after:?}");
    assert!(before.recall.iter().chain(&after.recall).all(|recall| (0.0..=1.0).contains(recall)));
    // Dense attention does without indexers.
    assert_eq!(before.dense_loss, after.dense_loss);
    assert!(before.sparse_loss != after.sparse_loss && after.gap() == after.sparse_loss - after.dense_loss);

    let all = bits(&varmap);
    let (indexers, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.into_iter().partition(|(name, _)| name.contains(".self_attn.indexer."));
    assert_eq!(rest, dense);
    assert_eq!(indexers.len(), 2 * 5);

    // The result is a checkpoint of its family, with the same numbers.
    let to = tempfile::tempdir().unwrap();
    weights::save_variables(to.path(), converted.config(), &varmap, 1 << 30).unwrap();
    let (config, vb) = weights::load(to.path(), &Default::default(), |_| ()).unwrap();
    assert_eq!(&config, converted.config());
    assert_eq!((config.model_type, config.index_topk), (ModelType::DeepseekV32, Some(4)));
    let read = Model::new(&config, vb).unwrap();
    let found = measure_sparsity(&read, &held_out, 96).unwrap();
    let numbers = |report: &SparseReport| [report.mean_recall(), report.dense_loss, report.sparse_loss];
    for (found, expected) in numbers(&found).into_iter().zip(numbers(after)) {
        assert!((found - expected).abs() <= LOAD_TOLERANCE * expected, "{found} {expected}");
    }
}

#[test]
fn the_sparse_stage_trains_everything() {
    let dir = tempfile::tempdir().unwrap();
    write_dense(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut reports = Vec::new();
    let mut tell = |event| match event {
        ConversionEvent::Measured(stage, report) => reports.push((stage, report)),
        ConversionEvent::Step(_, report) => assert!(report.indexer > 0.0),
    };
    let options = options(20, 30);
    let (_, varmap) = convert(&checkpoint, &examples(40), &examples(8), &options, &Device::Cpu, &mut tell).unwrap();
    let stages: Vec<_> = reports.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, [None, Some(Stage::IndexerWarmUp), Some(Stage::Sparse)]);
    assert!(reports[2].1.sparse_loss < reports[1].1.sparse_loss - 0.1, "{reports:?}");
    let (_, begin) = with_indexers(&checkpoint, &SHAPE, 0, &Device::Cpu).unwrap();
    let (begin, end) = (bits(&begin), bits(&varmap));
    for (name, values) in &end {
        assert!(name.ends_with(".e_score_correction_bias") || values != &begin[name], "{name} did not move");
    }
}

#[test]
fn new_indexers_have_the_size_of_their_inputs() {
    let dir = tempfile::tempdir().unwrap();
    write_dense(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let shape = IndexerShape { index_n_heads: 16, index_head_dim: 32, index_topk: 4 };
    let (first, varmap) = with_indexers(&checkpoint, &shape, 3, &Device::Cpu).unwrap();
    let (_, again) = with_indexers(&checkpoint, &shape, 3, &Device::Cpu).unwrap();
    assert_eq!(bits(&varmap), bits(&again));
    assert_eq!(first.config().initializer_range, checkpoint.config().initializer_range);
    for (name, variable) in variables(&varmap).iter().filter(|(name, _)| name.contains(".indexer.")) {
        assert_eq!(variable.dtype(), DType::F32);
        let values = crate::support::flat(variable);
        let square = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        let expected = match name {
            name if name.ends_with("k_norm.weight") => 1.0,
            name if name.ends_with("k_norm.bias") => 0.0,
            _ => 1.0 / variable.dims()[1] as f64,
        };
        assert!((square - expected).abs() <= 0.3 * expected, "{name}: {square} {expected}");
    }
}

#[test]
fn what_cannot_be_converted_is_said() {
    let dense = small(tiny_v3_config());
    let fails = |shape: IndexerShape, config: &Config, word: &str| {
        let error = shape.sparse_config(config).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    fails(SHAPE, &small(tiny_config()), "deepseek_v32");
    fails(SHAPE, &Config { q_lora_rank: None, ..dense.clone() }, "q_lora_rank");
    fails(IndexerShape { index_topk: 0, ..SHAPE }, &dense, "index_topk");
    fails(IndexerShape { index_head_dim: 2, ..SHAPE }, &dense, "index_head_dim");
    assert!(SHAPE.sparse_config(&dense).unwrap().has_indexer());

    let dir = tempfile::tempdir().unwrap();
    write_dense(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (model, _) = with_indexers(&checkpoint, &SHAPE, 0, &Device::Cpu).unwrap();
    let short = [Example::whole(vec![1, 2, 3])];
    let error = measure_sparsity(&model, &short, 96).unwrap_err().to_string();
    assert!(error.contains("index_topk = 4"), "{error}");
}
