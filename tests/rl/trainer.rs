//! The loop of GRPO: what a step changes, that the engine sees it, and that a resumed run has the same bits.

use std::path::PathBuf;

use candle_core::{DType, Device};
use candle_nn::VarMap;
use deepseek_v32::agent::AgentOptions;
use deepseek_v32::chat_model::LocalChat;
use deepseek_v32::environment::{Environment, Ledger};
use deepseek_v32::generation::{EngineOptions, SamplingParams};
use deepseek_v32::model::{Model, Precision};
use deepseek_v32::rl::reward::{Reward, RewardMix};
use deepseek_v32::rl::rollout::{Episode, RolloutOptions};
use deepseek_v32::rl::{GrpoConfig, GrpoOptions, GrpoReport, GrpoTrainer, RlError, Truncated};
use deepseek_v32::weights::{Checkpoint, LoadOptions};

/// Greatest distance of the first mini-batch's mean ratio from 1, in f32.
const RATIO_TOLERANCE: f64 = 1e-4;

/// Whether the ids that were written add up to an even number: it differs in nearly every group.
struct Parity;

impl Reward for Parity {
    fn name(&self) -> &str {
        "parity"
    }

    fn value(&self, episode: &Episode) -> Result<f64, RlError> {
        let ids = episode.sequences.iter().flat_map(|sequence| &sequence.ids);
        Ok(f64::from((ids.sum::<u32>() + 1) % 2))
    }
}

/// At 1 the checkpoint is too sure of its answers: all attempts at a task are alike.
const TEMPERATURE: f64 = 3.0;

fn options() -> GrpoOptions {
    let params = SamplingParams { temperature: TEMPERATURE, top_p: 0.95, ..SamplingParams::default() };
    let agent = AgentOptions {
        params,
        thinking: false,
        max_answer_tokens: Some(16),
        max_steps: 1,
        max_call_retries: 0,
        ..AgentOptions::default()
    };
    let rollout = RolloutOptions { group_size: 4, max_refills: Some(4), agent, ..RolloutOptions::default() };
    let options = GrpoOptions::new(1e-4);
    // Most answers of so few tokens are cut off.
    let loss = GrpoConfig { truncated: Truncated::Keep, temperature: TEMPERATURE, ..options.loss.clone() };
    GrpoOptions { loss, rollout, groups_per_step: 1, beta: 0.01, ..options }
}

fn trainer() -> GrpoTrainer {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32");
    let load = LoadOptions { dtype: DType::F32, weight_dtype: None, ..LoadOptions::default() };
    let chat = LocalChat::load(&dir, &load, Precision::Dequant, EngineOptions::default(), |_| ()).unwrap();
    let (varmap, checkpoint) = (VarMap::new(), Checkpoint::open(&dir).unwrap());
    checkpoint.load_variables(&varmap, &load, |_| ()).unwrap();
    let model = Model::init(checkpoint.config(), &varmap, 0, DType::F32, &Device::Cpu).unwrap();
    let tasks = |number| Some(Box::new(Ledger::new(number, 1)) as Box<dyn Environment>);
    let rewards = RewardMix::new().with(Parity, 1.0);
    GrpoTrainer::new(model, varmap, &chat, Box::new(tasks), rewards, options()).unwrap()
}

fn bits(trainer: &GrpoTrainer) -> Vec<(String, Vec<u32>)> {
    let of = |(name, variable): (&str, &candle_core::Var)| {
        let values = variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (name.to_string(), values.into_iter().map(f32::to_bits).collect())
    };
    trainer.parameters().iter().map(of).collect()
}

/// The report without what a clock says.
fn timeless(report: GrpoReport) -> GrpoReport {
    GrpoReport { seconds: 0.0, rollout_seconds: 0.0, ..report }
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_went_on_and_the_engine_gets_each_step_s_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = trainer();
    let before = bits(&whole);
    let mut versions = Vec::new();
    let mut note = |episode: &Episode| {
        versions.extend(episode.sequences.iter().map(|sequence| sequence.weights_version));
    };
    let first = whole.step(&mut note).unwrap();
    assert!(first.groups == 1 && first.gradient_norm > 0.0, "{first:?}");
    assert!((first.on_policy_ratio - 1.0).abs() < RATIO_TOLERANCE, "{first:?}");
    assert_ne!(bits(&whole), before);
    let saved = whole.save(dir.path()).unwrap();
    // On policy again: the rollouts came from the new weights.
    let second = whole.step(&mut note).unwrap();
    assert!((second.on_policy_ratio - 1.0).abs() < RATIO_TOLERANCE, "{second:?}");
    let of_second = versions.iter().filter(|version| **version == 1).count();
    assert_eq!((versions.len(), of_second), (first.episodes + second.episodes, second.episodes));

    let mut resumed = trainer();
    resumed.resume(&saved).unwrap();
    assert_eq!(resumed.steps(), 1);
    assert_eq!(timeless(resumed.step(&mut |_| ()).unwrap()), timeless(second));
    assert_eq!(bits(&resumed), bits(&whole));
}
