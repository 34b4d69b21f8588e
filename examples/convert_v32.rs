//! Makes a V3.2 checkpoint of a dense one: adds indexers, warms them up, trains with sparse attention.
//!
//! ```bash
//! cargo run --release --example convert_v32 -- --from V3_DIR --to NEW_DIR --data text.jsonl --warm-up-steps 200 --sparse-steps 200
//! ```
//!
//! Prints what the model loses by sparse attention before, between and after: the recall of each layer's indexer (the
//! attention's mass on what it chooses over that on the best choice) and the loss, dense and sparse.

#[allow(dead_code)] // other examples use the rest
mod common;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use clap::Parser;
use deepseek_v32::error::one_line_path;
use deepseek_v32::generation::Tokenizer;
use deepseek_v32::training::{
    ComputeDtype, ConversionEvent, ConversionOptions, CorpusOptions, Example, IndexerShape, LongExamples, Packer,
    PackingOptions, SparseReport, Stage, convert, read_corpus,
};
use deepseek_v32::weights::{Checkpoint, DEFAULT_SHARD_BYTES, check_folder, save_variables};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, Parser)]
#[command(about = "Makes a V3.2 checkpoint of a dense V3 one")]
struct Args {
    /// The dense checkpoint, with its tokenizer.
    #[arg(long)]
    from: PathBuf,
    /// The folder of the result.
    #[arg(long)]
    to: PathBuf,
    /// Text files, or JSON lines with a field `text`.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// What is measured on. Default: the last tenth of the sequences.
    #[arg(long, num_args = 1..)]
    held_out: Vec<PathBuf>,
    /// Tokens of a sequence, at most; documents are split. More than --index-topk.
    #[arg(long, default_value_t = 4096)]
    sequence_tokens: usize,
    /// Sequences of that length in a step.
    #[arg(long, default_value_t = 1)]
    sequences_per_step: usize,
    /// Heads of an indexer.
    #[arg(long, default_value_t = IndexerShape::default().index_n_heads)]
    index_n_heads: usize,
    /// Dimensions of a head.
    #[arg(long, default_value_t = IndexerShape::default().index_head_dim)]
    index_head_dim: usize,
    /// Positions that a token attends to.
    #[arg(long, default_value_t = IndexerShape::default().index_topk)]
    index_topk: usize,
    /// Steps in which the indexers learn from dense attention and all else is frozen.
    #[arg(long, default_value_t = 1000)]
    warm_up_steps: u64,
    /// Learning rate of these steps.
    #[arg(long, default_value_t = 1e-3)]
    warm_up_rate: f64,
    /// Steps with sparse attention in which everything learns.
    #[arg(long, default_value_t = 1000)]
    sparse_steps: u64,
    /// Learning rate of these steps.
    #[arg(long, default_value_t = 7.3e-6)]
    sparse_rate: f64,
    /// Compute in bf16.
    #[arg(long)]
    bf16: bool,
    /// Compute each layer's activations again in the backward pass: less memory, more time.
    #[arg(long)]
    checkpointing: bool,
    /// Decides the indexers' initial values and the order of the data.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    check_folder(&args.from)?;
    let config_file = args.to.join("config.json");
    ensure!(!config_file.exists(), "{}: there already", one_line_path(&config_file));
    let checkpoint = Checkpoint::open(&args.from)?;
    let (mut data, mut held_out) = (args.sequences(&checkpoint, &args.data)?, Vec::new());
    if args.held_out.is_empty() {
        ensure!(
            data.len() > 1,
            "--data: one sequence of --sequence-tokens, expected some to learn from and some to hold out"
        );
        held_out = data.split_off(data.len() - data.len().div_ceil(10));
    } else {
        held_out.extend(args.sequences(&checkpoint, &args.held_out)?);
    }
    let options = args.options();
    let bar = ProgressBar::new(options.warm_up.steps + options.sparse.steps);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {eta} left, {msg}")?);
    let mut tell = |event| match event {
        ConversionEvent::Measured(stage, report) => bar.suspend(|| print_report(stage, &report)),
        ConversionEvent::Step(_, report) => {
            bar.set_message(format!("indexers {:.4}, loss {:.3}", report.indexer, report.next_token));
            bar.inc(1);
        }
    };
    let (model, varmap) = convert(&checkpoint, &data, &held_out, &options, &Device::Cpu, &mut tell)?;
    bar.finish_and_clear();
    fs::create_dir_all(&args.to).with_context(|| one_line_path(&args.to))?;
    save_variables(&args.to, model.config(), &varmap, DEFAULT_SHARD_BYTES)?;
    common::copy_tokenizer(&args.from, &args.to)?;
    println!("{}", one_line_path(&args.to));
    Ok(())
}

impl Args {
    fn options(&self) -> ConversionOptions {
        let Self { index_n_heads, index_head_dim, index_topk, .. } = *self;
        let indexer = IndexerShape { index_n_heads, index_head_dim, index_topk };
        let mut options = ConversionOptions::new(indexer, self.warm_up_steps, self.sparse_steps, self.sequence_tokens);
        options.seed = self.seed;
        for (stage, rate) in [(&mut options.warm_up, self.warm_up_rate), (&mut options.sparse, self.sparse_rate)] {
            stage.trainer.schedule.learning_rate = rate;
            stage.trainer.batches_per_step = self.sequences_per_step;
            stage.trainer.packing.seed = self.seed;
            stage.trainer.checkpointing = self.checkpointing;
            stage.trainer.dtype = self.bf16.then_some(ComputeDtype::Bf16);
        }
        options
    }

    /// The documents of files in sequences.
    fn sequences(&self, checkpoint: &Checkpoint, files: &[PathBuf]) -> Result<Vec<Example>> {
        let tokenizer = Tokenizer::load(&self.from)?;
        let config = checkpoint.config();
        tokenizer.check_vocab_size(config.vocab_size)?;
        let around = CorpusOptions { bos: config.bos_token_id, eos: config.eos_token_id.first().copied() };
        let documents: Vec<_> =
            files.iter().map(|file| read_corpus(file, &tokenizer, &around)).collect::<Result<_, _>>()?;
        let packing =
            PackingOptions { long_examples: LongExamples::Split, ..PackingOptions::new(self.sequence_tokens) };
        Ok(Packer::new(documents.concat(), packing)?.examples().to_vec())
    }
}

fn print_report(stage: Option<Stage>, report: &SparseReport) {
    let when = match stage {
        None => "new indexers",
        Some(Stage::IndexerWarmUp) => "after the warm-up",
        Some(_) => "after the sparse stage",
    };
    let layers: Vec<String> = report.recall.iter().map(|recall| format!("{recall:.3}")).collect();
    println!(
        "{when}: recall {:.4} (layers: {}); loss dense {:.4}, sparse {:.4}, gap {:+.4}",
        report.mean_recall(),
        layers.join(" "),
        report.dense_loss,
        report.sparse_loss,
        report.gap()
    );
}
