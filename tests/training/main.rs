//! Losses, optimizers and data of training against naive f64 loops, recorded gradients and each other.

#[path = "../support/checkpoint_writer/mod.rs"]
mod checkpoint_writer;

mod balance;
mod convert;
mod data;
mod distributed;
mod indexer_loss;
mod indexer_model;
mod language_model;
mod ngram;
mod objective;
mod optimizer;
mod sft;
mod support;
mod trainer;
