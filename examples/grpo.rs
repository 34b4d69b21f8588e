//! Trains a model by GRPO in environments: episodes, loss, new weights, and again.
//!
//! ```bash
//! cargo run --release --example grpo                             # a small model learns which drawer holds what
//! cargo run --release --example grpo -- --config run.toml        # as the file says; docs/training.md has its keys
//! cargo run --release --example grpo -- --config run.toml --resume
//! cargo run --release --example grpo -- --config run.toml --replay DIR/rollouts   # learns from recorded episodes
//! ```
//!
//! The folder `out` gets `step-NNNNNNNN/` (weights in Hugging Face's format, tokenizer, and the state to go on from),
//! `rollouts/` (the latest episodes), `metrics.jsonl`, `curves.svg` and TensorBoard's files in `events/`.

#[allow(dead_code)] // other examples use the rest
mod common;
#[path = "grpo/config.rs"]
mod config;
#[path = "grpo/curves.rs"]
mod curves;
#[path = "grpo/environments.rs"]
mod environments;
#[path = "distill/tasks.rs"]
mod questions;
#[path = "grpo/rewards.rs"]
mod rewards;
#[path = "grpo/run.rs"]
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use config::RunConfig;
use run::Run;

const DEFAULT_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/grpo/drawers.toml");

#[derive(Debug, Parser)]
#[command(about = "Trains a model by GRPO as a TOML file says")]
struct Args {
    /// The TOML file. Default: examples/grpo/drawers.toml. Paths in it are relative to the folder that the program runs in.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Go on from the latest checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// Learn from the episodes that a run left in this folder, and play none.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Changes what the file says.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// The run's folder, instead of the file's `out`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Steps in all, instead of the file's `steps`.
    #[arg(long)]
    steps: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// As DeepSeek-V3.2-Speciale: the model thinks, answers may be twice as long, and length costs a tenth.
    Speciale,
}

fn main() -> ExitCode {
    common::start(train)
}

fn train(args: Args) -> Result<()> {
    let embedded = args.config.is_none();
    let path = args.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
    let mut config = RunConfig::load(&path)?;
    if embedded {
        config.relative_to(env!("CARGO_MANIFEST_DIR").as_ref());
    }
    config.out = args.out.unwrap_or(config.out);
    config.steps = args.steps.unwrap_or(config.steps);
    if let Some(Preset::Speciale) = args.preset {
        config.make_speciale();
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    ctrlc::set_handler(move || {
        // The second time, at once.
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("Ctrl-C")?;
    Run::open(config, args.resume, args.replay)?.finish(&stopped)
}
