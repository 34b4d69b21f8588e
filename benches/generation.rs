//! Prefill and decode of whole models: the fast path, the reference (plain candle tensor composition) and their ratio.
//!
//! `cargo bench --bench generation [-- [tiny|lite] [ours] [contexts, such as 1024,8192]]`; `ours` leaves the reference out.
//!
//! `tiny` is the embedded checkpoint, `lite` a dense and a sparse layer of the size of DeepSeek-V2-Lite with random
//! weights. Both compute in f32 from bf16 weights. The last column is the share of what the machine could do at most:
//! decode that reads the active weights and keys once, prefill at the peak of f32 multiply-adds.

#[path = "support/machine.rs"]
mod machine;
#[path = "support/random.rs"]
mod random;

use std::time::Instant;

use anyhow::Result;
use candle_core::DType;
use deepseek_v32::config::{Config, MlpType};
use deepseek_v32::model::{Cache, Model, Precision, SequenceId};
use deepseek_v32::ops::{Backend, backend_report, with_backend};
use deepseek_v32::weights::{self, LoadOptions};
use machine::Machine;
use random::random_weights;
use serde_json::{Map, Value};

/// Contexts up to this are prefilled whole; beyond, the last tokens of the prompt are timed.
const WHOLE: usize = 1024;
/// Tokens of the prompt that are timed beyond.
const LAST: usize = 256;
/// Seconds spent on each measurement, at least one run.
const BUDGET: f64 = 0.5;
/// Decode steps timed at least.
const STEPS: usize = 5;

/// V2-Lite's shapes with V3.2's attention, two layers deep.
const LITE: &str = r#"{
    "model_type": "deepseek_v32", "vocab_size": 2048, "hidden_size": 2048, "intermediate_size": 10944,
    "moe_intermediate_size": 1408, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 16,
    "num_key_value_heads": 16, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "num_experts_per_tok": 6,
    "n_shared_experts": 2, "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "index_n_heads": 16, "index_head_dim": 128,
    "index_topk": 2048, "max_position_embeddings": 65536, "rms_norm_eps": 1e-6, "rope_theta": 10000,
    "num_nextn_predict_layers": 0, "tie_word_embeddings": false, "hidden_act": "silu", "attention_bias": false
}"#;

/// What makes a model of [`LITE`] cheap without changing the shape of its cache.
const FILLER: [(&str, usize); 7] = [
    ("hidden_size", 256),
    ("intermediate_size", 256),
    ("first_k_dense_replace", 2),
    ("num_attention_heads", 1),
    ("num_key_value_heads", 1),
    ("index_n_heads", 1),
    ("index_topk", 64),
];

/// A model and one that fills its cache.
struct Stack {
    model: Model,
    /// The same model with dense attention.
    dense: Model,
    /// The same model with projections in bf16.
    bf16: Model,
    filler: Model,
}

impl Stack {
    fn tiny() -> Result<Self> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");
        let (config, vb) = weights::load(dir, &LoadOptions::default(), |_| ())?;
        let model = |config: &Config| Model::new(config, vb.clone());
        let json = serde_json::from_str(&std::fs::read_to_string(format!("{dir}/config.json"))?)?;
        let bf16 = Model::with_options(&config, Precision::Bf16, vb.clone())?;
        Ok(Self { model: model(&config)?, dense: model(&dense(json)?)?, bf16, filler: model(&config)? })
    }

    fn lite() -> Result<Self> {
        let vb = random_weights(DType::BF16);
        let model = |change: &dyn Fn(&mut Map<String, Value>)| -> Result<Model> {
            let mut json = serde_json::from_str(LITE)?;
            change(&mut json);
            Ok(Model::new(&Config::from_json(&Value::Object(json).to_string())?, vb.clone())?)
        };
        let dense = Model::new(&dense(serde_json::from_str(LITE)?)?, vb.clone())?;
        let filler = model(&|json| json.extend(FILLER.map(|(key, value)| (key.into(), value.into()))))?;
        let bf16 = Model::with_options(&Config::from_json(LITE)?, Precision::Bf16, vb.clone())?;
        Ok(Self { model: model(&|_| ())?, dense, bf16, filler })
    }
}

/// The config of the same model with dense attention.
fn dense(mut json: Map<String, Value>) -> Result<Config> {
    json.retain(|key, _| !key.starts_with("index_"));
    json.insert("model_type".into(), "deepseek_v3".into());
    json.remove("architectures");
    Ok(Config::from_json(&Value::Object(json).to_string())?)
}

/// One sequence in its own cache.
struct Run<'a> {
    model: &'a Model,
    filler: &'a Model,
    cache: Cache,
    sequence: SequenceId,
}

impl<'a> Run<'a> {
    fn new(stack: &'a Stack) -> Result<Self> {
        // The filler's cache is a DSA model's; dense attention does not look at its index keys.
        let mut cache = stack.filler.new_cache(0)?;
        let sequence = cache.create();
        Ok(Self { model: &stack.model, filler: &stack.filler, cache, sequence })
    }

    /// Cuts or fills the cache to `context` tokens.
    fn seek(&mut self, context: usize) -> Result<()> {
        if context < self.len() {
            self.cache.truncate(self.sequence, context)?;
        }
        let model = std::mem::replace(&mut self.model, self.filler);
        while self.len() < context {
            self.forward(WHOLE.min(context - self.len()))?;
        }
        self.model = model;
        Ok(())
    }

    fn len(&self) -> usize {
        self.cache.len(self.sequence)
    }

    /// Runs `tokens` more tokens, to the last one's logits.
    fn forward(&mut self, tokens: usize) -> Result<()> {
        let (start, vocab) = (self.len(), self.model.config().vocab_size);
        let ids: Vec<u32> = (start..start + tokens).map(|i| ((i * 7919 + i / 3) % vocab) as u32).collect();
        let layout = self.cache.append(&[(self.sequence, tokens)])?;
        let hidden = self.model.forward_batch(&ids, &layout, &mut self.cache, None)?;
        let logits = self.model.logits(&hidden.narrow(0, tokens - 1, 1)?)?;
        logits.max_all()?.to_scalar::<f32>()?;
        Ok(())
    }

    /// Seconds that `tokens` tokens after the first `context` take, the best of several runs.
    fn time(&mut self, context: usize, tokens: usize, runs: usize) -> Result<f64> {
        let (begin, mut best, mut done) = (Instant::now(), f64::INFINITY, 0);
        while done < runs || begin.elapsed().as_secs_f64() < BUDGET {
            self.seek(context)?;
            let start = Instant::now();
            self.forward(tokens)?;
            best = best.min(start.elapsed().as_secs_f64());
            done += 1;
        }
        Ok(best)
    }
}

/// Work of tokens in a model: multiply-adds of each and bytes that one alone reads.
struct Work {
    macs: f64,
    bytes: f64,
}

/// A token with `context` tokens before it. Every active weight takes part once; attention is counted in MQA mode.
fn work(cfg: &Config, context: usize) -> Work {
    let (hidden, heads, latent) = (cfg.hidden_size, cfg.num_attention_heads, cfg.kv_lora_rank);
    let (nope, rope, v) = (cfg.qk_nope_head_dim, cfg.qk_rope_head_dim, cfg.v_head_dim);
    let (index_heads, index_dim) = (cfg.index_n_heads.unwrap_or(0), cfg.index_head_dim.unwrap_or(0));
    let rank = cfg.q_lora_rank.unwrap_or(0);
    let q = hidden * rank + rank * heads * (nope + rope);
    let kv = hidden * (latent + rope) + latent * heads * (nope + v);
    let indexer = rank * index_heads * index_dim + hidden * (index_dim + index_heads);
    let attention = q + kv + heads * v * hidden + indexer;
    let expert = 3 * hidden * cfg.moe_intermediate_size;
    let ffn = |mlp: &MlpType| match mlp {
        MlpType::Dense => 3 * hidden * cfg.intermediate_size,
        MlpType::Sparse => expert * (cfg.num_experts_per_tok + cfg.n_shared_experts) + hidden * cfg.n_routed_experts,
    };
    let layers = cfg.num_hidden_layers;
    let weights = layers * attention + cfg.mlp_layer_types.iter().map(ffn).sum::<usize>();
    let seen = cfg.index_topk.unwrap_or(usize::MAX).min(context);
    let scored = if seen < context { context } else { 0 };
    let pairs = seen * heads * (2 * latent + rope) + scored * index_heads * index_dim;
    let keys = seen * (latent + rope) + scored * index_dim;
    Work {
        macs: (weights + layers * pairs) as f64,
        bytes: (2 * (weights + cfg.vocab_size * hidden) + 4 * layers * keys) as f64,
    }
}

fn print(name: &str, tokens: usize, seconds: f64, reference: Option<f64>, limit: f64) {
    let rate = |seconds: f64| tokens as f64 / seconds;
    print!("{name:<46} {:>9.1}", rate(seconds));
    match reference {
        Some(reference) => print!(" {:>9.1} {:>7.1}x", rate(reference), reference / seconds),
        None => print!(" {:>9} {:>8}", "", ""),
    }
    println!(" {:>8.0} %", 100.0 * limit / seconds);
}

/// Prints a line for prefill and one for decode at a context; seconds of a decode step.
fn measure(run: &mut Run, name: &str, context: usize, with_reference: bool, machine: &Machine) -> Result<f64> {
    let tokens = if context <= WHOLE { context } else { LAST };
    let before = context - tokens;
    let slow = |run: &mut Run, context, tokens| {
        let time = || with_backend(Backend::Reference, || run.time(context, tokens, 1));
        with_reference.then(time).transpose()
    };

    run.seek(before)?;
    run.forward(tokens.min(64))?;
    let seconds = run.time(before, tokens, 2)?;
    let reference = slow(run, before, tokens)?;
    let what = if before == 0 { format!("{tokens} tokens") } else { format!("last {tokens} tokens of {context}") };
    let limit = work(run.model.config(), before + tokens / 2).macs * tokens as f64 / machine.fma;
    print(&format!("{name}: prefill, {what}"), tokens, seconds, reference, limit);

    let seconds = run.time(context, 1, STEPS)?;
    let reference = slow(run, context, 1)?;
    let limit = work(run.model.config(), context).bytes / machine.bandwidth;
    print(&format!("{name}: decode after {context} tokens"), 1, seconds, reference, limit);
    Ok(seconds)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let chosen = |name: &str| has(name) || !(has("tiny") || has("lite"));
    let contexts = match args.iter().find(|arg| arg.starts_with(|c: char| c.is_ascii_digit())) {
        Some(list) => list.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?,
        None => vec![1024, 8192, 32768],
    };
    let machine = Machine::measure();
    println!("{}, {}", machine.name, backend_report());
    println!("measured: {:.1} GB/s, {:.0} GFLOP/s f32", machine.bandwidth / 1e9, 2e-9 * machine.fma);
    println!("\n{:<46} {:>9} {:>9} {:>8} {:>10}", "tokens/s", "ours", "reference", "ratio", "of limit");
    let (mut growth, mut rounded) = (Vec::new(), Vec::new());
    for (name, stack) in [("tiny", Stack::tiny as fn() -> Result<Stack>), ("lite", Stack::lite)] {
        if !chosen(name) {
            continue;
        }
        let stack = stack()?;
        let mut run = Run::new(&stack)?;
        let mut times = Vec::new();
        for &context in &contexts {
            times.push(measure(&mut run, name, context, !has("ours"), &machine)?);
        }
        growth.push((name.to_string(), times.clone()));
        run.model = &stack.dense;
        for (&context, time) in contexts.iter().zip(&mut times).rev() {
            *time = run.time(context, 1, STEPS)?;
        }
        growth.push((format!("{name}, dense attention"), times));
        let context = contexts.first().map_or(WHOLE, |&context| context.min(WHOLE));
        for (what, before, tokens) in [("prefill", 0, context), ("decode", context, 1)] {
            let mut best = [f64::INFINITY; 2];
            // In turns, so that what else the machine does falls on both.
            for _ in 0..STEPS {
                for (model, best) in [&stack.model, &stack.bf16].into_iter().zip(&mut best) {
                    run.model = model;
                    *best = best.min(run.time(before, tokens, 1)?);
                }
            }
            rounded.push((
                format!("{name}: {what}, {context} tokens"),
                tokens as f64 / best[0],
                tokens as f64 / best[1],
            ));
        }
    }
    print!("\n{:<46}", "decode, ms a token, after tokens:");
    contexts.iter().for_each(|context| print!(" {context:>9}"));
    println!(" last/first");
    for (name, times) in growth {
        print!("{name:<46}");
        times.iter().for_each(|time| print!(" {:>9.2}", 1e3 * time));
        let growth = times.last().zip(times.first()).map_or(1.0, |(last, first)| last / first);
        println!(" {growth:>9.2}x");
    }
    println!("\n{:<46} {:>9} {:>9} {:>9}", "tokens/s by precision", "f32", "bf16", "ratio");
    for (name, f32, bf16) in rounded {
        println!("{name:<46} {f32:>9.1} {bf16:>9.1} {:>8.2}x", bf16 / f32);
    }
    Ok(())
}
