//! Rules: what the verifier said, and whether the answers could be read.

use super::Reward;
use crate::rl::error::Result;
use crate::rl::rollout::Episode;

/// The verifier's score, in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome;

impl Reward for Outcome {
    fn name(&self) -> &str {
        "outcome"
    }

    fn value(&self, episode: &Episode) -> Result<f64> {
        Ok(episode.verdict.score)
    }
}

/// The share of the answers in which every call could be read and no text was lost, in `[0, 1]`; 0 without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format;

impl Reward for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn value(&self, episode: &Episode) -> Result<f64> {
        let read = episode.steps.saturating_sub(episode.malformed);
        Ok(read as f64 / episode.steps.max(1) as f64)
    }
}
