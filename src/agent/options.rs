//! How an agent works.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::context::ContextManagement;
use super::error::{AgentError, Result};
use crate::generation::{RecordOptions, SamplingParams};

/// How an agent works, and when it ends without an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentOptions {
    /// Whether the model thinks before it answers. Default: yes.
    pub thinking: bool,
    /// How tokens are chosen. Each answer has its own seed, derived from the one given. Default:
    /// greedy.
    pub params: SamplingParams,
    /// Most tokens of one answer; one that is longer ends the run. Default: as many as the context holds.
    pub max_answer_tokens: Option<usize>,
    /// Most answers of the model, summaries included. The calls of the last one are still carried out. Default 100.
    pub max_steps: usize,
    /// How often in a row the model may be told that its call could not be read, to write it again; after that the run
    /// ends with such an answer. Default 2.
    pub max_call_retries: usize,
    /// Most tokens of all prompts and answers together. Default: no limit.
    pub max_tokens: Option<usize>,
    /// Longest time from the beginning, in every process that worked on the run. A running tool is waited for.
    /// Default: no limit.
    pub max_time: Option<Duration>,
    /// What to do when the context fills. Default: nothing.
    pub context: ContextManagement,
    /// Which part of the model's context the conversation may fill before that is done; in (0, 1]. Default 0.8.
    pub context_threshold: f64,
    /// What to record of every answer and summary, for training: [`AgentEventKind::Recorded`](super::AgentEventKind) and
    /// the trace have it. Remote models refuse what their servers cannot tell. Default: nothing.
    pub record: RecordOptions,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            thinking: true,
            params: SamplingParams::default(),
            max_answer_tokens: None,
            max_steps: 100,
            max_call_retries: 2,
            max_tokens: None,
            max_time: None,
            context: ContextManagement::None,
            context_threshold: 0.8,
            record: RecordOptions::default(),
        }
    }
}

/// The most parallel runs: each has a thread.
const MAX_RUNS: usize = 256;

impl AgentOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// [`AgentError::Option`] names the first field outside its range.
    pub fn validate(&self) -> Result<()> {
        let check = |name, value: String, valid: bool, expected| {
            if valid { Ok(()) } else { Err(AgentError::Option { name, value, expected }) }
        };
        let threshold = self.context_threshold;
        check("context_threshold", threshold.to_string(), threshold > 0.0 && threshold <= 1.0, "a number in (0, 1]")?;
        check("max_answer_tokens", "0".to_string(), self.max_answer_tokens != Some(0), "at least 1")?;
        match self.context {
            ContextManagement::ParallelFewestStep { runs } => {
                check("runs", runs.to_string(), (1..=MAX_RUNS).contains(&runs), "a number from 1 to 256")?;
                // The same run several times is of no use.
                let differ = runs == 1 || !self.params.is_greedy();
                check(
                    "temperature",
                    "0".to_string(),
                    differ,
                    "more than 0, for greedy parallel runs are all the same",
                )?;
                let differ = runs == 1 || self.params.top_k != Some(1);
                check("top_k", "1".to_string(), differ, "more than 1, for greedy parallel runs are all the same")
            }
            _ => Ok(()),
        }
    }

    /// The parameters of one answer: those given, with its own seed. The first answer of the first run has the seed
    /// given.
    pub(super) fn params_of(&self, run: usize, step: usize) -> SamplingParams {
        let mut params = self.params.clone();
        params.seed = params.seed.map(|seed| match (run, step) {
            (0, 0) => seed,
            _ => mix(mix(seed ^ mix(run as u64)) ^ step as u64),
        });
        params
    }
}

/// A number that looks random, a different one for every number (the finalizer of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
