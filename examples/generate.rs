//! Loads a checkpoint and completes a prompt, token by token.
//!
//! ```bash
//! cargo run --release --example generate
//! cargo run --release --example generate -- --model DIR --prompt "Once upon a time" -n 100 --temperature 0.6
//! ```
//!
//! Without `--model` it runs the embedded checkpoint on a conversation with tools, already encoded.

#[allow(dead_code)] // other examples use the rest
mod common;
mod generate {
    pub mod trace;
}

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::generate::trace::TraceFile;
use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use clap::Parser;
use common::terminal::{complain, escaped_lines};
use deepseek_v32::Config;
use deepseek_v32::error::one_line_path;
use deepseek_v32::generation::{
    Cancel, Completion, Engine, EngineOptions, GenerationError, LocalModel, Request, SamplingParams, Stats,
    StopConditions, Tokenizer,
};
use deepseek_v32::weights;
use serde_json::json;

/// A user's question with tools at hand, in V3.2's chat format.
const DEFAULT_PROMPT: &str = include_str!("generate/prompt.txt");

/// The start of a conversation for checkpoints that need no tools.
const PLAIN_PROMPT: &str =
    "<｜begin▁of▁sentence｜><｜User｜>Explain in one sentence what sparse attention is.<｜Assistant｜></think>";

const DEFAULT_MAX_TOKENS: usize = 512;

#[derive(Debug, Parser)]
#[command(about = "Completes a prompt with a checkpoint of the DeepSeek-V3 family")]
struct Args {
    /// Folder of the checkpoint, or owner/name on the hub (feature hub). Default: the embedded one.
    #[arg(long)]
    model: Option<String>,
    /// Text to complete as it stands, with its control tokens: it is put into no chat format (the examples chat and
    /// chat_template do that). Default: a question, which is shown.
    #[arg(long, conflicts_with = "prompt_file", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File that holds the text to complete.
    #[arg(long)]
    prompt_file: Option<PathBuf>,
    /// Most tokens to generate. Default: as generation_config.json says, else 512.
    #[arg(long, short = 'n', allow_negative_numbers = true)]
    max_tokens: Option<usize>,
    /// 0 = greedy. Default: as generation_config.json says, else greedy.
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Keep the most probable tokens up to this mass.
    #[arg(long, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Keep this many of the most probable tokens.
    #[arg(long, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Keep tokens at least this many times as probable as the best.
    #[arg(long, allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 299792458, allow_negative_numbers = true)]
    seed: u64,
    /// Penalty on repeated tokens; 1 = none. Default: as generation_config.json says, else none.
    #[arg(long, allow_negative_numbers = true)]
    repeat_penalty: Option<f64>,
    /// Tokens that the penalty looks back on. Default: all.
    #[arg(long, allow_negative_numbers = true)]
    repeat_last_n: Option<usize>,
    /// Text that ends the answer; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// Go on after the end-of-sentence token.
    #[arg(long)]
    ignore_eos: bool,
    /// Print the log-probability of every token and of the K most probable ones.
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    logprobs: Option<usize>,
    /// Draft tokens with the MTP layer.
    #[arg(long)]
    mtp: bool,
    #[command(flatten)]
    model_args: common::ModelArgs,
    /// Write a trace for chrome://tracing to a file that is not there yet.
    #[arg(long, value_name = "FILE")]
    tracing: Option<PathBuf>,
    /// Let --tracing write over a file that is there.
    #[arg(long, requires = "tracing")]
    overwrite: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    let prompt = read_prompt(&args)?;
    let dir = common::resolve(args.model.as_deref())?;
    if let (Some(file), Some(prompt)) = (&args.tracing, &args.prompt_file) {
        let same = file.canonicalize().ok().is_some_and(|file| prompt.canonicalize().ok() == Some(file));
        ensure!(!same, "--tracing {}: the file of --prompt-file", one_line_path(file));
    }
    let trace = args.tracing.as_deref().map(|file| TraceFile::start(file, args.overwrite, &dir)).transpose()?;
    let generated = generate(&args, &dir, &prompt);
    let traced = trace.map_or(Ok(()), TraceFile::finish);
    generated.and(traced)
}

fn generate(args: &Args, dir: &Path, prompt: &str) -> Result<()> {
    let tokenizer = Tokenizer::load(dir)?;
    // Before the weights, which may take minutes.
    let config = weights::load_config(dir)?;
    let mut request = request(args, dir, prompt, &tokenizer, &config)?;
    request.params.validate(config.vocab_size).map_err(|error| explained(error, args, dir))?;
    let (model, load_time) = common::load_model(dir, &args.model_args.load_options()?, args.model_args)?;
    if args.mtp && !model.has_mtp() {
        bail!("--mtp: {} has no MTP layer", one_line_path(dir));
    }
    let device = model.device().clone();
    let model = LocalModel::new(Arc::new(model))?;
    let mut engine = Engine::new(model, EngineOptions::speculative(args.mtp))?.with_tokenizer(tokenizer)?;
    let cancel = Cancel::new();
    request.cancel = Some(cancel.clone());
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let mut is_known = args.prompt.is_some() || args.prompt_file.is_some();
    let completion = engine.generate(request, |token| {
        if !std::mem::replace(&mut is_known, true) {
            // The last turn says what the answer answers.
            let turn = prompt.rfind("<｜User｜>").map_or("", |at| &prompt[at..]);
            complain(&format!("no --prompt: a conversation that ends with {turn}"));
        }
        if !args.json && written.is_ok() {
            written = out.write_all(shown(&token.text).as_bytes()).and_then(|()| out.flush());
            if written.is_err() {
                cancel.cancel();
            }
        }
    });
    let completion = completion.map_err(|error| explained(error, args, dir))?;
    let written = written.map_err(anyhow::Error::from).and_then(|()| match args.json {
        true => print_json(&mut out, &completion, engine.stats(), load_time.as_secs_f64()),
        false => print_text(&mut out, &completion, &engine, &device, load_time.as_secs_f64()),
    });
    written.context("standard output")
}

/// What the model wrote: as it is, unless it could steer a terminal.
fn shown(text: &str) -> Cow<'_, str> {
    if std::io::stdout().is_terminal() { escaped_lines(text).into() } else { text.into() }
}

/// An error with what the library cannot know: the option that a parameter is from, the prompt's file, the checkpoint.
fn explained(error: GenerationError, args: &Args, dir: &Path) -> anyhow::Error {
    use GenerationError::*;
    match error {
        Parameter { name, value, expected } => {
            let option = match name {
                "repetition_penalty" => "repeat-penalty".to_string(),
                "stop.strings" => "stop".to_string(),
                name => name.replace('_', "-"),
            };
            anyhow::anyhow!("--{option} is {value}: expected {expected}")
        }
        error @ (EmptyPrompt | PromptTooLong { .. } | PromptTooLarge { .. }) => match &args.prompt_file {
            Some(file) => anyhow::Error::from(error).context(one_line_path(file)),
            None => anyhow::Error::from(error).context("--prompt"),
        },
        error @ (Candle(_) | Logit { .. } | NoCandidate { .. } | ModelOutput { .. }) => {
            anyhow::Error::from(error).context(one_line_path(dir))
        }
        error => error.into(),
    }
}

fn read_prompt(args: &Args) -> Result<String> {
    Ok(match (&args.prompt, &args.prompt_file, &args.model) {
        (Some(prompt), _, _) => prompt.clone(),
        (None, Some(path), _) => common::read_text(path)?,
        (None, None, None) => DEFAULT_PROMPT.to_string(),
        (None, None, Some(_)) => PLAIN_PROMPT.to_string(),
    })
}

fn request(args: &Args, dir: &Path, prompt: &str, tokenizer: &Tokenizer, config: &Config) -> Result<Request> {
    let defaults = common::generation_config(dir)?;
    let recommended = SamplingParams::recommended(&defaults);
    let mut eos = if args.ignore_eos { Vec::new() } else { config.eos_token_id.clone() };
    eos.extend(defaults.eos_token_id.iter().filter(|_| !args.ignore_eos));
    let fits = tokenizer.check_size(prompt, config.max_position_embeddings);
    fits.map_err(|error| explained(error, args, dir))?;
    let ids = tokenizer.encode(prompt, false)?;
    if ids.is_empty() && !prompt.is_empty() {
        bail!("{}: makes no token of the prompt", one_line_path(&dir.join("tokenizer.json")));
    }
    let mut request = Request::new(ids);
    request.params = SamplingParams {
        temperature: args.temperature.unwrap_or(recommended.temperature),
        top_p: args.top_p.unwrap_or(recommended.top_p),
        top_k: args.top_k.or(recommended.top_k),
        min_p: args.min_p.unwrap_or(recommended.min_p),
        repetition_penalty: args.repeat_penalty.unwrap_or(recommended.repetition_penalty),
        repeat_last_n: args.repeat_last_n,
        seed: Some(args.seed),
        ..recommended
    };
    request.stop = StopConditions { ids: eos, strings: args.stop.clone() };
    request.max_tokens = args.max_tokens.or(defaults.max_new_tokens).or(Some(DEFAULT_MAX_TOKENS));
    request.logprobs = args.logprobs;
    Ok(request)
}

fn print_text(
    out: &mut impl Write,
    completion: &Completion,
    engine: &Engine<LocalModel>,
    device: &Device,
    load_seconds: f64,
) -> Result<()> {
    let streamed: usize = completion.tokens.iter().map(|token| token.text.len()).sum();
    writeln!(out, "{}", shown(completion.text.get(streamed..).unwrap_or_default()))?;
    let name = |id: u32| {
        let text = engine.tokenizer().and_then(|tokenizer| tokenizer.decode(&[id], Default::default()).ok());
        format!("{:?}", text.unwrap_or_default())
    };
    for token in &completion.tokens {
        if let Some(logprobs) = &token.logprobs {
            let top: Vec<_> = logprobs.top.iter().map(|&(id, p)| format!("{} {p:.4}", name(id))).collect();
            writeln!(out, "{:>6} {:<24} {:>9.4}   {}", token.id, name(token.id), logprobs.logprob, top.join("  "))?;
        }
    }
    let stats = engine.stats();
    let rate = |tokens: usize, seconds: f64| tokens as f64 / seconds.max(1e-9);
    writeln!(out, "\n{}", deepseek_v32::ops::backend_report_on(device))?;
    writeln!(out, "loaded in {load_seconds:.2} s")?;
    writeln!(
        out,
        "prompt: {} tokens in {:.3} s, {:.1} tokens/s",
        stats.prompt_tokens,
        stats.prefill_seconds,
        rate(stats.prompt_tokens, stats.prefill_seconds)
    )?;
    // The first token comes from the prompt's pass.
    let decoded = stats.generated_tokens.saturating_sub(1);
    writeln!(
        out,
        "decode: {decoded} tokens in {:.3} s, {:.1} tokens/s ({})",
        stats.decode_seconds,
        rate(decoded, stats.decode_seconds),
        completion.reason
    )?;
    if let Some(rate) = stats.acceptance_rate() {
        writeln!(out, "MTP: {} of {} drafts accepted, {:.1} %", stats.accepted, stats.drafted, rate * 100.0)?;
    }
    Ok(())
}

fn print_json(out: &mut impl Write, completion: &Completion, stats: &Stats, load_seconds: f64) -> Result<()> {
    let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
    let logprobs: Vec<_> = completion
        .tokens
        .iter()
        .filter_map(|token| token.logprobs.as_ref())
        .map(|logprobs| json!({"logprob": logprobs.logprob, "top": logprobs.top}))
        .collect();
    let object = json!({
        "text": completion.text,
        "ids": ids,
        "logprobs": logprobs,
        "finish_reason": completion.reason.to_string(),
        "load_seconds": load_seconds,
        "prompt_tokens": stats.prompt_tokens,
        "prefill_seconds": stats.prefill_seconds,
        "generated_tokens": stats.generated_tokens,
        "decode_seconds": stats.decode_seconds,
        "drafted": stats.drafted,
        "accepted": stats.accepted,
    });
    writeln!(out, "{object}")?;
    Ok(())
}
