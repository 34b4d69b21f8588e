//! Trains a model: pre-training on text, fine-tuning on chats, the indexers' warm-up and the sparse stage.
//!
//! ```bash
//! cargo run --release --example train                            # fine-tunes a new, small model on 32 chats
//! cargo run --release --example train -- --config run.toml       # as the file says; docs/training.md has its keys
//! cargo run --release --example train -- --config run.toml --resume
//! ```
//!
//! The folder `out` gets `step-NNNNNNNN/` (weights in Hugging Face's format, tokenizer, and the state to go on from),
//! `metrics.jsonl`, `curves.svg` and TensorBoard's files in `events/`.

#[allow(dead_code)] // other examples use the rest
mod common;
#[path = "train/run.rs"]
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Parser;
use run::{Run, RunConfig};

const DEFAULT_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/train/sft.toml");

#[derive(Debug, Parser)]
#[command(about = "Trains a model as a TOML file says")]
struct Args {
    /// The TOML file. Default: examples/train/sft.toml. Paths in it are relative to the folder that the program runs in.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Go on from the latest checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// The run's folder, instead of the file's `out`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Steps in all, instead of the file's `steps`.
    #[arg(long)]
    steps: Option<u64>,
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
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    ctrlc::set_handler(move || {
        // The second time, at once.
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("Ctrl-C")?;
    Run::open(config, args.resume)?.finish(&stopped)
}
