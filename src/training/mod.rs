//! Training: losses, optimizers and data for pre-training, supervised fine-tuning and the stages of DeepSeek Sparse
//! Attention.
//!
//! ```text
//! text, chats ── corpus, sft ──> Example (ids, which of them are learnt) ── Packer ──> Batch (rows of several sequences)
//! Batch ── batch_loss ──> BatchLoss ── backward ──> Gradients ── sum, all_reduce, clip ──> AdamW or Muon ──> variables
//! routes of the step ── ExpertLoad ──> the router's selection bias
//! ```
//!
//! Every mean is over the whole step of the optimizer: its denominators ([`Denominators`]) are counted before the first
//! batch, so the gradients of micro-batches, of packed batches and of ranks add up to the same sum however the step was
//! divided.
//!
//! candle loses gradients silently in some of its functions; [`Model::forward_training`](crate::model::Model) and the
//! losses here avoid them, and tests compare every gradient.

mod accumulate;
mod balance;
mod batch;
mod corpus;
mod error;
mod indexer_loss;
mod known_gradient;
mod language_model;
mod lines;
mod objective;
mod optimizer;
mod packing;
mod parameters;
mod schedule;
pub mod sft;

pub use accumulate::Gradients;
pub use balance::{ExpertLoad, LoadMetrics, sequence_balance_loss};
pub use batch::{Batch, Denominators, Example};
pub use corpus::{CorpusOptions, document, read_corpus};
pub use error::{Result, TrainingError};
pub use indexer_loss::{
    ChosenSlots, IndexTarget, IndexerBatch, IndexerBlock, IndexerLoss, indexer_loss, indexer_loss_with,
};
pub use language_model::{TokenLoss, next_token_loss};
pub use objective::{BatchLoss, Objective, Stage, batch_loss};
pub use optimizer::{AdamW, AdamWOptions, Muon, MuonOptions, Optimizer};
pub use packing::{LongExamples, Packer, PackingOptions, Position};
pub use parameters::Parameters;
pub use schedule::{Decay, Schedule};
