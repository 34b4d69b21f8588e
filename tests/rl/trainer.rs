//! The loop of GRPO on one small model: what a step changes, what its options do, and what a run leaves on disk.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use deepseek_v32::agent::AgentOptions;
use deepseek_v32::chat::{Json, Message, Tool, Version};
use deepseek_v32::chat_model::LocalChat;
use deepseek_v32::environment::{Environment, ToolFailure, Verdict};
use deepseek_v32::generation::{Engine, EngineOptions, LocalModel, SamplingParams, Service, Tokenizer};
use deepseek_v32::model::{Model, ModelOptions};
use deepseek_v32::rl::reward::{Reward, RewardMix};
use deepseek_v32::rl::rollout::{Episode, Group, RolloutOptions, Rollouts};
use deepseek_v32::rl::{GrpoConfig, GrpoOptions, GrpoReport, GrpoTrainer, RlError, Selection, Tasks, Truncated};
use deepseek_v32::training::{ComputeDtype, Parameters, TrainingError, latest_checkpoint};
use deepseek_v32::{Config, DeepSeekV32};

/// Greatest distance of the first mini-batch's mean ratio from 1, and of its divergence from 0, in f32.
const RATIO_TOLERANCE: f64 = 1e-4;
/// The same ratio with activations and the engine's weights in bf16, which has 8 bits.
const BF16_TOLERANCE: f64 = 3e-2;

fn tokenizer_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}

/// A model with experts, sparse attention and the tokenizer's vocabulary. Its weights are large, so that its choices are
/// not all alike.
fn config() -> Config {
    let text = fs::read_to_string(tokenizer_dir().join("config.json")).unwrap();
    let read = Config::from_json(&text).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("hidden_size", 32),
        ("intermediate_size", 32),
        ("moe_intermediate_size", 16),
        ("num_hidden_layers", 3),
        ("num_nextn_predict_layers", 0),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 2),
        ("q_lora_rank", 16),
        ("kv_lora_rank", 16),
        ("qk_nope_head_dim", 16),
        ("v_head_dim", 16),
        ("index_n_heads", 2),
        ("index_topk", 4),
    ] {
        json[key] = value.into();
    }
    json["initializer_range"] = 0.3.into();
    let config = Config::from_json(&json.to_string()).unwrap();
    assert_eq!(config.vocab_size, read.vocab_size);
    config
}

/// A question without tools; whatever is answered counts.
#[derive(Clone)]
struct Question(u64);

impl Environment for Question {
    fn id(&self) -> &str {
        "question"
    }

    fn reset(&mut self) -> Vec<Message> {
        vec![Message::user(format!("Say {}", self.0))]
    }

    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }

    fn step(&mut self, tool: &str, _: &Json) -> Result<String, ToolFailure> {
        Err(ToolFailure::from(format!("there is no tool {tool}")))
    }

    fn verify(&self, _: Option<&Message>) -> Verdict {
        Verdict::solved()
    }

    fn fork(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }
}

/// 1 for every second attempt in the groups that `counts` names, 0 for the others; 1 in all other groups.
struct EverySecond {
    counts: fn(u64) -> bool,
}

impl Reward for EverySecond {
    fn name(&self) -> &str {
        "every second"
    }

    fn value(&self, episode: &Episode) -> Result<f64, RlError> {
        Ok(if (self.counts)(episode.group) { (episode.member % 2) as f64 } else { 1.0 })
    }
}

fn options() -> GrpoOptions {
    let params = SamplingParams { temperature: 1.0, top_p: 0.95, ..SamplingParams::default() };
    let agent = AgentOptions {
        params,
        thinking: false,
        max_answer_tokens: Some(6),
        max_steps: 1,
        max_call_retries: 0,
        ..AgentOptions::default()
    };
    let rollout = RolloutOptions { group_size: 6, max_refills: Some(4), agent, ..RolloutOptions::default() };
    let options = GrpoOptions::new(3e-3);
    // Most answers of so few tokens are cut off.
    let loss = GrpoConfig { truncated: Truncated::Keep, ..options.loss.clone() };
    GrpoOptions { loss, rollout, groups_per_step: 2, beta: 0.05, ..options }
}

/// A trainer with the chat that plays its model.
fn run(options: GrpoOptions, counts: fn(u64) -> bool) -> (GrpoTrainer, LocalChat) {
    let (config, varmap) = (config(), VarMap::new());
    let model = DeepSeekV32::init(&config, &varmap, 7, DType::F32, &Device::Cpu).unwrap();
    let chat = chat_of(&varmap, options.sampler_dtype());
    let tasks: Tasks = Box::new(|number| Some(Box::new(Question(number)) as Box<dyn Environment>));
    let rewards = RewardMix::new().with(EverySecond { counts }, 1.0);
    (GrpoTrainer::new(model, varmap, &chat, tasks, rewards, options).unwrap(), chat)
}

fn chat_of(varmap: &VarMap, dtype: DType) -> LocalChat {
    let model = LocalModel::new(frozen(varmap, dtype, |_, tensor| tensor)).unwrap();
    let tokenizer = Tokenizer::load(tokenizer_dir()).unwrap();
    let engine = Engine::new(model, EngineOptions::default()).unwrap().with_tokenizer(tokenizer).unwrap();
    LocalChat::new("small", Service::start(engine).unwrap(), Version::V32).unwrap()
}

/// A copy of the variables as a model, each changed by `change`.
fn frozen(varmap: &VarMap, dtype: DType, change: impl Fn(&str, Tensor) -> Tensor) -> Arc<Model> {
    let copy = |(name, variable): (&str, &candle_core::Var)| {
        (name.to_string(), change(name, variable.as_tensor().detach().copy().unwrap()))
    };
    let weights = Parameters::of(varmap, |_| true).iter().map(copy).collect();
    let vb = VarBuilder::from_tensors(weights, dtype, &Device::Cpu);
    Arc::new(Model::with_options(&config(), ModelOptions::default(), vb).unwrap())
}

fn trainer(options: GrpoOptions) -> GrpoTrainer {
    run(options, |_| true).0
}

fn bits(trainer: &GrpoTrainer) -> Vec<(String, Vec<u32>)> {
    let of = |(name, variable): (&str, &candle_core::Var)| {
        let values = variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (name.to_string(), values.into_iter().map(f32::to_bits).collect())
    };
    Parameters::of(trainer.varmap(), |_| true).iter().map(of).collect()
}

/// The report without what a clock says.
fn timeless(report: GrpoReport) -> GrpoReport {
    GrpoReport { seconds: 0.0, rollout_seconds: 0.0, ..report }
}

fn step(trainer: &mut GrpoTrainer) -> GrpoReport {
    timeless(trainer.step(&mut |_| ()).unwrap())
}

/// A step, and what was played in it.
fn recorded(trainer: &mut GrpoTrainer) -> (GrpoReport, Rollouts) {
    let mut episodes: Vec<Episode> = Vec::new();
    let report = trainer.step(&mut |episode| episodes.push(episode.clone())).unwrap();
    episodes.sort_by_key(|episode| (episode.group, episode.member));
    let groups: Vec<Group> = episodes
        .chunk_by(|one, other| one.group == other.group)
        .map(|episodes| Group { id: episodes[0].group, episodes: episodes.to_vec() })
        .collect();
    let (groups, equal) = groups.into_iter().partition(Group::differs);
    (timeless(report), Rollouts { groups, equal })
}

fn is_on_policy(report: &GrpoReport) -> bool {
    (report.on_policy_ratio - 1.0).abs() < RATIO_TOLERANCE && report.metrics.mismatch_k3 < RATIO_TOLERANCE
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_went_on_and_the_engine_gets_each_step_s_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = trainer(options());
    let before = bits(&whole);
    let mut versions = Vec::new();
    let mut note = |episode: &Episode| {
        versions.extend(episode.sequences.iter().map(|sequence| sequence.weights_version));
    };
    let first = whole.step(&mut note).unwrap();
    assert!(first.groups == 2 && first.gradient_norm > 0.0, "{first:?}");
    assert!(is_on_policy(&first), "{first:?}");
    assert_ne!(bits(&whole), before);
    let saved = whole.save(dir.path(), 1).unwrap();
    // On policy again: the rollouts came from the new weights.
    let second = whole.step(&mut note).unwrap();
    assert!(is_on_policy(&second), "{second:?}");
    let of_second = versions.iter().filter(|version| **version == 1).count();
    assert_eq!((versions.len(), of_second), (first.episodes + second.episodes, second.episodes));
    // A limit on disk space: only the latest ones stay.
    let third = step(&mut whole);
    let mut resumed = trainer(options());
    resumed.resume(&saved).unwrap();
    assert_eq!(resumed.steps(), 1);
    assert_eq!(step(&mut resumed), timeless(second));
    let saved = whole.save(dir.path(), 1).unwrap();
    assert_eq!(latest_checkpoint(dir.path()).unwrap().unwrap(), saved);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(step(&mut resumed), third);
    assert_eq!(bits(&resumed), bits(&whole));
    resumed.save(dir.path(), 2).unwrap();
    step(&mut resumed);
    resumed.save(dir.path(), 2).unwrap();
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["step-00000003", "step-00000004"]);
    let mut other = trainer(GrpoOptions { beta: 0.06, ..options() });
    let error = other.resume(dir.path().join("step-00000004")).unwrap_err().to_string();
    assert!(error.contains("state.json") && error.contains("options"), "{error}");
}

/// The engine plays with other selection biases than the trainer has: other experts, but the same weights of those that
/// were chosen.
#[test]
fn replayed_routes_repair_a_drift_of_the_selection_of_experts() {
    let played = |keep_routing: bool, drift: f64| {
        let (mut trainer, chat) = run(GrpoOptions { keep_routing, ..options() }, |_| true);
        let drifted = frozen(trainer.varmap(), DType::F32, |name, tensor| {
            if !name.ends_with("e_score_correction_bias") {
                return tensor;
            }
            let count = tensor.elem_count();
            // Every second expert is liked more than its score says.
            let bias: Vec<f32> = (0..count).map(|expert| if expert % 2 == 0 { drift as f32 } else { 0.0 }).collect();
            Tensor::from_vec(bias, count, &Device::Cpu).unwrap()
        });
        chat.service().swap_weights(drifted, 0).unwrap();
        step(&mut trainer)
    };
    let (repaired, broken, undrifted) = (played(true, 0.3), played(false, 0.3), played(false, 0.0));
    assert!(is_on_policy(&repaired), "{repaired:?}");
    assert!(is_on_policy(&undrifted), "{undrifted:?}");
    assert!(!is_on_policy(&broken), "{broken:?}");
    assert!(broken.metrics.mismatch_k3 > 100.0 * RATIO_TOLERANCE, "{broken:?}");
}

/// The indexers that train are not those that played.
#[test]
fn a_replayed_selection_repairs_a_drift_of_the_indexers() {
    let played = |selection: Selection| {
        let mut trainer = trainer(GrpoOptions { selection, ..options() });
        for (name, variable) in Parameters::of(trainer.varmap(), |name| name.contains(".indexer.")).iter() {
            if name.ends_with("wk.weight") {
                variable.set(&variable.as_tensor().detach().neg().unwrap()).unwrap();
            }
        }
        step(&mut trainer)
    };
    let (repaired, broken) = (played(Selection::Replay), played(Selection::Recompute));
    assert!(is_on_policy(&repaired), "{repaired:?}");
    assert!(!is_on_policy(&broken), "{broken:?}");
}

#[test]
fn groups_with_equal_rewards_are_dropped_and_refilled() {
    // The first two tasks reward every answer alike.
    let (mut first, _) = run(options(), |group| group >= 2);
    let (report, rollouts) = recorded(&mut first);
    assert_eq!((report.groups, report.equal_groups, report.episodes), (2, 2, 24));
    assert_eq!(rollouts.equal.iter().map(|group| group.id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(rollouts.groups.iter().map(|group| group.id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((report.metrics.n_seq, report.metrics.zero_variance_frac), (12, 0.0));
    // What was dropped has no part in the gradient.
    let mut other = trainer(options());
    other.step_on(&Rollouts { groups: rollouts.groups, equal: Vec::new() }).unwrap();
    assert_eq!(bits(&other), bits(&first));
    // The next step goes on behind all of them.
    let (_, next) = recorded(&mut first);
    assert_eq!(next.groups[0].id, 4);
    // Without refills, and without a difference, nothing is learnt.
    let none = RolloutOptions { max_refills: Some(0), ..options().rollout };
    let (mut idle, _) = run(GrpoOptions { rollout: none, ..options() }, |_| false);
    let before = bits(&idle);
    let report = step(&mut idle);
    assert_eq!((report.groups, report.equal_groups, report.gradient_norm), (0, 2, 0.0));
    assert_eq!((bits(&idle), idle.steps()), (before, 1));
}

#[test]
fn a_number_that_is_not_finite_stops_the_run_by_name_and_a_restart_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = trainer(options());
    let mut broken = trainer(options());
    assert_eq!(step(&mut broken), step(&mut whole));
    let state = bits(&broken);
    let name = "model.layers.1.mlp.gate.weight";
    let poison = |trainer: &GrpoTrainer| {
        let variable = trainer.parameters().get(name).unwrap();
        let mut values = variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[3] = f32::NAN;
        variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu).unwrap()).unwrap();
    };
    poison(&broken);
    match broken.step(&mut |_| ()).unwrap_err() {
        RlError::Training(TrainingError::NotFinite { name: found }) => {
            assert_eq!(found, format!("the parameter {name}"));
        }
        other => panic!("{other}"),
    }
    // The state before the step, which a new process goes on from.
    assert_eq!((bits(&broken), broken.steps()), (state, 1));
    let saved = broken.save(dir.path(), 1).unwrap();
    let mut resumed = trainer(options());
    resumed.resume(&saved).unwrap();
    assert_eq!(step(&mut resumed), step(&mut whole));
    assert_eq!(bits(&resumed), bits(&whole));
    // A checkpoint with such a number is refused.
    poison(&whole);
    let error = resumed.resume(whole.save(dir.path(), 1).unwrap()).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("NaN"), "{error}");
}

#[test]
fn mini_batches_are_optimizer_steps_one_after_the_other() {
    let mut two = trainer(GrpoOptions { mini_batches: 2, ..options() });
    let (report, rollouts) = recorded(&mut two);
    assert_eq!(rollouts.groups.len(), 2);
    // Only the first is on policy.
    assert!((report.on_policy_ratio - 1.0).abs() < RATIO_TOLERANCE, "{report:?}");
    assert!(report.metrics.mismatch_k3 > 1e-6, "{report:?}");
    let mut one = trainer(options());
    for group in &rollouts.groups {
        one.step_on(&Rollouts { groups: vec![group.clone()], equal: Vec::new() }).unwrap();
    }
    assert_eq!(bits(&one), bits(&two));
    let mut together = trainer(options());
    together.step_on(&rollouts).unwrap();
    assert_ne!(bits(&together), bits(&two));
}

#[test]
fn the_reference_is_the_first_policy_until_it_is_refreshed() {
    let second = |refresh_steps| {
        let mut trainer = trainer(GrpoOptions { refresh_steps, ..options() });
        let first = step(&mut trainer);
        assert!(first.metrics.mean_kl.abs() < RATIO_TOLERANCE, "{first:?}");
        step(&mut trainer).metrics.mean_kl
    };
    let (kept, refreshed) = (second(None), second(Some(1)));
    assert!(kept > RATIO_TOLERANCE, "{kept}");
    assert!(refreshed.abs() < kept / 100.0, "{refreshed} {kept}");
}

#[test]
fn checkpointing_changes_no_bit() {
    let (mut plain, mut lean) = (trainer(options()), trainer(GrpoOptions { checkpointing: true, ..options() }));
    assert_eq!(step(&mut plain), step(&mut lean));
    assert_eq!(bits(&plain), bits(&lean));
}

#[test]
fn bf16_computes_over_f32_weights() {
    let mut rounded = trainer(GrpoOptions { dtype: Some(ComputeDtype::Bf16), ..options() });
    let before = bits(&rounded);
    let (report, _) = recorded(&mut rounded);
    assert!((report.on_policy_ratio - 1.0).abs() < BF16_TOLERANCE, "{report:?}");
    assert!(report.gradient_norm > 0.0 && report.metrics.mismatch_k3 < BF16_TOLERANCE, "{report:?}");
    // Steps below the resolution of bf16, which is the upper half of an f32, are not lost.
    let after = bits(&rounded);
    let all = |bits: &[(String, Vec<u32>)]| bits.iter().flat_map(|(_, bits)| bits.clone()).collect::<Vec<u32>>();
    let mut moved = all(&before).into_iter().zip(all(&after)).filter(|(before, after)| before != after);
    assert!(moved.any(|(before, after)| before >> 16 == after >> 16));
    // An engine of another dtype is refused.
    let varmap = VarMap::new();
    let model = DeepSeekV32::init(&config(), &varmap, 7, DType::F32, &Device::Cpu).unwrap();
    let chat = chat_of(&varmap, DType::F32);
    let options = GrpoOptions { dtype: Some(ComputeDtype::Bf16), ..options() };
    let error = GrpoTrainer::new(model, varmap, &chat, Box::new(|_| None), RewardMix::outcome(), options);
    assert!(matches!(error, Err(RlError::Generation(_))), "{:?}", error.err());
}

#[test]
fn episodes_without_what_a_technique_needs_are_refused_by_its_name() {
    let (_, rollouts) = recorded(&mut trainer(options()));
    let without = |change: fn(&mut Episode)| {
        let mut rollouts = rollouts.clone();
        rollouts.groups.iter_mut().flat_map(|group| &mut group.episodes).for_each(change);
        rollouts
    };
    let no_routes = without(|episode| episode.sequences.iter_mut().for_each(|sequence| sequence.routes = None));
    let no_sets = without(|episode| episode.sequences.iter_mut().for_each(|sequence| sequence.kept = None));
    let no_tokens = without(|episode| episode.sequences.clear());
    let mut trainer = trainer(options());
    let before = bits(&trainer);
    for (rollouts, technique) in
        [(&no_routes, "keep_routing"), (&no_sets, "loss.keep_sampling_mask"), (&no_tokens, "the loss")]
    {
        match trainer.step_on(rollouts).unwrap_err() {
            RlError::NotRecorded { technique: found, .. } => assert_eq!(found, technique),
            other => panic!("{other}"),
        }
    }
    assert!(trainer.step_on(&Rollouts::default()).is_err());
    assert_eq!((bits(&trainer), trainer.steps()), (before, 0));
    // Without the technique they can be trained on.
    let plain = GrpoConfig { keep_sampling_mask: false, ..options().loss };
    let mut plain = self::trainer(GrpoOptions { keep_routing: false, loss: plain, ..options() });
    plain
        .step_on(&without(|episode| {
            for sequence in &mut episode.sequences {
                (sequence.routes, sequence.kept) = (None, None);
            }
        }))
        .unwrap();
    assert_eq!(plain.steps(), 1);
}
