//! Makes fine-tuning data of specialists: each plays its own tasks, and what its verifier takes is kept.
//!
//! ```bash
//! cargo run --release --example distill -- --specialist MATHS_DIR --tasks maths.jsonl \
//!     --specialist AGENT_DIR --tasks ledger:200 --out distilled.jsonl
//! ```
//!
//! A line of a task file is `{"prompt": …, "answer": …}`, with `id` and `domain` if wanted; solved is a task whose final
//! answer is that text, spaces around it aside, or with `"contains": true` contains it. `ledger:N` are N tasks of the built-in
//! environment. The result is a file in OpenAI's `messages` format: the data of a student, as `[[data]] chats` of `train`.

#[allow(dead_code)] // other examples use the rest
mod common;
#[path = "distill/tasks.rs"]
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use deepseek_v32::agent::Stop;
use deepseek_v32::chat_model::{ChatModel, LocalChat};
use deepseek_v32::error::one_line_path;
use deepseek_v32::generation::{EngineOptions, RecordOptions};
use deepseek_v32::rl::reward::RewardMix;
use deepseek_v32::rl::rollout::{Episode, RolloutOptions, collect};
use serde_json::json;

#[derive(Debug, Parser)]
#[command(about = "Makes fine-tuning data of specialists' verified solutions")]
struct Args {
    /// A specialist's checkpoint; one --tasks for each.
    #[arg(long, required = true)]
    specialist: Vec<String>,
    /// Its tasks: a file of JSON lines, or ledger:N.
    #[arg(long, required = true)]
    tasks: Vec<String>,
    /// The file of conversations.
    #[arg(long)]
    out: PathBuf,
    /// Attempts at each task; at least 2.
    #[arg(long, default_value_t = 4)]
    attempts: usize,
    /// Solutions of a task that are kept, the shortest first.
    #[arg(long, default_value_t = 1)]
    keep: usize,
    /// Temperature of the attempts.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Tokens of an answer, at most. Default: as many as the context has room for.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Whether the specialists think before they answer.
    #[arg(long)]
    thinking: bool,
    /// Decides the attempts and the tasks of ledger:N.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: common::ModelArgs,
}

fn main() -> ExitCode {
    common::start(distill)
}

fn distill(args: Args) -> Result<()> {
    let (specialists, tasks) = (args.specialist.len(), args.tasks.len());
    ensure!(specialists == tasks, "--tasks: {tasks} of them, expected one for each --specialist, {specialists}");
    let file = File::create_new(&args.out).with_context(|| one_line_path(&args.out))?;
    let mut out = BufWriter::new(file);
    let mut conversations = 0;
    for (specialist, tasks) in args.specialist.iter().zip(&args.tasks) {
        conversations += args.play(specialist, tasks, &mut out)?;
    }
    out.flush().with_context(|| one_line_path(&args.out))?;
    println!("{}: {conversations} conversations", one_line_path(&args.out));
    Ok(())
}

impl Args {
    /// Lets one specialist play and writes what it solved; returns how many conversations these are.
    fn play(&self, specialist: &str, tasks: &str, out: &mut impl Write) -> Result<usize> {
        let tasks = tasks::read(tasks, self.seed)?;
        let tools: BTreeMap<String, _> = tasks.iter().map(|task| (task.id().to_string(), task.tools())).collect();
        ensure!(tools.len() == tasks.len(), "{specialist}: two of its tasks have the same id");
        let dir = common::resolve(Some(specialist))?;
        let load = self.model.load_options()?;
        let engine = EngineOptions { prefix_tokens: 65_536, ..EngineOptions::default() };
        let chat = common::with_spinner(&dir, |progress| LocalChat::load(&dir, &load, self.model, engine, progress))?;
        let model: Arc<dyn ChatModel> = Arc::new(chat);
        let mut options =
            RolloutOptions { group_size: self.attempts, max_refills: Some(0), seed: self.seed, ..Default::default() };
        options.record = RecordOptions::default();
        options.agent.params.temperature = self.temperature;
        options.agent.max_answer_tokens = self.max_tokens;
        options.agent.thinking = self.thinking;
        let wanted = tasks.len();
        let played = collect(&model, &mut tasks.into_iter(), wanted, 0, &RewardMix::outcome(), &options, &mut |_| ())?;
        // Groups that are all solved teach GRPO nothing, but a student as much as others.
        let groups = played.groups.iter().chain(&played.equal);
        let mut solutions: BTreeMap<u64, Vec<&Episode>> = BTreeMap::new();
        let mut attempts = 0;
        for episode in groups.flat_map(|group| &group.episodes) {
            attempts += 1;
            if episode.verdict.solved && episode.stop == Stop::Answer && episode.malformed == 0 {
                solutions.entry(episode.group).or_default().push(episode);
            }
        }
        let solved: usize = solutions.values().map(Vec::len).sum();
        let mut kept = 0;
        for (_, mut episodes) in solutions.into_iter() {
            episodes.sort_by_key(|episode| (episode.usage.completion_tokens, episode.member));
            let mut seen = BTreeSet::new();
            for episode in episodes {
                let messages = serde_json::to_string(&episode.messages)?;
                if seen.len() == self.keep || !seen.insert(messages) {
                    continue;
                }
                let line = json!({
                    "messages": episode.messages,
                    "tools": tools.get(&episode.task).map_or(&[][..], Vec::as_slice),
                    "task": episode.task,
                    "domain": episode.domain,
                });
                writeln!(out, "{line}").with_context(|| one_line_path(&self.out))?;
                kept += 1;
            }
        }
        println!("{}: {wanted} tasks, {solved} of {attempts} attempts solved, {kept} kept", one_line_path(&dir));
        Ok(kept)
    }
}
