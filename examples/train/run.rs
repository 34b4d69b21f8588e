//! A run as a TOML file describes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use candle_nn::VarMap;
use deepseek_v32::chat::Version;
use deepseek_v32::distributed::SingleRank;
use deepseek_v32::error::{one_line, one_line_path};
use deepseek_v32::evaluation::{Panel, Series, svg};
use deepseek_v32::generation::Tokenizer;
use deepseek_v32::training::sft::{LearntTurns, SftOptions, Thinking, read_conversations};
use deepseek_v32::training::{
    CorpusOptions, EventFile, Example, MetricsFile, NGram, Packer, StepReport, Trainer, TrainerOptions, TrainingError,
    latest_checkpoint, read_corpus,
};
use deepseek_v32::weights::{Checkpoint, LoadOptions};
use deepseek_v32::{Config, DeepSeekV32};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

/// The keys of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's folder.
    pub out: PathBuf,
    /// Steps in all.
    pub steps: u64,
    /// The folder of the tokenizer's files.
    tokenizer: PathBuf,
    /// What is trained.
    model: ModelConfig,
    /// What it learns from.
    data: Vec<Data>,
    /// What it is measured on and does not learn from.
    #[serde(default)]
    validation: Vec<Data>,
    /// Prints the loss of an n-gram model of this order, counted on the data, beside that of the model.
    ngram: Option<usize>,
    /// Steps between two measurements.
    #[serde(default = "hundred")]
    evaluate_every: u64,
    /// Minutes between two checkpoints.
    #[serde(default = "ten")]
    save_minutes: f64,
    /// Checkpoints that are kept.
    #[serde(default = "two")]
    keep: usize,
    trainer: TrainerOptions,
}

fn hundred() -> u64 {
    100
}

fn ten() -> f64 {
    10.0
}

fn two() -> usize {
    2
}

/// A new model of a config, or the weights of a checkpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelConfig {
    config: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    #[serde(default)]
    seed: u64,
}

/// A file of text or of chats, or a folder whose `md`, `rs` and `txt` files are texts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    text: Option<PathBuf>,
    /// What of a folder of text is left out.
    #[serde(default)]
    except: Vec<PathBuf>,
    chats: Option<PathBuf>,
    #[serde(default)]
    thinking: Thinking,
    #[serde(default)]
    turns: LearntTurns,
}

impl RunConfig {
    pub fn load(path: &Path) -> Result<Self> {
        let text = super::common::read_text(path)?;
        let parsed = toml::from_str(&text);
        // The message of the parser has a picture of the place over several lines.
        parsed.map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            anyhow::anyhow!("{}:{line}: {}", one_line_path(path), one_line(error.message()))
        })
    }

    /// Takes the paths for relative to a folder.
    pub fn relative_to(&mut self, dir: &Path) {
        let paths = [Some(&mut self.tokenizer), self.model.config.as_mut(), self.model.checkpoint.as_mut()];
        let data = self
            .data
            .iter_mut()
            .chain(&mut self.validation)
            .flat_map(|Data { text, chats, except, .. }| text.iter_mut().chain(chats).chain(except));
        paths.into_iter().flatten().chain(data).for_each(|path| *path = dir.join(&*path));
    }
}

/// What `metrics.jsonl` has in a line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    report: StepReport,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<f64>,
}

pub struct Run {
    config: RunConfig,
    trainer: Trainer,
    validation: Vec<Example>,
    /// Order and loss of the n-gram model.
    baseline: Option<(usize, f64)>,
    metrics: MetricsFile,
    events: EventFile,
}

impl Run {
    pub fn open(config: RunConfig, resume: bool) -> Result<Self> {
        ensure!(config.save_minutes >= 0.0, "save_minutes is {}, expected at least 0", config.save_minutes);
        ensure!(config.evaluate_every > 0, "evaluate_every is 0, expected at least 1");
        let latest = latest_checkpoint(&config.out)?;
        if let (Some(latest), false) = (&latest, resume) {
            bail!("{}: there already; --resume goes on from it", one_line_path(latest));
        }
        ensure!(latest.is_some() || !resume, "{}: no checkpoint to resume", one_line_path(&config.out));
        let tokenizer = Tokenizer::load(&config.tokenizer)?;
        let varmap = VarMap::new();
        let model_config = match (&config.model.config, &config.model.checkpoint) {
            (Some(path), None) => {
                Config::from_json(&super::common::read_text(path)?).with_context(|| one_line_path(path))?
            }
            (None, Some(dir)) => {
                let checkpoint = Checkpoint::open(dir)?;
                let options = LoadOptions { dtype: DType::F32, weight_dtype: None, ..LoadOptions::default() };
                checkpoint.load_variables(&varmap, &options, |_| ())?;
                checkpoint.config().clone()
            }
            _ => bail!("[model]: expected one of config and checkpoint"),
        };
        let model = DeepSeekV32::init(&model_config, &varmap, config.model.seed, DType::F32, &Device::Cpu)?;
        tokenizer.check_vocab_size(model_config.vocab_size)?;
        let examples = |data: &[Data]| -> Result<Vec<Example>> {
            let read = data.iter().map(|data| data.read(&tokenizer, &model_config));
            Ok(read.collect::<Result<Vec<_>>>()?.concat())
        };
        let (data, validation) = (examples(&config.data)?, examples(&config.validation)?);
        let packing = config.trainer.packing;
        // As the data: long texts in several parts, where the file says so.
        let validation = match validation.is_empty() {
            true => validation,
            false => Packer::new(validation, packing)?.examples().to_vec(),
        };
        let baseline = match config.ngram {
            Some(_) if validation.is_empty() => bail!("ngram: there is no [[validation]] to measure it on"),
            Some(order) => {
                let data = Packer::new(data.clone(), packing)?;
                let ngram = NGram::count(data.examples(), order, model_config.vocab_size)?;
                Some((order, ngram.loss(&validation)?))
            }
            None => None,
        };
        let mut trainer = Trainer::new(model, varmap, data, config.trainer.clone(), Box::new(SingleRank))?;
        if let Some(latest) = latest {
            trainer.resume(&latest)?;
            eprintln!("resumed from {}", one_line_path(&latest));
        }
        fs::create_dir_all(&config.out).with_context(|| one_line_path(&config.out))?;
        let metrics = MetricsFile::open(config.out.join("metrics.jsonl"), trainer.steps())?;
        let events = EventFile::create(config.out.join("events"), trainer.steps())?;
        Ok(Self { config, trainer, validation, baseline, metrics, events })
    }

    /// Trains to the last step, or until `stopped`; saves in either case.
    pub fn finish(mut self, stopped: &AtomicBool) -> Result<()> {
        let parameters = self.trainer.parameters().elements();
        eprintln!("{parameters} parameters learn; {}", one_line_path(&self.config.out));
        let bar = ProgressBar::new(self.config.steps).with_position(self.trainer.steps());
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {eta} left, {msg}")?);
        let between = Duration::try_from_secs_f64(self.config.save_minutes * 60.0).unwrap_or(Duration::MAX);
        let mut saved = Instant::now();
        // Of the weights as they are.
        let mut held_out = None;
        while self.trainer.steps() < self.config.steps && !stopped.load(Ordering::Relaxed) {
            let report = match self.trainer.step() {
                Ok(report) => report,
                Err(error) => {
                    bar.finish_and_clear();
                    let path = self.trainer.save(self.config.out.join("failed"), 1)?;
                    let error = anyhow::Error::from(error);
                    return Err(error.context(format!("the state before this step is in {}", one_line_path(&path))));
                }
            };
            let last = self.trainer.steps() == self.config.steps;
            let due = last || self.trainer.steps().is_multiple_of(self.config.evaluate_every);
            let validation = match due && !self.validation.is_empty() {
                true => Some(self.trainer.evaluate(&self.validation)?),
                false => None,
            };
            held_out = validation;
            let rate = report.tokens as f64 / report.seconds;
            bar.set_message(format!("loss {:.3}, {rate:.0} tokens/s", report.next_token));
            bar.inc(1);
            self.log(Line { report, validation })?;
            if saved.elapsed() >= between && !last {
                // A full disk may have space again later; what was saved before is still there.
                if let Err(error @ TrainingError::Write { .. }) = self.save() {
                    bar.suspend(|| eprintln!("not saved: {error}"));
                }
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        let path = self.save()?;
        self.draw()?;
        if let Some((order, baseline)) = self.baseline {
            let model = held_out.map_or_else(|| self.trainer.evaluate(&self.validation), Ok)?;
            println!("held-out loss, nats a token: model {model:.4}, {order}-gram {baseline:.4}");
        }
        println!("{}", one_line_path(&path));
        Ok(())
    }

    fn log(&mut self, line: Line) -> Result<()> {
        let report = &line.report;
        let mut values = vec![
            ("loss/next_token", report.next_token),
            ("loss/mtp", report.mtp),
            ("loss/indexer", report.indexer),
            ("learning_rate", report.learning_rate),
            ("gradient_norm", report.gradient_norm),
            ("experts/max_violation", report.max_violation),
            ("tokens_per_second", report.tokens as f64 / report.seconds),
        ];
        values.extend(line.validation.map(|loss| ("loss/validation", loss)));
        self.events.scalars(report.step, &values)?;
        Ok(self.metrics.write(&line)?)
    }

    /// Saves a checkpoint that `chat` can open.
    fn save(&self) -> std::result::Result<PathBuf, TrainingError> {
        let path = self.trainer.save(&self.config.out, self.config.keep)?;
        for name in super::common::TOKENIZER_FILES {
            let (from, to) = (self.config.tokenizer.join(name), path.join(name));
            if from.is_file() {
                fs::copy(&from, &to).map_err(|source| TrainingError::Write { path: to, source })?;
            }
        }
        Ok(path)
    }

    /// Writes `curves.svg`.
    fn draw(&self) -> Result<()> {
        let lines: Vec<Line> = MetricsFile::read(self.config.out.join("metrics.jsonl"))?;
        let series = |name: &str, colour, value: &dyn Fn(&Line) -> Option<f64>| {
            let points: Vec<(f64, f64)> =
                lines.iter().filter_map(|line| Some((line.report.step as f64, value(line)?))).collect();
            (!points.is_empty()).then(|| Series { name: name.to_string(), points, dashed: false, colour })
        };
        let above = |value: f64| (value > 0.0).then_some(value);
        let losses = [
            series("next token", 0, &|line| above(line.report.next_token)),
            series("MTP", 1, &|line| above(line.report.mtp)),
            series("indexers", 2, &|line| above(line.report.indexer)),
            series("validation", 3, &|line| line.validation),
        ];
        let norm = series("gradient norm", 0, &|line| Some(line.report.gradient_norm));
        let panel = |title: &str, y_label: &str, series: Vec<Series>| Panel {
            title: title.to_string(),
            x_label: "step".to_string(),
            y_label: y_label.to_string(),
            series,
        };
        let panels = [
            panel("losses", "nats", losses.into_iter().flatten().collect()),
            panel("gradient norm before clipping", "norm", norm.into_iter().collect()),
        ];
        let panels: Vec<Panel> = panels.into_iter().filter(|panel| !panel.series.is_empty()).collect();
        if panels.is_empty() {
            return Ok(());
        }
        let path = self.config.out.join("curves.svg");
        fs::write(&path, svg(&panels)?).with_context(|| one_line_path(&path))
    }
}

impl Data {
    /// The file, or the texts below the folder in order of name.
    fn files_of(&self, path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
        if !path.is_dir() {
            files.push(path.to_path_buf());
            return Ok(());
        }
        let entries = fs::read_dir(path).with_context(|| one_line_path(path))?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
        let mut paths = paths.with_context(|| one_line_path(path))?;
        paths.sort();
        for path in paths.into_iter().filter(|path| !self.except.contains(path)) {
            let is_text =
                path.extension().is_some_and(|extension| ["md", "rs", "txt"].iter().any(|own| extension == *own));
            if path.is_dir() || is_text {
                self.files_of(&path, files)?;
            }
        }
        Ok(())
    }

    fn read(&self, tokenizer: &Tokenizer, config: &Config) -> Result<Vec<Example>> {
        match (&self.text, &self.chats) {
            (Some(path), None) => {
                let options = CorpusOptions { bos: config.bos_token_id, eos: config.eos_token_id.first().copied() };
                let mut files = Vec::new();
                self.files_of(path, &mut files)?;
                ensure!(!files.is_empty(), "{}: no md, rs or txt file", one_line_path(path));
                let read = files.iter().map(|file| read_corpus(file, tokenizer, &options));
                Ok(read.collect::<Result<Vec<_>, _>>()?.concat())
            }
            (None, Some(path)) => {
                let options = SftOptions { version: Version::V32, thinking: self.thinking, turns: self.turns };
                Ok(read_conversations(path, tokenizer, &options)?)
            }
            _ => bail!("[[data]]: expected one of text and chats"),
        }
    }
}
