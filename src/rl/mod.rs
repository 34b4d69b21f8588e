//! Reinforcement learning: the loss of group relative policy optimisation (GRPO) as DeepSeek-V3.2 trains with it.
//!
//! [`loss`] takes a [`Batch`] of packed sequences, with the sampler's and the reference's log-probabilities, and a
//! [`GrpoConfig`]. A step of several micro-batches has one [`Plan`] for all of them, and [`evaluate`] for each.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use deepseek_v32::rl::{self, Batch, GrpoConfig, KeptSets, Policy};
//!
//! // Two answers of one token to the same prompt; the first was right.
//! let logits = Var::new(&[[0f32, 0.0], [0.0, 0.0]], &Device::Cpu)?;
//! let half = 0.5f64.ln();
//! let batch = Batch {
//!     policy: Policy::Logits(logits.as_tensor().clone()),
//!     tokens: vec![0, 1],
//!     seq_id: vec![0, 1],
//!     gen_mask: vec![true, true],
//!     old_logp: vec![half, half],
//!     ref_logp: Some(vec![half, half]),
//!     kept: KeptSets::full(2),
//!     rewards: vec![1.0, 0.0],
//!     group_id: vec![0, 0],
//!     beta: vec![0.001, 0.001],
//!     truncated: vec![false, false],
//! };
//! let (loss, metrics) = rl::loss(&batch, &GrpoConfig::v32())?;
//! let gradients = loss.backward()?;
//! // A step against the gradient makes token 0 likelier in both rows.
//! assert_eq!(gradients.get(&logits).unwrap().to_vec2::<f32>()?, [[-0.125, 0.125], [-0.125, 0.125]]);
//! assert_eq!(metrics.n_tok, 2);
//! # Ok::<(), deepseek_v32::Error>(())
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | [`GrpoConfig`] |
//! | `batch.rs` | [`Batch`], [`KeptSets`] and their checks |
//! | `json.rs` | [`LossCall`]: both read from JSON |
//! | `advantage.rs` | [`Plan`]: advantages, which sequences count |
//! | `logprob.rs`, `rows.rs` | [`log_probs`], [`head_log_probs`]: temperature, kept sets |
//! | `surrogate.rs`, `kl.rs`, `off_policy.rs`, `aggregate.rs` | the terms of a token, the mask, the weights |
//! | `loss.rs` | [`loss`], [`evaluate`] |
//! | `metrics.rs` | [`Metrics`] |
//! | `reward/` | [`RewardMix`](reward::RewardMix) and its parts |
//! | `rollout/` | [`collect`](rollout::collect): episodes, their files, and their rows |
//! | `trainer/` | [`GrpoTrainer`]: the loop, its options and checkpoints |

mod advantage;
mod aggregate;
mod batch;
mod config;
mod error;
mod json;
mod kl;
mod logprob;
mod loss;
mod metrics;
mod off_policy;
pub mod reward;
pub mod rollout;
mod rows;
mod surrogate;
mod trainer;

pub use advantage::Plan;
pub use aggregate::Denominators;
pub use batch::{Batch, KeptSets, Policy};
pub use config::{Advantage, Aggregation, GrpoConfig, Kl, Truncated};
pub use error::{Result, RlError};
pub use json::LossCall;
pub use logprob::{LogProbs, head_log_probs, log_probs};
pub use loss::{Evaluation, evaluate, loss};
pub use metrics::Metrics;
pub use trainer::{GrpoOptions, GrpoReport, GrpoTrainer, Selection, Tasks};
