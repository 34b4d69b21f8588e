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
//!
//! ```
//! use deepseek_v32::candle::{DType, Device};
//! use deepseek_v32::candle_nn::VarMap;
//! use deepseek_v32::distributed::SingleRank;
//! use deepseek_v32::model::{TrainingOptions, backward};
//! use deepseek_v32::training::*;
//! use deepseek_v32::{Config, DeepSeekV32};
//!
//! let varmap = VarMap::new();
//! let model = DeepSeekV32::init(&Config::tiny(), &varmap, 0, DType::F32, &Device::Cpu)?;
//! let objective = Objective { stage: Stage::Sparse, ..Objective::default() };
//! let parameters = Parameters::of(&varmap, |name| objective.stage.learns(name));
//! let mut optimizer = AdamW::new(&parameters, AdamWOptions::default())?;
//! let schedule = Schedule { warmup_steps: 2, ..Schedule::constant(1e-3) };
//! let examples = (0..20).map(|i| Example::whole(vec![i, i + 1, i + 2, i + 3])).collect();
//! let mut packer = Packer::new(examples, PackingOptions::new(16))?;
//! for step in 0..3 {
//!     // A step of two batches. What its means are divided by is counted before the first.
//!     let batches = [packer.next_batch()?, packer.next_batch()?];
//!     let denominators = batches.iter().map(Denominators::of).sum::<Denominators>().all_reduce(&SingleRank)?;
//!     let (mut gradients, mut load) = (Gradients::default(), ExpertLoad::default());
//!     for batch in &batches {
//!         let loss = batch_loss(&model, batch, &objective, &denominators, TrainingOptions::default())?;
//!         gradients.add(Gradients::of(&backward(loss.loss)?, &parameters)?)?;
//!         load.merge(&loss.load)?;
//!     }
//!     gradients.all_reduce(&SingleRank, &parameters)?;
//!     gradients.clip(1.0)?;
//!     optimizer.step(&gradients, schedule.at(step))?;
//!     load.all_reduce(&SingleRank)?;
//!     load.update_biases(&varmap, 1e-3)?;
//! }
//! # Ok::<(), deepseek_v32::Error>(())
//! ```

mod accumulate;
mod balance;
mod batch;
mod convert;
mod corpus;
mod error;
mod indexer_loss;
mod language_model;
mod lines;
mod ngram;
mod objective;
mod optimizer;
mod packing;
mod parameters;
mod schedule;
pub mod sft;
mod trainer;

pub use accumulate::Gradients;
pub use balance::{ExpertLoad, LoadMetrics, sequence_balance_loss};
pub use batch::{Batch, Denominators, Example};
pub use convert::{
    ConversionEvent, ConversionOptions, ConversionStage, IndexerShape, SparseReport, convert, measure_sparsity,
    with_indexers,
};
pub use corpus::{CorpusOptions, document, read_corpus};
pub use error::{Result, TrainingError};
pub use indexer_loss::{
    ChosenSlots, IndexTarget, IndexerBatch, IndexerBlock, IndexerLoss, indexer_loss, indexer_loss_with, indexer_recall,
};
pub use language_model::{TokenLoss, next_token_loss};
pub use ngram::NGram;
pub use objective::{BatchLoss, Objective, Stage, batch_loss};
pub use optimizer::{AdamW, AdamWOptions, Muon, MuonOptions, Optimizer};
pub use packing::{LongExamples, Packer, PackingOptions, Position};
pub use parameters::Parameters;
pub use schedule::{Decay, Schedule};
pub(crate) use trainer::save_step;
pub use trainer::{
    ComputeDtype, EventFile, MetricsFile, OptimizerOptions, StepReport, Trainer, TrainerOptions, latest_checkpoint,
};
