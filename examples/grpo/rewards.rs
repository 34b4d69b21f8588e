//! What episodes are worth.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use deepseek_v32::chat_model::{ChatModel, LocalChat};
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::model::Precision;
use deepseek_v32::rl::reward::{Format, LanguageConsistency, Outcome, OverlongPenalty, RewardMix, Rubric, Script};
use deepseek_v32::weights::LoadOptions;
use serde::Deserialize;

/// The section `[rewards]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    /// The parts to begin with.
    #[serde(default)]
    pub preset: Preset,
    /// The length that the presets `agent` and `speciale` are made for.
    #[serde(default = "length")]
    tokens: usize,
    /// Further parts.
    #[serde(default)]
    parts: Vec<Part>,
}

impl Default for Rewards {
    fn default() -> Self {
        Self { preset: Preset::default(), tokens: length(), parts: Vec::new() }
    }
}

fn length() -> usize {
    2000
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The verifier's score.
    #[default]
    Outcome,
    /// Outcome, format and a penalty on length.
    Agent,
    /// The same with a tenth of the penalty at twice the length.
    Speciale,
    /// Nothing: the parts say it all.
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// The domain that it is for. Default: all that have no part of their own.
    domain: Option<String>,
    #[serde(default = "unit")]
    weight: f64,
    of: Kind,
}

fn unit() -> f64 {
    1.0
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
    Outcome,
    Format,
    Length { longest: usize, buffer: usize },
    Language(Letters),
    Rubric { criteria: String, checkpoint: Option<PathBuf>, base_url: Option<String>, model: Option<String> },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Letters {
    Latin,
    Han,
    Cyrillic,
}

impl Rewards {
    pub fn open(&self) -> Result<RewardMix> {
        let mut mix = match self.preset {
            Preset::Outcome => RewardMix::outcome(),
            Preset::Agent => RewardMix::agent(self.tokens),
            Preset::Speciale => RewardMix::speciale(self.tokens),
            Preset::None => RewardMix::new(),
        };
        for Part { domain, weight, of } in &self.parts {
            let domain = domain.as_deref();
            mix = match of {
                Kind::Outcome => with(mix, domain, Outcome, *weight),
                Kind::Format => with(mix, domain, Format, *weight),
                Kind::Length { longest, buffer } => {
                    with(mix, domain, OverlongPenalty { longest: *longest, buffer: *buffer }, *weight)
                }
                Kind::Language(letters) => {
                    let script = match letters {
                        Letters::Latin => Script::Latin,
                        Letters::Han => Script::Han,
                        Letters::Cyrillic => Script::Cyrillic,
                    };
                    with(mix, domain, LanguageConsistency { script }, *weight)
                }
                Kind::Rubric { criteria, checkpoint, base_url, model } => {
                    let judge = judge(checkpoint.as_ref(), base_url.as_deref(), model.as_deref())?;
                    with(mix, domain, Rubric::new(judge, criteria.as_str()), *weight)
                }
            };
        }
        Ok(mix)
    }
}

fn with(
    mix: RewardMix,
    domain: Option<&str>,
    part: impl deepseek_v32::rl::reward::Reward + 'static,
    weight: f64,
) -> RewardMix {
    match domain {
        Some(domain) => mix.with_domain(domain, part, weight),
        None => mix.with(part, weight),
    }
}

/// A model that judges: of a folder, or behind a server.
fn judge(checkpoint: Option<&PathBuf>, base_url: Option<&str>, model: Option<&str>) -> Result<Arc<dyn ChatModel>> {
    match (checkpoint, base_url) {
        (Some(dir), None) => {
            let load = LoadOptions::default();
            Ok(Arc::new(LocalChat::load(dir, &load, Precision::Dequant, EngineOptions::default(), |_| ())?))
        }
        (None, Some(url)) => remote(url, model.unwrap_or_default()),
        _ => bail!("rewards.parts: a rubric needs one of checkpoint and base_url"),
    }
}

#[cfg(feature = "client")]
fn remote(url: &str, model: &str) -> Result<Arc<dyn ChatModel>> {
    use deepseek_v32::chat_model::{OpenAiChat, OpenAiOptions};
    let api_key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
    Ok(Arc::new(OpenAiChat::new(url, model, OpenAiOptions { api_key, ..OpenAiOptions::default() })?))
}

#[cfg(not(feature = "client"))]
fn remote(_url: &str, _model: &str) -> Result<Arc<dyn ChatModel>> {
    bail!("rewards.parts: for base_url, build with --features client")
}
