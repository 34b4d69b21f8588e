//! The keys of the TOML file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use deepseek_v32::error::{one_line, one_line_path};
use deepseek_v32::rl::{GrpoConfig, GrpoOptions};
use deepseek_v32::training::TrainerOptions;
use deepseek_v32::training::sft::{LearntTurns, Thinking};
use serde::Deserialize;
use serde_json::Value;

use super::environments::Source;
use super::rewards::{Preset, Rewards};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's folder.
    pub out: PathBuf,
    /// Steps in all.
    pub steps: u64,
    /// The folder of the tokenizer's files.
    pub tokenizer: PathBuf,
    /// What is trained.
    pub model: ModelConfig,
    /// What a new model learns first.
    pub sft: Option<FineTuning>,
    /// Where it plays.
    pub environments: Vec<Source>,
    /// What episodes are worth.
    #[serde(default)]
    pub rewards: Rewards,
    /// Tokens of earlier prompts that the engine keeps: the attempts of a group share theirs.
    #[serde(default = "many")]
    pub prefix_tokens: usize,
    /// Minutes between two checkpoints.
    #[serde(default = "ten")]
    pub save_minutes: f64,
    /// Checkpoints that are kept.
    #[serde(default = "two")]
    pub keep: usize,
    /// Steps whose episodes are kept; 0: none are written.
    #[serde(default = "two")]
    pub keep_rollouts: usize,
    /// The values of the options that `[grpo.loss]` does not name.
    #[serde(default)]
    pub loss_preset: LossPreset,
    pub grpo: GrpoOptions,
}

fn many() -> usize {
    65_536
}

fn ten() -> f64 {
    10.0
}

fn two() -> usize {
    2
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossPreset {
    #[default]
    V32,
    R1,
}

/// A new model of a config, or the weights of a checkpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub config: Option<PathBuf>,
    pub checkpoint: Option<PathBuf>,
    #[serde(default)]
    pub seed: u64,
}

/// Supervised steps before the first of GRPO.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuning {
    /// Conversations in OpenAI's format.
    pub chats: PathBuf,
    #[serde(default)]
    pub thinking: Thinking,
    #[serde(default)]
    pub turns: LearntTurns,
    pub steps: u64,
    pub trainer: TrainerOptions,
}

impl RunConfig {
    pub fn load(path: &Path) -> Result<Self> {
        let text = super::common::read_text(path)?;
        let refused = |error: toml::de::Error| {
            // The message of the parser has a picture of the place over several lines.
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            anyhow!("{}:{line}: {}", one_line_path(path), one_line(error.message()))
        };
        let mut config: Self = toml::from_str(&text).map_err(refused)?;
        if config.loss_preset == LossPreset::R1 {
            let table: toml::Table = toml::from_str(&text).map_err(refused)?;
            let named = table.get("grpo").and_then(|grpo| grpo.get("loss")).and_then(toml::Value::as_table);
            let is_named = |key: &str| named.is_some_and(|named| named.contains_key(key));
            config.grpo.loss = over(&GrpoConfig::r1(), &config.grpo.loss, is_named).context("grpo.loss")?;
        }
        Ok(config)
    }

    /// Takes the paths for relative to a folder.
    pub fn relative_to(&mut self, dir: &Path) {
        let paths = [Some(&mut self.tokenizer), self.model.config.as_mut(), self.model.checkpoint.as_mut()];
        let more = self.sft.iter_mut().map(|sft| &mut sft.chats);
        let sources = self.environments.iter_mut().filter_map(Source::path_mut);
        paths.into_iter().flatten().chain(more).chain(sources).for_each(|path| *path = dir.join(&*path));
    }

    /// What `--preset speciale` changes.
    pub fn make_speciale(&mut self) {
        self.rewards.preset = Preset::Speciale;
        let agent = &mut self.grpo.rollout.agent;
        agent.thinking = true;
        agent.max_answer_tokens = agent.max_answer_tokens.map(|most| most.saturating_mul(2));
        agent.max_tokens = agent.max_tokens.map(|most| most.saturating_mul(2));
    }
}

/// The options of `given` that are named, all others from `preset`.
fn over(preset: &GrpoConfig, given: &GrpoConfig, is_named: impl Fn(&str) -> bool) -> serde_json::Result<GrpoConfig> {
    let (mut merged, given) = (serde_json::to_value(preset)?, serde_json::to_value(given)?);
    if let (Value::Object(merged), Value::Object(given)) = (&mut merged, given) {
        merged.extend(given.into_iter().filter(|(key, _)| is_named(key)));
    }
    serde_json::from_value(merged)
}
