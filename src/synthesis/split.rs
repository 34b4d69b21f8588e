//! Which data a model may learn from, decided by hashes before there are tasks.

use serde::{Deserialize, Serialize};

use crate::environment::tables::hash;

/// A part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// To learn from.
    Train,
    /// To choose by.
    Validation,
    /// New tasks of environments seen in training.
    TestA,
    /// Environments not seen, of families that were.
    TestB,
    /// Families not seen.
    TestC,
    /// Tool names, naming styles and argument orders not seen, over families that were.
    TestD,
}

/// A number below 1000 that a text decides.
fn per_mille(text: &str) -> u64 {
    let digits = hash(text.as_bytes());
    u64::from_str_radix(digits.get(..12).unwrap_or_default(), 16).unwrap_or_default() % 1000
}

/// Whether a family is kept from training.
pub fn unseen_family(family: &str) -> bool {
    per_mille(&format!("family/{family}")) < 120
}

impl Split {
    /// The split of an environment. `unseen_style` says that its names follow a style that is kept from training.
    pub fn of_environment(family: &str, unseen_style: bool, environment: &str) -> Self {
        if unseen_family(family) {
            return Self::TestC;
        }
        if unseen_style {
            return Self::TestD;
        }
        match per_mille(&format!("environment/{environment}")) {
            0..60 => Self::TestB,
            60..100 => Self::Validation,
            _ => Self::Train,
        }
    }

    /// The split of a task in an environment: a part of those in training environments is [`Self::TestA`]. A task and
    /// those that were made from it stay together.
    pub fn of_task(self, chain: &str) -> Self {
        if self == Self::Train && per_mille(&format!("task/{chain}")) < 40 { Self::TestA } else { self }
    }
}
