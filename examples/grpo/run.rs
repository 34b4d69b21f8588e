//! A run as a TOML file describes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use deepseek_v32::chat::Version;
use deepseek_v32::chat_model::{LocalChat, detect_version};
use deepseek_v32::distributed::SingleRank;
use deepseek_v32::error::one_line_path;
use deepseek_v32::generation::{Engine, EngineOptions, LocalModel, Service, Tokenizer};
use deepseek_v32::model::ModelOptions;
use deepseek_v32::rl::rollout::{Episode, Group, Rollouts, read_episodes, write_episodes};
use deepseek_v32::rl::{GrpoReport, GrpoTrainer, RlError};
use deepseek_v32::training::sft::{SftOptions, read_conversations};
use deepseek_v32::training::{EventFile, MetricsFile, Parameters, Trainer, TrainingError, latest_checkpoint};
use deepseek_v32::weights::{Checkpoint, LoadOptions};
use deepseek_v32::{Config, DeepSeekV32};
use indicatif::{ProgressBar, ProgressStyle};

use super::config::{FineTuning, RunConfig};
use super::{curves, environments};

pub struct Run {
    config: RunConfig,
    trainer: GrpoTrainer,
    metrics: MetricsFile,
    events: EventFile,
    /// Where recorded episodes come from, if none are played.
    replay: Option<PathBuf>,
}

impl Run {
    pub fn open(config: RunConfig, resume: bool, replay: Option<PathBuf>) -> Result<Self> {
        ensure!(config.save_minutes >= 0.0, "save_minutes is {}, expected at least 0", config.save_minutes);
        let latest = latest_checkpoint(&config.out)?;
        if let (Some(latest), false) = (&latest, resume) {
            bail!("{}: there already; --resume goes on from it", one_line_path(latest));
        }
        ensure!(latest.is_some() || !resume, "{}: no checkpoint to resume", one_line_path(&config.out));
        let tasks = environments::open(&config.environments)?;
        let rewards = config.rewards.open()?;
        let tokenizer = Tokenizer::load(&config.tokenizer)?;
        let (mut varmap, model_config, version) = config.weights(&tokenizer)?;
        tokenizer.check_vocab_size(model_config.vocab_size)?;
        let init =
            |varmap: &VarMap| DeepSeekV32::init(&model_config, varmap, config.model.seed, DType::F32, &Device::Cpu);
        let mut model = init(&varmap)?;
        if let (Some(sft), None) = (&config.sft, &latest) {
            varmap = sft.run(model, varmap, &tokenizer, version)?;
            model = init(&varmap)?;
        }
        let chat = engine(&varmap, &model_config, &config, tokenizer, version)?;
        let mut trainer = GrpoTrainer::new(model, varmap, &chat, tasks, rewards, config.grpo.clone())?;
        if let Some(latest) = latest {
            trainer.resume(&latest)?;
            eprintln!("resumed from {}", one_line_path(&latest));
        }
        fs::create_dir_all(&config.out).with_context(|| one_line_path(&config.out))?;
        let metrics = MetricsFile::open(config.out.join("metrics.jsonl"), trainer.steps())?;
        let events = EventFile::create(config.out.join("events"), trainer.steps())?;
        let run = Self { config, trainer, metrics, events, replay };
        if !resume {
            // The first weights are the reference, and those of fine-tuning take time to make.
            run.save()?;
        }
        Ok(run)
    }

    /// Trains to the last step, or until `stopped`; saves in either case.
    pub fn finish(mut self, stopped: &AtomicBool) -> Result<()> {
        let parameters = self.trainer.parameters().elements();
        eprintln!("{parameters} parameters learn; {}", one_line_path(&self.config.out));
        let bar = ProgressBar::new(self.config.steps).with_position(self.trainer.steps());
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {eta} left, {msg}")?);
        let between = Duration::try_from_secs_f64(self.config.save_minutes * 60.0).unwrap_or(Duration::MAX);
        let mut saved = Instant::now();
        while self.trainer.steps() < self.config.steps && !stopped.load(Ordering::Relaxed) {
            let Some(report) = self.step(&bar)? else { break };
            let rate = report.tokens as f64 / report.seconds.max(1e-9);
            let (reward, solved) = (report.reward, 100.0 * report.solved);
            bar.set_message(format!("reward {reward:.3}, {solved:.0} % solved, {rate:.0} tokens/s"));
            bar.inc(1);
            self.events.scalars(report.step, &curves::scalars(&report))?;
            self.metrics.write(&report)?;
            if saved.elapsed() >= between && self.trainer.steps() < self.config.steps {
                // A full disk may have space again later; what was saved before is still there.
                match self.save() {
                    Err(error) if is_write(&error) => bar.suspend(|| eprintln!("not saved: {error}")),
                    other => drop(other?),
                }
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        let path = self.save()?;
        let reports: Vec<GrpoReport> = MetricsFile::read(self.config.out.join("metrics.jsonl"))?;
        curves::draw(&self.config.out.join("curves.svg"), &reports)?;
        summarize(&reports);
        println!("{}", one_line_path(&path));
        Ok(())
    }

    /// Takes a step; `None` if there are no recorded episodes left.
    fn step(&mut self, bar: &ProgressBar) -> Result<Option<GrpoReport>> {
        match self.try_step(bar) {
            Err(error) if error.is::<RlError>() => {
                bar.finish_and_clear();
                let path = self.trainer.save(self.config.out.join("failed"), 1)?;
                Err(error.context(format!("the state before this step is in {}", one_line_path(&path))))
            }
            other => other,
        }
    }

    fn try_step(&mut self, bar: &ProgressBar) -> Result<Option<GrpoReport>> {
        let name = format!("step-{:08}", self.trainer.steps());
        if let Some(dir) = &self.replay {
            let Some(episodes) = read_episodes(dir, &name)? else { return Ok(None) };
            return Ok(Some(self.trainer.step_on(&grouped(episodes))?));
        }
        let own = self.config.out.join("rollouts");
        // Those of a step that was played but not learnt from before the run ended.
        if let Some(episodes) = read_episodes(&own, &name)? {
            return Ok(Some(self.trainer.step_on(&grouped(episodes))?));
        }
        let played = Instant::now();
        let rollouts = self.trainer.play(&mut |_| bar.tick())?;
        let rollout_seconds = played.elapsed().as_secs_f64();
        if self.config.keep_rollouts > 0 {
            let episodes: Vec<Episode> =
                rollouts.groups.iter().chain(&rollouts.equal).flat_map(|group| group.episodes.clone()).collect();
            write_episodes(&own, &name, &episodes)?;
            self.forget_rollouts(&own)?;
        }
        let report = self.trainer.step_on(&rollouts)?;
        Ok(Some(GrpoReport { rollout_seconds, seconds: report.seconds + rollout_seconds, ..report }))
    }

    /// Removes the episodes of earlier steps.
    fn forget_rollouts(&self, dir: &Path) -> Result<()> {
        let Some(old) = self.trainer.steps().checked_sub(self.config.keep_rollouts as u64) else { return Ok(()) };
        for extension in ["jsonl", "safetensors"] {
            let path = dir.join(format!("step-{old:08}.{extension}"));
            if path.is_file() {
                fs::remove_file(&path).with_context(|| one_line_path(&path))?;
            }
        }
        Ok(())
    }

    /// Saves a checkpoint that `chat` can open.
    fn save(&self) -> Result<PathBuf> {
        let path = self.trainer.save(&self.config.out, self.config.keep)?;
        super::common::copy_tokenizer(&self.config.tokenizer, &path)?;
        Ok(path)
    }
}

/// Whether a file could not be written.
fn is_write(error: &anyhow::Error) -> bool {
    let full = |error: &RlError| matches!(error, RlError::Training(TrainingError::Write { .. }));
    error.downcast_ref().is_some_and(full) || error.root_cause().is::<std::io::Error>()
}

/// Episodes as the groups that they were.
fn grouped(mut episodes: Vec<Episode>) -> Rollouts {
    episodes.sort_by_key(|episode| (episode.group, episode.member));
    let groups = episodes.chunk_by(|one, other| one.group == other.group);
    let group = |episodes: &[Episode]| Some(Group { id: episodes.first()?.group, episodes: episodes.to_vec() });
    let (groups, equal) = groups.filter_map(group).partition(Group::differs);
    Rollouts { groups, equal }
}

/// Says what was learnt.
fn summarize(reports: &[GrpoReport]) {
    let part = (reports.len() / 10).max(1).min(reports.len());
    let mean = |reports: &[GrpoReport], value: fn(&GrpoReport) -> f64| {
        reports.iter().map(value).sum::<f64>() / reports.len().max(1) as f64
    };
    let (first, last) = (&reports[..part], &reports[reports.len() - part..]);
    let (reward, solved) = (|report: &GrpoReport| report.reward, |report: &GrpoReport| 100.0 * report.solved);
    println!(
        "mean of the first and of the last {part} steps: reward {:.3} and {:.3}, solved {:.0} % and {:.0} %",
        mean(first, reward),
        mean(last, reward),
        mean(first, solved),
        mean(last, solved)
    );
}

impl RunConfig {
    /// The variables to begin with, empty for a new model, with their config and chat format.
    fn weights(&self, tokenizer: &Tokenizer) -> Result<(VarMap, Config, Version)> {
        let varmap = VarMap::new();
        match (&self.model.config, &self.model.checkpoint) {
            (Some(path), None) => {
                let text = super::common::read_text(path)?;
                Ok((varmap, Config::from_json(&text).with_context(|| one_line_path(path))?, Version::V32))
            }
            (None, Some(dir)) => {
                let checkpoint = Checkpoint::open(dir)?;
                let options = LoadOptions { dtype: DType::F32, weight_dtype: None, ..LoadOptions::default() };
                checkpoint.load_variables(&varmap, &options, |_| ())?;
                Ok((varmap, checkpoint.config().clone(), detect_version(dir, tokenizer).version))
            }
            _ => bail!("[model]: expected one of config and checkpoint"),
        }
    }
}

impl FineTuning {
    /// Fine-tunes a model; returns its variables.
    fn run(&self, model: DeepSeekV32, varmap: VarMap, tokenizer: &Tokenizer, version: Version) -> Result<VarMap> {
        let options = SftOptions { version, thinking: self.thinking, turns: self.turns };
        let examples = read_conversations(&self.chats, tokenizer, &options)?;
        let mut trainer = Trainer::new(model, varmap, examples, self.trainer.clone(), Box::new(SingleRank))?;
        let bar = ProgressBar::new(self.steps);
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} steps of fine-tuning, loss {msg}")?);
        let mut loss = 0.0;
        for _ in 0..self.steps {
            loss = trainer.step()?.next_token;
            bar.set_message(format!("{loss:.3}"));
            bar.inc(1);
        }
        bar.finish_and_clear();
        println!("fine-tuned for {} steps: loss {loss:.3} nats a token", self.steps);
        Ok(trainer.varmap().clone())
    }
}

/// An engine of the variables as they are, in the dtype that the trainer gives it.
fn engine(
    varmap: &VarMap,
    model: &Config,
    config: &RunConfig,
    tokenizer: Tokenizer,
    version: Version,
) -> Result<LocalChat> {
    let variables = Parameters::of(varmap, |_| true);
    let copies = variables.iter().map(|(name, variable)| Ok((name.to_string(), variable.as_tensor().detach().copy()?)));
    let vb = VarBuilder::from_tensors(copies.collect::<Result<_>>()?, config.grpo.sampler_dtype(), &Device::Cpu);
    let model = DeepSeekV32::with_options(model, ModelOptions::default(), vb)?;
    let options = EngineOptions { prefix_tokens: config.prefix_tokens, ..EngineOptions::default() };
    let engine = Engine::new(LocalModel::new(Arc::new(model))?, options)?.with_tokenizer(tokenizer)?;
    Ok(LocalChat::new("policy", Service::start(engine)?, version)?)
}
