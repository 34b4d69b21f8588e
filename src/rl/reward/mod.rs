//! Rewards of episodes.
//!
//! An episode's reward is a weighted sum of parts ([`Reward`]); which parts, may differ from domain to domain
//! ([`RewardMix`]), so that tasks of all kinds are trained in one stage.
//!
//! | part | value |
//! |---|---|
//! | [`Outcome`] | the verifier's score |
//! | [`Format`] | the share of answers that could be read whole |
//! | [`OverlongPenalty`] | 0 up to a length, then down to -1 |
//! | [`LanguageConsistency`] | the share of the reasoning's letters that belong to one script |
//! | [`Rubric`] | a model's judgement by written criteria |
//!
//! # Source
//! arXiv 2512.02556, section 3: rule-based outcome, length penalty and language consistency for reasoning and agents,
//! rubrics for the rest. Its formulas are not published; each part names where its own comes from.

mod language;
mod length;
mod outcome;
mod rubric;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use language::{LanguageConsistency, Script};
pub use length::OverlongPenalty;
pub use outcome::{Format, Outcome};
pub use rubric::Rubric;

use super::error::{Result, RlError};
use super::rollout::Episode;

/// A part of a reward.
pub trait Reward: Send + Sync {
    /// Its name in records.
    fn name(&self) -> &str;

    /// Its value for an episode. The episode's own reward is not there yet.
    ///
    /// # Errors
    /// If it cannot be told, as when a judge cannot be reached.
    fn value(&self, episode: &Episode) -> Result<f64>;
}

/// A part of the reward that an episode got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardPart {
    /// [`Reward::name`].
    pub name: String,
    /// The value.
    pub value: f64,
    /// What it was multiplied with.
    pub weight: f64,
}

/// A part and its weight.
type Weighted = (Arc<dyn Reward>, f64);

/// The parts of the rewards of each domain, with their weights.
#[derive(Clone, Default)]
pub struct RewardMix {
    default: Vec<Weighted>,
    domains: BTreeMap<String, Vec<Weighted>>,
}

impl RewardMix {
    /// No part: every reward is 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The verifier's score alone.
    pub fn outcome() -> Self {
        Self::new().with(Outcome, 1.0)
    }

    /// The parts for a maximum answer length of `tokens`: outcome, format at weight 0.1, and the length penalty over the
    /// last fifth of the length.
    pub fn agent(tokens: usize) -> Self {
        Self::outcome().with(Format, 0.1).with(OverlongPenalty { longest: tokens, buffer: tokens / 5 }, 1.0)
    }

    /// The same for a model like DeepSeek-V3.2-Speciale, whose length is hardly limited: twice the length of
    /// [`Self::agent`], and a tenth of its penalty.
    ///
    /// # Source
    /// arXiv 2512.02556, section 3: "a reduced length penalty"; the numbers are this crate's.
    pub fn speciale(tokens: usize) -> Self {
        let longest = tokens.saturating_mul(2);
        Self::outcome().with(Format, 0.1).with(OverlongPenalty { longest, buffer: longest / 5 }, 0.1)
    }

    /// The same with a part for the domains that have none of their own.
    pub fn with(mut self, reward: impl Reward + 'static, weight: f64) -> Self {
        self.default.push((Arc::new(reward), weight));
        self
    }

    /// The same with a part for one domain, which then has only the parts that are given for it.
    pub fn with_domain(mut self, domain: impl Into<String>, reward: impl Reward + 'static, weight: f64) -> Self {
        self.domains.entry(domain.into()).or_default().push((Arc::new(reward), weight));
        self
    }

    /// An episode's reward and its parts.
    ///
    /// # Errors
    /// That of the part that fails; [`RlError::Rollout`] if a part is not finite.
    pub fn reward(&self, episode: &Episode) -> Result<(f64, Vec<RewardPart>)> {
        let mut parts = Vec::new();
        let mut sum = 0.0;
        for (reward, weight) in self.domains.get(&episode.domain).unwrap_or(&self.default) {
            let (name, value, weight) = (reward.name().to_string(), reward.value(episode)?, *weight);
            if !(value * weight).is_finite() {
                let problem = format!("the reward is {value} times {weight}, expected a finite number");
                return Err(RlError::Rollout { place: name, problem });
            }
            sum += value * weight;
            parts.push(RewardPart { name, value, weight });
        }
        Ok((sum, parts))
    }
}

impl fmt::Debug for RewardMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |parts: &Vec<Weighted>| {
            parts.iter().map(|(reward, weight)| format!("{} * {weight}", reward.name())).collect::<Vec<_>>()
        };
        let domains: BTreeMap<_, _> = self.domains.iter().map(|(domain, parts)| (domain, names(parts))).collect();
        f.debug_struct("RewardMix").field("default", &names(&self.default)).field("domains", &domains).finish()
    }
}
