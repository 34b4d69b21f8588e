//! What came of one attempt at a task.

use serde::{Deserialize, Serialize};

use super::sequence::Sequence;
use crate::agent::Stop;
use crate::chat::Message;
use crate::chat_model::ChatUsage;
use crate::environment::Verdict;
use crate::rl::reward::RewardPart;

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// [`Environment::id`](crate::environment::Environment::id).
    pub task: String,
    /// [`Environment::domain`](crate::environment::Environment::domain).
    pub domain: String,
    /// The group: attempts at one task that are compared with each other.
    pub group: u64,
    /// Its place in the group, from 0.
    pub member: usize,
    /// The whole conversation, without ids.
    pub messages: Vec<Message>,
    /// Why it ended.
    pub stop: Stop,
    /// Answers of the model.
    pub steps: usize,
    /// Tokens of all answers together.
    pub usage: ChatUsage,
    /// Answers in which a call could not be read or text was lost.
    pub malformed: usize,
    /// What the environment said.
    pub verdict: Verdict,
    /// The parts of the reward.
    pub parts: Vec<RewardPart>,
    /// The reward: the weighted sum of its parts.
    pub reward: f64,
    /// The tokens; empty for models that record none.
    pub sequences: Vec<Sequence>,
}

impl Episode {
    /// Whether it was cut off at a limit instead of ending with an answer.
    pub fn truncated(&self) -> bool {
        self.stop != Stop::Answer
    }

    /// Generated tokens.
    pub fn generated_tokens(&self) -> usize {
        self.sequences.iter().map(Sequence::generated_tokens).sum()
    }
}

/// Attempts at one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its number.
    pub id: u64,
    /// Its episodes, in the order of their members.
    pub episodes: Vec<Episode>,
}

impl Group {
    /// Whether the rewards differ: otherwise every advantage is 0, and nothing is learnt from it.
    pub fn differs(&self) -> bool {
        self.episodes.windows(2).any(|pair| pair[0].reward != pair[1].reward)
    }

    /// The mean reward; 0 of no episode.
    pub fn mean_reward(&self) -> f64 {
        let sum: f64 = self.episodes.iter().map(|episode| episode.reward).sum();
        if self.episodes.is_empty() { 0.0 } else { sum / self.episodes.len() as f64 }
    }
}
