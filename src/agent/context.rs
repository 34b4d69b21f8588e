//! What an agent does when the context fills.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::retry::is_note;
use crate::chat::{Message, Role};
use crate::chat_model::ChatUsage;

/// How an agent manages a full context.
///
/// A step is an assistant's message with calls, its reasoning included, and the results of the calls: they go together.
/// System, tools, user messages and answers without calls always stay.
///
/// # Source
/// arXiv 2512.02556, section 4.4, which leaves open whether the reasoning of a discarded call goes, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextManagement {
    /// Nothing: the run ends when the context is full.
    #[default]
    None,
    /// The model summarises its work; all steps go, and it goes on from the question and the summary.
    Summary,
    /// The first three quarters of the steps go (rounded down, at least one).
    #[serde(rename = "discard_75")]
    Discard75,
    /// All steps go.
    DiscardAll,
    /// Several independent runs from the beginning, each until its own context is full; the one that answers in the
    /// fewest steps counts. Their answers must be able to differ: more than one run needs a temperature above 0. Each
    /// run has its own seeds.
    ParallelFewestStep {
        /// How many runs.
        runs: usize,
    },
}

/// The runs of `parallel-fewest-step` without a number.
const DEFAULT_RUNS: usize = 4;

impl fmt::Display for ContextManagement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Summary => f.write_str("summary"),
            Self::Discard75 => f.write_str("discard-75"),
            Self::DiscardAll => f.write_str("discard-all"),
            Self::ParallelFewestStep { runs } => write!(f, "parallel-fewest-step:{runs}"),
        }
    }
}

impl FromStr for ContextManagement {
    type Err = String;

    /// Reads `none`, `summary`, `discard-75`, `discard-all`, `parallel-fewest-step` or `parallel-fewest-step:RUNS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let runs = |runs: &str| runs.parse().ok().filter(|runs| *runs > 0);
        Ok(match text {
            "none" => Self::None,
            "summary" => Self::Summary,
            "discard-75" => Self::Discard75,
            "discard-all" => Self::DiscardAll,
            "parallel-fewest-step" => Self::ParallelFewestStep { runs: DEFAULT_RUNS },
            other => match other.strip_prefix("parallel-fewest-step:").and_then(runs) {
                Some(runs) => Self::ParallelFewestStep { runs },
                None => {
                    return Err(format!(
                        "{other:?}, expected none, summary, discard-75, discard-all or parallel-fewest-step[:RUNS]"
                    ));
                }
            },
        })
    }
}

/// One time that the context was managed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// What was done. A summary that the model did not write, or that made nothing shorter, counts as
    /// [`ContextManagement::DiscardAll`].
    pub strategy: ContextManagement,
    /// Answers of the model before it.
    pub step: usize,
    /// Tokens of the conversation before it.
    pub tokens_before: usize,
    /// Tokens of the prompt after it, if the model can count them.
    pub tokens_after: Option<usize>,
    /// Steps that went.
    pub discarded_steps: usize,
    /// The summary.
    pub summary: Option<String>,
    /// Tokens of the attempt to summarise; it counts as a step.
    pub summary_usage: Option<ChatUsage>,
}

/// The message that asks the model for a summary of its work.
pub(super) const SUMMARY_REQUEST: &str = "The context is almost full, so the steps above will be removed. Write a \
summary from which the work can go on without them: what was found, with all names, numbers and sources that still \
matter, what was tried in vain, and what is left to do. Write only the summary.";

/// The text between a question and the summary of the work on it.
const SUMMARY_HEAD: &str = "\n\nSummary of the work so far, whose steps are no longer shown:\n";

/// The positions of the steps in a conversation.
pub(super) fn steps(messages: &[Message]) -> Vec<Range<usize>> {
    let is_step = |message: &Message| message.role == Role::Assistant && !message.tool_calls.is_empty();
    let starts = messages.iter().enumerate().filter(|(_, message)| is_step(message)).map(|(at, _)| at);
    starts
        .map(|at| {
            let results = messages[at + 1..].iter().take_while(|message| message.role == Role::Tool).count();
            at..at + 1 + results
        })
        .collect()
}

/// How many steps a strategy takes of those there are.
pub(super) fn to_discard(strategy: ContextManagement, steps: usize) -> usize {
    match strategy {
        ContextManagement::None | ContextManagement::ParallelFewestStep { .. } => 0,
        ContextManagement::Discard75 => (steps * 3 / 4).max(1).min(steps),
        ContextManagement::Summary | ContextManagement::DiscardAll => steps,
    }
}

/// The conversation without its first `count` steps.
pub(super) fn discard(messages: &[Message], count: usize) -> Vec<Message> {
    let gone: Vec<Range<usize>> = steps(messages).into_iter().take(count).collect();
    let stays = |at: &usize| !gone.iter().any(|range| range.contains(at));
    (0..messages.len()).filter(stays).map(|at| messages[at].clone()).collect()
}

/// The position of the question: the last user message.
pub(super) fn question(messages: &[Message]) -> Option<usize> {
    let asks = |message: &Message| matches!(message.role, Role::User | Role::Developer) && !is_note(message);
    messages.iter().rposition(asks)
}

/// Appends a summary to the question; `original` is the question as it was asked. Returns it.
pub(super) fn add_summary(messages: &mut Vec<Message>, original: Option<String>, summary: &str) -> String {
    let at = question(messages).unwrap_or_else(|| {
        messages.push(Message::user(""));
        messages.len() - 1
    });
    let original = original.unwrap_or_else(|| messages[at].content.clone());
    messages[at].content = format!("{original}{SUMMARY_HEAD}{}", summary.trim());
    original
}
