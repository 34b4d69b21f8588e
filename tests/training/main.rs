//! Losses, optimizers and data of training against naive f64 loops, recorded gradients and each other.

#[path = "../support/checkpoint_writer/mod.rs"]
mod checkpoint_writer;

mod distributed;
mod indexer_loss;
mod indexer_model;
mod language_model;
mod support;
