//! Rollouts: attempts of a model at tasks, with everything recorded that training needs.
//!
//! [`collect`] plays groups of episodes with the [agent](crate::agent) in [environments](crate::environment), many at
//! the same time. What comes of it is an [`Episode`] for each attempt, with its tokens as [`Sequence`]s. [`Packed`] puts
//! them into the rows of a [`Batch`](crate::rl::Batch); [`write_episodes`] and [`read_episodes`] keep them in files.
//!
//! # Models behind a server
//! A model of another server (`OpenAiChat`) plays, too. What of it can be trained on depends on what the server tells:
//!
//! | [`RolloutOptions::record`] | a server with token ids (vLLM, SGLang, the crate's own) | any other |
//! |---|---|---|
//! | nothing | episodes without sequences: data for distillation, filters, evaluation | the same |
//! | `logprobs` | ids and log-probabilities, at temperature 1 or where the server has those of the choice | refused |
//! | `kept`, for `keep_sampling_mask` | where each token is chosen among all | refused |
//! | `routes`, for `keep_routing` | refused | refused |
//!
//! [`GrpoTrainer::step_on`](crate::rl::GrpoTrainer::step_on) trains on such episodes, with `keep_routing` off.

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
