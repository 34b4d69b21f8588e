//! The training loop: it learns, goes on after a kill with the same bits, and stops where numbers end.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use deepseek_v32::config::Config;
use deepseek_v32::distributed::{SingleRank, Threads};
use deepseek_v32::model::Model;
use deepseek_v32::training::{
    ComputeDtype, EventFile, Example, MetricsFile, MuonOptions, Objective, OptimizerOptions, Stage, StepReport,
    Trainer, TrainerOptions, TrainingError, latest_checkpoint,
};

use crate::checkpoint_writer::tiny_config;
use crate::support::{difference, flat, small, variables};

/// Two ranks add up the same gradients in another order than one.
const RANK_TOLERANCE: f64 = 1e-4;
/// The loss of a new model in bf16, relative.
const BF16_TOLERANCE: f64 = 1e-2;

fn config() -> Config {
    small(tiny_config())
}

/// Sentences in which each token is the one before plus a stride.
fn examples(count: u32) -> Vec<Example> {
    let sentence = |i: u32| Example::whole((0..9 + i % 3).map(|t| (i + t * (1 + i % 2)) % 12).collect());
    (0..count).map(sentence).collect()
}

fn options() -> TrainerOptions {
    let mut options = TrainerOptions::new(4e-3, 24);
    options.batches_per_step = 2;
    options.objective = Objective { stage: Stage::Sparse, ..Objective::default() };
    options
}

fn trainer_of(options: TrainerOptions, seed: u64) -> Trainer {
    let varmap = VarMap::new();
    let model = Model::init(&config(), &varmap, seed, DType::F32, &Device::Cpu).unwrap();
    Trainer::new(model, varmap, examples(30), options, Box::new(SingleRank)).unwrap()
}

/// The report without what a clock says.
fn timeless(report: StepReport) -> StepReport {
    StepReport { seconds: 0.0, ..report }
}

fn take(trainer: &mut Trainer, steps: usize) {
    (0..steps).for_each(|_| assert!(trainer.step().is_ok()));
}

fn bits(trainer: &Trainer) -> Vec<(String, Vec<u32>)> {
    let of = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let all = variables(trainer.varmap()).into_iter();
    all.map(|(name, variable)| (name, of(&variable).into_iter().map(f32::to_bits).collect())).collect()
}

#[test]
fn the_loss_falls_and_the_indexers_learn() {
    let mut trainer = trainer_of(options(), 1);
    let before = trainer.evaluate(&examples(6)).unwrap();
    let first = trainer.step().unwrap();
    assert!((first.next_token - 12f64.ln()).abs() < 0.3, "{first:?}");
    assert!(first.mtp > 0.0 && first.indexer > 0.0 && first.gradient_norm > 0.0 && first.max_violation >= 0.0);
    let reports: Vec<StepReport> = (1..60).map(|_| trainer.step().unwrap()).collect();
    let last = reports.last().unwrap();
    assert!(last.next_token < 0.5 * first.next_token, "{first:?} {last:?}");
    assert!(reports.windows(2).all(|pair| pair[1].step == pair[0].step + 1));
    assert!(last.epoch > 0 && trainer.steps() == 60);
    let after = trainer.evaluate(&examples(6)).unwrap();
    assert!(after < 0.5 * before, "{before} {after}");
}

#[test]
fn checkpointing_trains_with_the_same_bits() {
    for stage in [Stage::Language, Stage::IndexerWarmUp, Stage::Sparse] {
        let train = |checkpointing| {
            let objective = Objective { stage, balance_weight: 1e-3, ..Objective::default() };
            let mut trainer = trainer_of(TrainerOptions { objective, checkpointing, ..options() }, 9);
            let reports: Vec<_> = (0..4).map(|_| timeless(trainer.step().unwrap())).collect();
            let loss = trainer.evaluate(&examples(5)).unwrap();
            (reports, loss.to_bits(), bits(&trainer))
        };
        // The reports have losses and the gradient's norm, the weights what the optimizer made of each gradient.
        assert_eq!(train(false), train(true), "{stage:?}");
    }
}

#[test]
fn bf16_computes_over_weights_in_f32() {
    let train = |dtype| {
        let mut trainer = trainer_of(TrainerOptions { dtype, checkpointing: true, ..options() }, 10);
        let reports: Vec<_> = (0..40).map(|_| trainer.step().unwrap()).collect();
        assert!(variables(trainer.varmap()).iter().all(|(_, variable)| variable.dtype() == DType::F32));
        (reports[0].next_token, reports[39].next_token)
    };
    let (exact, rounded) = (train(None), train(Some(ComputeDtype::Bf16)));
    assert_eq!(train(Some(ComputeDtype::F32)), exact);
    assert!(exact.0 != rounded.0 && (exact.0 - rounded.0).abs() < BF16_TOLERANCE * exact.0, "{exact:?} {rounded:?}");
    assert!(rounded.1 < 0.6 * rounded.0, "{rounded:?}");
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_went_on() {
    let muon = OptimizerOptions::Muon(MuonOptions::default());
    for options in [options(), TrainerOptions { optimizer: muon, ..options() }] {
        let dir = tempfile::tempdir().unwrap();
        let mut whole = trainer_of(options.clone(), 2);
        take(&mut whole, 3);
        assert_eq!(latest_checkpoint(dir.path()).unwrap(), None);
        let saved = whole.save(dir.path(), 1).unwrap();
        assert_eq!(latest_checkpoint(dir.path()).unwrap().as_deref(), Some(saved.as_path()));
        // A run that is killed later than that.
        whole.step().unwrap();
        let reports: Vec<_> = (0..3).map(|_| timeless(whole.step().unwrap())).collect();

        // Another beginning: all that counts must come from the files.
        let mut resumed = trainer_of(options.clone(), 3);
        resumed.resume(&saved).unwrap();
        assert_eq!(resumed.steps(), 3);
        resumed.step().unwrap();
        assert_eq!((0..3).map(|_| timeless(resumed.step().unwrap())).collect::<Vec<_>>(), reports);
        assert_eq!(bits(&resumed), bits(&whole));

        // The checkpoint is one of Hugging Face's format.
        let (read, vb) = deepseek_v32::weights::load(&saved, &Default::default(), |_| ()).unwrap();
        assert_eq!(read, config());
        Model::new(&read, vb).unwrap();
    }
}

#[test]
fn old_and_unfinished_checkpoints_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = trainer_of(options(), 4);
    for _ in 0..4 {
        trainer.step().unwrap();
        trainer.save(dir.path(), 2).unwrap();
        trainer.save(dir.path(), 2).unwrap();
    }
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-00000003", "step-00000004"]);
    // Of a run that was killed while it wrote.
    fs::create_dir(dir.path().join(".step-00000009.1.tmp")).unwrap();
    fs::create_dir(dir.path().join("step-00000008")).unwrap();
    assert_eq!(latest_checkpoint(dir.path()).unwrap(), Some(dir.path().join("step-00000004")));
    assert_eq!(latest_checkpoint(dir.path().join("nowhere")).unwrap(), None);
}

#[test]
fn what_cannot_be_resumed_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let saved = trainer_of(options(), 5).save(dir.path(), 1).unwrap();
    let fails = |options: TrainerOptions, words: &[&str]| {
        let error = trainer_of(options, 5).resume(&saved).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let muon = OptimizerOptions::Muon(MuonOptions::default());
    fails(TrainerOptions { optimizer: muon, ..options() }, &["state.json", "optimizer"]);
    fails(TrainerOptions { batches_per_step: 3, ..options() }, &["batches_per_step"]);
    let mut packed = options();
    packed.packing.seed = 7;
    fails(packed, &["packing"]);
    let mut warm_up = options();
    warm_up.objective.stage = Stage::IndexerWarmUp;
    fails(warm_up, &["objective.stage"]);

    let (state, optimizer) = (saved.join("state.json"), saved.join("optimizer.safetensors"));
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"schema_version\": 1", "\"schema_version\": 2")).unwrap();
    fails(options(), &["state.json", "schema_version is 2"]);
    fs::write(&state, text.replace("\"epoch\": 0", "\"epoch\": 0, \"month\": 3")).unwrap();
    fails(options(), &["state.json", "month"]);
    fs::write(&state, text.replace("\"batch\": 0", "\"batch\": 5000")).unwrap();
    fails(options(), &["position.batch"]);
    fs::write(&state, &text).unwrap();
    let tensors = fs::read(&optimizer).unwrap();
    fs::write(&optimizer, &tensors[..tensors.len() - 4]).unwrap();
    fails(options(), &["optimizer.safetensors"]);
    fs::remove_file(&state).unwrap();
    fails(options(), &["state.json"]);
}

#[test]
fn numbers_that_end_stop_the_run_before_they_spread() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = trainer_of(options(), 6);
    trainer.step().unwrap();
    let name = "lm_head.weight";
    let variable = |trainer: &Trainer| variables(trainer.varmap()).into_iter().find(|(own, _)| own == name).unwrap().1;
    let whole = variable(&trainer).as_tensor().copy().unwrap();
    // Finite weights whose products are not.
    variable(&trainer).set(&(whole.ones_like().unwrap() * 3e38).unwrap()).unwrap();
    let before = bits(&trainer);
    assert!(trainer.step().is_err());
    assert_eq!((bits(&trainer), trainer.steps()), (before, 1));
    // The state can be saved, and the same step taken again from it.
    let saved = trainer.save(dir.path(), 1).unwrap();
    variable(&trainer).set(&whole).unwrap();
    let report = timeless(trainer.step().unwrap());
    let mut again = trainer_of(options(), 6);
    again.resume(&saved).unwrap();
    variable(&again).set(&whole).unwrap();
    assert_eq!(timeless(again.step().unwrap()), report);

    // A weight that is not finite itself is named.
    variable(&trainer).set(&(&whole * f64::INFINITY).unwrap()).unwrap();
    let error = trainer.step().unwrap_err();
    assert!(matches!(error, TrainingError::NotFinite { .. }) && error.to_string().contains(name), "{error}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = trainer_of(options(), 7);
    let saved = trainer.save(dir.path(), 1).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = trainer.save(&file, 1).unwrap_err();
    assert!(matches!(error, TrainingError::Write { .. }) && error.to_string().contains("file"), "{error}");
    assert_eq!(latest_checkpoint(dir.path()).unwrap(), Some(saved));
}

#[test]
fn ranks_take_the_step_of_one() {
    let mut alone = trainer_of(options(), 8);
    take(&mut alone, 3);
    let report = alone.step().unwrap();
    let train = |rank: Threads| {
        let varmap = VarMap::new();
        let model = Model::init(&config(), &varmap, 8, DType::F32, &Device::Cpu).unwrap();
        let mut trainer = Trainer::new(model, varmap, examples(30), options(), Box::new(rank)).unwrap();
        take(&mut trainer, 3);
        let report = trainer.step().unwrap();
        (report, variables(trainer.varmap()).into_iter().map(|(_, variable)| flat(&variable)).collect::<Vec<_>>())
    };
    let ranks: Vec<_> = Threads::new(2).into_iter().map(|rank| std::thread::spawn(move || train(rank))).collect();
    let ranks: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
    assert_eq!(ranks[0].1, ranks[1].1);
    assert_eq!((ranks[0].0.tokens, ranks[0].0.step), (report.tokens, report.step));
    assert!((ranks[0].0.next_token - report.next_token).abs() < RANK_TOLERANCE);
    for ((_, variable), found) in variables(alone.varmap()).iter().zip(&ranks[0].1) {
        assert!(difference(found, &flat(variable), 1e-2) < 30.0 * RANK_TOLERANCE);
    }
    let two = Threads::new(2).remove(0);
    let varmap = VarMap::new();
    let model = Model::init(&config(), &varmap, 8, DType::F32, &Device::Cpu).unwrap();
    let error = Trainer::new(model, varmap, examples(3), TrainerOptions::new(1e-3, 24), Box::new(two)).unwrap_err();
    assert!(error.to_string().contains("batches_per_step"), "{error}");
}

#[test]
fn options_are_read_and_checked() {
    let read = |text: &str| serde_json::from_str::<TrainerOptions>(text);
    let least = r#"{"schedule": {"learning_rate": 0.001}, "packing": {"batch_tokens": 64}}"#;
    assert_eq!(read(least).unwrap(), {
        let mut options = TrainerOptions::new(0.001, 64);
        options.schedule.final_learning_rate = 0.0;
        options
    });
    let cheap = least.replacen('{', r#"{"checkpointing": true, "dtype": "bf16", "#, 1);
    let cheap = read(&cheap).unwrap();
    assert!(cheap.checkpointing && cheap.dtype == Some(ComputeDtype::Bf16));
    assert!(read(&least.replacen('{', r#"{"dtype": "f8", "#, 1)).unwrap_err().to_string().contains("f8"));
    let muon = least.replacen('{', r#"{"optimizer": {"kind": "muon", "momentum": 0.9}, "#, 1);
    assert!(matches!(read(&muon).unwrap().optimizer, OptimizerOptions::Muon(options) if options.momentum == 0.9));
    assert!(read(&least.replacen('{', r#"{"steps": 3, "#, 1)).unwrap_err().to_string().contains("steps"));
    for (wrong, word) in [
        (TrainerOptions { batches_per_step: 0, ..options() }, "batches_per_step"),
        (TrainerOptions { max_norm: Some(0.0), ..options() }, "max_norm"),
        (TrainerOptions { bias_speed: f64::NAN, ..options() }, "bias_speed"),
        (TrainerOptions::new(f64::INFINITY, 24), "learning_rate"),
    ] {
        let varmap = VarMap::new();
        let model = Model::init(&config(), &varmap, 0, DType::F32, &Device::Cpu).unwrap();
        let error = Trainer::new(model, varmap, examples(3), wrong, Box::new(SingleRank)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn metrics_go_on_where_the_run_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let report = |step| StepReport { step, next_token: step as f64, ..StepReport::default() };
    let mut metrics = MetricsFile::open(&path, 0).unwrap();
    (0..5).for_each(|step| metrics.write(&report(step)).unwrap());
    // Killed while it wrote a line; the checkpoint is of step 3.
    fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"step\": 5, \"ne").unwrap();
    let mut metrics = MetricsFile::open(&path, 3).unwrap();
    metrics.write(&report(3)).unwrap();
    assert_eq!(MetricsFile::read::<StepReport>(&path).unwrap(), [0, 1, 2, 3].map(report));
    assert_eq!(MetricsFile::read::<StepReport>(dir.path().join("none")).unwrap(), []);
    fs::write(&path, "{\"step\": 0}\n[]\n").unwrap();
    let error = MetricsFile::open(&path, 3).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl:2"), "{error}");
    let error = MetricsFile::open(dir.path().join("no/such/metrics"), 0).unwrap_err();
    assert!(matches!(error, TrainingError::Write { .. }), "{error}");
}

/// The CRC-32C of a text, from the polynomial in its usual direction.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u64::from(u32::MAX);
    for byte in data {
        crc ^= u64::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            crc <<= 1;
            if crc >> 32 & 1 == 1 {
                crc ^= 0x1_1edc_6f41;
            }
        }
    }
    !(crc as u32).reverse_bits()
}

/// The data of a file's records, whose lengths and sums are right.
fn records(path: &Path) -> Vec<Vec<u8>> {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let masked = |data: &[u8]| {
        let crc = crc32c(data);
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    };
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&rest[8..12]), masked(&rest[..8]));
        let data = &rest[12..12 + length];
        assert_eq!(word(&rest[12 + length..16 + length]), masked(data));
        found.push(data.to_vec());
        rest = &rest[16 + length..];
    }
    found
}

#[test]
fn event_files_are_tensorboards() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(dir.path(), 300).unwrap();
    events.scalars(300, &[("loss", 0.5), ("norm", 2.0)]).unwrap();
    let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    assert!(path.file_name().unwrap().to_string_lossy().starts_with("events.out.tfevents."));
    let records = records(&path);
    // Behind tag and eight bytes of the time: step 0 and the version; step 300 (two bytes) and the beginning.
    assert_eq!(records[0][9..], *b"\x10\x00\x1a\x0dbrain.Event:2");
    assert_eq!(records[1][9..], *b"\x10\xac\x02\x3a\x02\x08\x01");
    let (half, two) = (0.5f32.to_le_bytes(), 2f32.to_le_bytes());
    let mut expected = b"\x10\xac\x02\x2a\x1a\x0a\x0b\x0a\x04loss\x15".to_vec();
    expected.extend(half);
    expected.extend(b"\x0a\x0b\x0a\x04norm\x15");
    expected.extend(two);
    assert_eq!(records[2][9..], *expected);
    assert_eq!(records.len(), 3);
    assert!(f64::from_le_bytes(records[2][1..9].try_into().unwrap()) > 1.7e9);
}
