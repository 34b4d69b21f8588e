//! Rollouts: attempts of a model at tasks, with everything recorded that training needs.
//!
//! [`collect`] plays groups of episodes with the [agent](crate::agent) in [environments](crate::environment), many at
//! the same time. What comes of it is an [`Episode`] for each attempt, with its tokens as [`Sequence`]s. [`Packed`] puts
//! them into the rows of a [`Batch`](crate::rl::Batch); [`write_episodes`] and [`read_episodes`] keep them in files.
//!
//! # Models behind a server
//! A model of another server (`OpenAiChat`) plays, too, if [`RolloutOptions::record`] asks for nothing. Then there are no
//! sequences: such episodes serve distillation (their messages are training data), filters by pass rate and evaluation. The
//! loss needs the ids and log-probabilities that were sampled, keep routing the experts, and the sampling mask the
//! kept sets: the protocol has none of the last two, so GRPO takes its rollouts from the crate's own engine.

mod collect;
mod episode;
mod files;
mod packed;
mod sequence;

pub use collect::{RolloutOptions, Rollouts, collect};
pub use episode::{Episode, Group};
pub use files::{read_episodes, write_episodes};
pub use packed::Packed;
pub use sequence::Sequence;
