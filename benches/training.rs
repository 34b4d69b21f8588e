//! Forward and backward pass of a small V3.2 model: tokens per second and peak memory, in the sparse and in the dense stage,
//! with and without activation checkpointing, by the fast paths and by the reference.
//!
//! `cargo bench --bench training [-- lengths, such as 512,2048]`. Linux: each row is a process of its own, whose peak is
//! that of the process over what it had before the first pass.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarMap, loss};
use deepseek_v32::config::{Config, IndexerType, MlpType};
use deepseek_v32::model::{Model, TrainingOptions, backward};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::ops::{Backend, with_backend};

/// Names the case to the process that measures it.
const CASE: &str = "TRAINING_BENCH_CASE";
/// Lengths of the sequence without arguments.
const LENGTHS: [usize; 2] = [512, 2048];
/// Passes timed after the first one.
const PASSES: usize = 2;

fn config() -> Config {
    let layers = 8;
    Config {
        vocab_size: 512,
        hidden_size: 256,
        intermediate_size: 512,
        moe_intermediate_size: 64,
        num_hidden_layers: layers,
        num_nextn_predict_layers: 0,
        n_routed_experts: 32,
        kv_lora_rank: 64,
        q_lora_rank: Some(96),
        qk_rope_head_dim: 16,
        qk_nope_head_dim: 32,
        v_head_dim: 32,
        index_topk: Some(128),
        max_position_embeddings: 8192,
        indexer_types: vec![IndexerType::Full; layers],
        mlp_layer_types: (0..layers).map(|i| if i == 0 { MlpType::Dense } else { MlpType::Sparse }).collect(),
        ..Config::tiny()
    }
}

/// A figure of this process in bytes, such as `VmHWM`, the most memory that it ever had.
fn status(key: &str) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).context("no such figure")?;
    Ok(line.trim().strip_suffix(" kB").context("not in kB")?.parse::<usize>()? * 1024)
}

/// One case: `stage checkpointing backend length`.
fn measure(case: &str) -> Result<()> {
    let words: Vec<_> = case.split(' ').collect();
    let [stage, checkpointing, backend, length] = words[..] else { bail!("a case of four words, got {case:?}") };
    let length: usize = length.parse()?;
    let varmap = VarMap::new();
    let config = config();
    let model = Model::init(&config, &varmap, 0, DType::F32, &Device::Cpu)?;
    let options = TrainingOptions {
        dense_attention: stage == "dense",
        checkpointing: checkpointing == "yes",
        ..TrainingOptions::default()
    };
    let layout = BatchLayout::single(length);
    let ids: Vec<u32> = (0..length).map(|i| (i * i % config.vocab_size) as u32).collect();
    let next = Tensor::from_vec(ids.iter().map(|id| (id + 1) % 512).collect(), length, &Device::Cpu)?;
    let pass = || -> Result<()> {
        let out = model.forward_training(&ids, &layout, options, None)?;
        let loss = loss::cross_entropy(&model.logits(&out.hidden)?, &next)?;
        match backend {
            // The threads of the backward pass choose anew.
            "reference" => loss.backward()?,
            _ => backward(loss)?,
        };
        Ok(())
    };
    let run = || -> Result<f64> {
        pass()?;
        let start = Instant::now();
        for _ in 0..PASSES {
            pass()?;
        }
        Ok((PASSES * length) as f64 / start.elapsed().as_secs_f64())
    };
    let before = status("VmRSS")?;
    let rate = if backend == "reference" { with_backend(Backend::Reference, run)? } else { run()? };
    let peak = (status("VmHWM")? - before) as f64 / f64::from(1 << 20);
    println!("{stage:>7} {length:>7} {checkpointing:>14} {backend:>10} {rate:>12.0} {peak:>10.0}");
    Ok(())
}

fn main() -> Result<()> {
    if let Ok(case) = std::env::var(CASE) {
        return measure(&case);
    }
    let lengths: Vec<usize> = match std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        Some(list) => list.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?,
        None => LENGTHS.to_vec(),
    };
    println!(
        "{:>7} {:>7} {:>14} {:>10} {:>12} {:>10}",
        "stage", "tokens", "checkpointing", "backend", "tokens/s", "peak MiB"
    );
    for length in lengths {
        for stage in ["sparse", "dense"] {
            for (checkpointing, backend) in [("no", "cpu"), ("yes", "cpu"), ("no", "reference")] {
                let case = format!("{stage} {checkpointing} {backend} {length}");
                let status = std::process::Command::new(std::env::current_exe()?).env(CASE, case).status()?;
                if !status.success() {
                    bail!("a case failed: {status}")
                }
            }
        }
    }
    Ok(())
}
