//! Episodes: how they are played, what their tokens are, and what files keep of them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use deepseek_v32::agent::{AgentOptions, Stop};
use deepseek_v32::chat::{Message, Role, ToolCall};
use deepseek_v32::chat_model::{ChatModel, ChatRequest, LocalChat};
use deepseek_v32::environment::{Environment, Ledger, World};
use deepseek_v32::generation::{EngineOptions, Record, RecordOptions, Routes, SamplingParams};
use deepseek_v32::model::{Model, Precision, TrainingOptions};
use deepseek_v32::rl::reward::RewardMix;
use deepseek_v32::rl::rollout::{
    Episode, Packed, RolloutOptions, Rollouts, Sequence, collect, read_episodes, write_episodes,
};
use deepseek_v32::rl::{GrpoConfig, Policy, log_probs, loss};
use deepseek_v32::weights::{self, LoadOptions};

use crate::agent_support::{Scripted, calls, respond};

/// Greatest difference of a log-probability in a training pass from the one recorded while decoding, in f32.
const LOGPROB_TOLERANCE: f64 = 1e-4;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}

fn local() -> &'static Arc<dyn ChatModel> {
    static CHAT: OnceLock<Arc<dyn ChatModel>> = OnceLock::new();
    CHAT.get_or_init(|| {
        let engine = EngineOptions { prefix_tokens: 8192, ..EngineOptions::default() };
        Arc::new(LocalChat::load(tiny(), &LoadOptions::default(), Precision::Dequant, engine, |_| ()).unwrap())
    })
}

fn tasks(seeds: std::ops::Range<u64>, transfers: usize) -> impl Iterator<Item = Box<dyn Environment>> {
    seeds.map(move |seed| Box::new(Ledger::new(seed, transfers)) as Box<dyn Environment>)
}

/// The transfers that a ledger's question asks for, as arguments of calls.
fn asked(question: &str) -> Vec<String> {
    let orders = question.strip_prefix("Transfer ").unwrap().strip_suffix(", then tell me that it is done.").unwrap();
    let arguments = |order: &str| {
        let words: Vec<&str> = order.split(' ').collect();
        format!(r#"{{"amount": {}, "from": "{}", "to": "{}"}}"#, words[0], words[2], words[4])
    };
    orders.split(", then ").map(arguments).collect()
}

/// Makes all transfers in its first answer, and says so in its second; those whose seed is odd make one less.
fn bookkeeper() -> Arc<dyn ChatModel> {
    Arc::new(Scripted::new(|_, request: &ChatRequest| {
        if request.messages.last().unwrap().role == Role::Tool {
            return respond(request, Message::assistant("It is done."));
        }
        let mut orders = asked(&request.messages[0].content);
        if request.params.seed.unwrap() % 2 == 1 {
            orders.pop();
        }
        let orders: Vec<_> = orders.iter().map(|arguments| ("c", "transfer", arguments.as_str())).collect();
        if orders.is_empty() {
            return respond(request, Message::assistant("I would rather not."));
        }
        respond(request, calls("", &orders))
    }))
}

fn play(model: &Arc<dyn ChatModel>, options: &RolloutOptions, wanted: usize, transfers: usize) -> Rollouts {
    collect(model, &mut tasks(0..100, transfers), wanted, 7, &RewardMix::outcome(), options, &mut |_| ()).unwrap()
}

fn unrecorded() -> RolloutOptions {
    RolloutOptions { group_size: 4, record: RecordOptions::default(), ..RolloutOptions::default() }
}

#[test]
fn ledgers_are_solved_by_what_they_ask_for() {
    for (seed, transfers) in (0..20).flat_map(|seed| [(seed, 1), (seed, 3), (seed, 8)]) {
        let ledger = Ledger::new(seed, transfers);
        assert_eq!(ledger, Ledger::new(seed, transfers));
        let total = |balances: &std::collections::BTreeMap<String, u64>| balances.values().sum::<u64>();
        let world = World::new(Box::new(ledger.clone()));
        let question = world.reset().remove(0).content;
        let done = Message::assistant("done");
        assert!(!world.verify(Some(&done)).solved, "{question}");
        for arguments in asked(&question) {
            let call = ToolCall { id: None, name: "transfer".into(), arguments };
            let result = world.call(&call).unwrap();
            assert!(!result.failed, "{question}: {}", result.content);
        }
        assert_eq!(asked(&question).len(), transfers);
        let verdict = world.verify(Some(&done));
        assert!(verdict.solved && verdict.score == 1.0 && verdict.problems.is_empty(), "{question}: {verdict:?}");
        assert!(!world.verify(None).solved && !world.verify(Some(&Message::assistant(" "))).solved);
        assert!(total(ledger.wanted()) > 0);
        // Back to the beginning.
        world.reset();
        assert!(!world.verify(Some(&done)).solved);
    }
}

#[test]
fn what_is_wrong_with_a_call_is_told_and_changes_nothing() {
    let mut ledger = Ledger::new(3, 2);
    ledger.reset();
    let fork = ledger.fork();
    let world = World::new(Box::new(ledger));
    let names: Vec<String> = said(&world, &call("list_accounts", "{}")).split(", ").map(str::to_string).collect();
    let (a, b) = (&names[0], &names[1]);
    for (tool, arguments, words) in [
        ("transfer", format!(r#"{{"from": "{a}", "to": "{b}", "amount": 100000}}"#), "less than 100000"),
        ("transfer", format!(r#"{{"from": "{a}", "to": "nobody", "amount": 1}}"#), "no account"),
        ("transfer", format!(r#"{{"from": "{a}", "to": "{b}", "amount": 0}}"#), "amount"),
        ("transfer", format!(r#"{{"from": "{a}", "to": "{b}", "amount": 1.5}}"#), "amount"),
        ("transfer", format!(r#"{{"to": "{b}", "amount": 1}}"#), "from"),
        ("balance", "{}".to_string(), "account"),
        ("steal", "{}".to_string(), "steal"),
    ] {
        let result = world.call(&ToolCall { id: None, name: tool.into(), arguments });
        let result = result.unwrap();
        assert!(result.failed && result.content.contains(words), "{tool}: {}", result.content);
    }
    let untouched = World::new(fork);
    let balances = |world: &World| {
        names
            .iter()
            .map(|name| said(world, &call("balance", &format!(r#"{{"account": "{name}"}}"#))))
            .collect::<Vec<_>>()
    };
    assert_eq!(balances(&world), balances(&untouched));
    // A fork shares nothing.
    said(&world, &call("transfer", &format!(r#"{{"from": "{a}", "to": "{b}", "amount": 1}}"#)));
    assert_ne!(balances(&world), balances(&untouched));
}

fn said(world: &World, call: &ToolCall) -> String {
    world.call(call).unwrap().content
}

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: None, name: name.into(), arguments: arguments.into() }
}

#[test]
fn groups_are_the_same_whatever_the_lanes_and_equal_ones_are_replaced() {
    let model = bookkeeper();
    let one = play(&model, &RolloutOptions { lanes: 1, ..unrecorded() }, 20, 2);
    let many = play(&model, &RolloutOptions { lanes: 5, ..unrecorded() }, 20, 2);
    assert_eq!(one, many);
    assert_eq!(one.groups.len(), 20);
    assert!(!one.equal.is_empty(), "no group of four had equal rewards: choose other seeds");
    for group in &one.groups {
        assert!(group.differs() && group.mean_reward() > 0.0 && group.mean_reward() < 1.0);
        for (member, episode) in group.episodes.iter().enumerate() {
            assert_eq!((episode.group, episode.member), (group.id, member));
            assert_eq!(episode.stop, Stop::Answer);
            assert_eq!(episode.reward, episode.verdict.score);
            assert_eq!(episode.verdict.solved, episode.reward == 1.0);
            assert!(episode.sequences.is_empty());
        }
        let tasks: Vec<&str> = group.episodes.iter().map(|episode| episode.task.as_str()).collect();
        assert!(tasks.windows(2).all(|pair| pair[0] == pair[1]));
    }
    let mut ids: Vec<u64> = one.groups.iter().chain(&one.equal).map(|group| group.id).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(7..7 + ids.len() as u64));
    let none = play(&model, &RolloutOptions { max_refills: Some(0), ..unrecorded() }, 20, 2);
    assert_eq!(none.groups.len() + none.equal.len(), 20);
    // All fail: the tasks run out.
    let wrong: Arc<dyn ChatModel> =
        Arc::new(Scripted::new(|_, request: &ChatRequest| respond(request, Message::assistant("no"))));
    let rollouts =
        collect(&wrong, &mut tasks(0..5, 1), 4, 0, &RewardMix::outcome(), &unrecorded(), &mut |_| ()).unwrap();
    assert_eq!((rollouts.groups.len(), rollouts.equal.len()), (0, 5));
}

#[test]
fn options_and_failures_are_errors() {
    let model = bookkeeper();
    let sampled = |params: SamplingParams| RolloutOptions {
        agent: AgentOptions { params, ..AgentOptions::default() },
        record: RecordOptions::ALL,
        ..unrecorded()
    };
    let heated = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    for (options, word) in [
        (RolloutOptions { group_size: 1, ..unrecorded() }, "group_size"),
        (RolloutOptions { lanes: 0, ..unrecorded() }, "lanes"),
        (sampled(SamplingParams::greedy()), "temperature"),
        (sampled(SamplingParams { presence_penalty: 0.5, ..heated.clone() }), "presence_penalty"),
        (sampled(SamplingParams { logit_bias: [(1, 1.0)].into(), ..heated }), "logit_bias"),
    ] {
        let error = collect(&model, &mut tasks(0..2, 1), 1, 0, &RewardMix::outcome(), &options, &mut |_| ());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    // A model that records nothing, asked to.
    let recorded = RolloutOptions { record: RecordOptions::ALL, ..unrecorded() };
    let rollouts = collect(&model, &mut tasks(0..2, 1), 1, 0, &RewardMix::outcome(), &recorded, &mut |_| ()).unwrap();
    assert!(rollouts.groups.iter().flat_map(|group| &group.episodes).all(|episode| episode.sequences.is_empty()));
    let broken: Arc<dyn ChatModel> =
        Arc::new(Scripted::fallible(|_, _| Err(deepseek_v32::generation::GenerationError::Stopped.into())));
    let error = collect(&broken, &mut tasks(0..9, 1), 9, 0, &RewardMix::outcome(), &unrecorded(), &mut |_| ());
    assert!(error.is_err());
}

fn record(prompt: &[u32], generated: &[u32], version: u64) -> Record {
    let rows = prompt.len() + generated.len() - 1;
    Record {
        schema_version: 1,
        weights_version: version,
        temperature: 1.0,
        prompt_ids: prompt.to_vec(),
        generated_ids: generated.to_vec(),
        logprobs: None,
        sampled_logprobs: Some(generated.iter().map(|id| -(*id as f32)).collect()),
        kept: Some(generated.iter().map(|id| (id % 2 == 0).then(|| vec![*id, id + 1])).collect()),
        routes: Some(Routes { layers: vec![1], experts_per_token: 2, expert_ids: vec![version as u16; 2 * rows] }),
    }
}

#[test]
fn answers_join_to_sequences_while_the_conversation_only_grows() {
    let records = [
        record(&[1, 2], &[3, 4], 0),
        // A tool's result, 5.
        record(&[1, 2, 3, 4, 5], &[6], 0),
        // New weights.
        record(&[1, 2, 3, 4, 5, 6, 7], &[8], 1),
        // The conversation was cut.
        record(&[1, 2, 7], &[9, 10], 1),
    ];
    let sequences = Sequence::join(&records).unwrap();
    assert_eq!(sequences.len(), 3);
    let first = &sequences[0];
    assert_eq!(first.ids, [1, 2, 3, 4, 5, 6]);
    assert_eq!(first.generated, [false, false, true, true, false, true]);
    assert_eq!(first.sampled_logprobs, [0.0, 0.0, -3.0, -4.0, 0.0, -6.0]);
    assert_eq!(first.kept.as_deref().unwrap(), [None, None, None, Some(vec![4, 5]), None, Some(vec![6, 7])]);
    assert_eq!(first.routes.as_ref().unwrap().rows(), 5);
    assert_eq!((sequences[1].generated_tokens(), sequences[1].len(), sequences[1].weights_version), (1, 8, 1));
    assert_eq!(sequences[2].ids, [1, 2, 7, 9, 10]);
    sequences.iter().for_each(|sequence| sequence.validate().unwrap());

    let greedy = Record { temperature: 0.0, ..record(&[1], &[2], 0) };
    let silent = Record { sampled_logprobs: None, ..record(&[1], &[2], 0) };
    for (wrong, word) in [(greedy, "greedily"), (silent, "log-probabilities")] {
        let error = Sequence::join(&[record(&[1], &[2], 0), wrong]).unwrap_err().to_string();
        assert!(error.contains("answer 1") && error.contains(word), "{error}");
    }
}

/// Rollouts of the embedded model, whose tools these are not: it still calls something, or talks.
fn rollouts() -> &'static Rollouts {
    static ROLLOUTS: OnceLock<Rollouts> = OnceLock::new();
    ROLLOUTS.get_or_init(|| {
        let params = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
        let agent = AgentOptions {
            params,
            max_answer_tokens: Some(60),
            max_steps: 3,
            max_call_retries: 0,
            ..AgentOptions::default()
        };
        let options = RolloutOptions { group_size: 3, max_refills: Some(0), agent, ..RolloutOptions::default() };
        collect(local(), &mut tasks(0..2, 1), 2, 0, &RewardMix::agent(100), &options, &mut |_| ()).unwrap()
    })
}

#[test]
fn a_training_pass_gives_the_log_probabilities_of_the_rollout() {
    let groups: Vec<_> = rollouts().groups.iter().chain(&rollouts().equal).cloned().collect();
    let generated: usize = groups.iter().flat_map(|group| &group.episodes).map(Episode::generated_tokens).sum();
    assert!(generated > 200, "{generated}");
    let packed = Packed::new(&groups, |_| 0.0).unwrap();
    let (config, vb) = weights::load(tiny(), &LoadOptions::default(), |_| ()).unwrap();
    let model = Model::with_options(&config, Precision::Dequant, vb).unwrap();
    let layout = packed.layout();
    let experts = packed.expert_indices(config.num_hidden_layers).unwrap();
    assert!(experts.iter().any(Option::is_some));
    let output = model.forward_training(&packed.ids, &layout, TrainingOptions::default(), None).unwrap();
    let logits = model.logits(&output.hidden).unwrap();
    let config = GrpoConfig { temperature: 0.8, kl: deepseek_v32::rl::Kl::None, ..GrpoConfig::v32() };
    let batch = packed.batch(Policy::Logits(logits.clone()), None, &config).unwrap();
    let own = log_probs(&logits, &batch.tokens, &batch.gen_mask, Some(&batch.kept), 0.8).unwrap();
    let own: Vec<f64> = own.logp.to_dtype(candle_core::DType::F64).unwrap().to_vec1().unwrap();
    let mut rows = 0;
    for (row, logp) in own.iter().enumerate().filter(|(row, _)| batch.gen_mask[*row]) {
        assert!((logp - batch.old_logp[row]).abs() < LOGPROB_TOLERANCE, "row {row}: {logp} {}", batch.old_logp[row]);
        rows += 1;
    }
    assert_eq!(rows, generated);
    // Without the kept sets it is another distribution.
    let whole = log_probs(&logits, &batch.tokens, &batch.gen_mask, None, 0.8).unwrap();
    let whole: Vec<f64> = whole.logp.to_dtype(candle_core::DType::F64).unwrap().to_vec1().unwrap();
    assert!(own.iter().zip(&whole).any(|(own, whole)| own - whole > 10.0 * LOGPROB_TOLERANCE));
    let (_, metrics) = loss(&batch, &config).unwrap();
    assert!((metrics.mean_ratio - 1.0).abs() < LOGPROB_TOLERANCE, "{metrics:?}");
    assert_eq!(metrics.n_tok, generated);
    assert!(packed.batch(Policy::Logits(logits), None, &GrpoConfig::v32()).unwrap_err().to_string().contains("0.8"));
}

#[test]
fn files_keep_episodes_whole() {
    let dir = tempfile::tempdir().unwrap();
    let episodes: Vec<Episode> =
        rollouts().groups.iter().chain(&rollouts().equal).flat_map(|group| group.episodes.clone()).collect();
    assert_eq!(read_episodes(dir.path(), "step-0").unwrap(), None);
    write_episodes(dir.path(), "step-0", &episodes).unwrap();
    assert_eq!(read_episodes(dir.path(), "step-0").unwrap().unwrap(), episodes);
    // Replaced as a whole, also by nothing.
    write_episodes(dir.path(), "step-0", &[]).unwrap();
    assert_eq!(read_episodes(dir.path(), "step-0").unwrap().unwrap(), []);
    write_episodes(dir.path(), "step-0", &episodes).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["step-0.jsonl", "step-0.safetensors"]);

    let (lines, tensors) = (dir.path().join("step-0.jsonl"), dir.path().join("step-0.safetensors"));
    let (text, bytes) = (std::fs::read_to_string(&lines).unwrap(), std::fs::read(&tensors).unwrap());
    let fails = |words: &[&str]| {
        let error = read_episodes(dir.path(), "step-0").unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    std::fs::write(&lines, text.replace("\"schema_version\":1", "\"schema_version\":9")).unwrap();
    fails(&["step-0.jsonl", "line 1", "schema_version"]);
    std::fs::write(&lines, text.lines().next().unwrap()).unwrap();
    fails(&["line 1", "episodes"]);
    std::fs::write(&lines, text.replacen("\"task\"", "\"tusk\"", 1)).unwrap();
    fails(&["line 2", "tusk"]);
    std::fs::write(&lines, text.replacen("\"tokens\":", "\"tokens\":9", 1)).unwrap();
    fails(&["line 2"]);
    std::fs::write(&lines, "").unwrap();
    fails(&["line 1", "missing"]);
    std::fs::write(&lines, &text).unwrap();
    std::fs::write(&tensors, &bytes[..bytes.len() - 1]).unwrap();
    fails(&["step-0.safetensors", "bytes"]);
    let mut broken = bytes.clone();
    broken[9] = b'!';
    std::fs::write(&tensors, broken).unwrap();
    fails(&["step-0.safetensors"]);
    std::fs::remove_file(&tensors).unwrap();
    fails(&["step-0.safetensors"]);
}

#[test]
fn domains_have_their_own_weight_of_the_divergence() {
    let groups: Vec<_> = rollouts().groups.iter().chain(&rollouts().equal).cloned().collect();
    let packed = Packed::new(&groups, |domain| if domain == "general" { 0.25 } else { 1.0 }).unwrap();
    let logps = Tensor::zeros(packed.rows(), candle_core::DType::F64, &Device::Cpu).unwrap();
    let config = GrpoConfig { temperature: 0.8, kl: deepseek_v32::rl::Kl::None, ..GrpoConfig::v32() };
    let batch = packed.batch(Policy::LogProbs(logps), None, &config).unwrap();
    assert_eq!(batch.beta, vec![0.25; packed.sequences()]);
    assert_eq!(batch.rewards.len(), packed.sequences());
    assert_eq!(packed.lengths.iter().sum::<usize>(), packed.rows());
    assert_eq!(batch.truncated.len(), batch.group_id.len());
}
