//! Configs and checkpoints: loaded, refused, saved.

#[path = "../support/checkpoint_writer/mod.rs"]
mod checkpoint_writer;

mod config;
mod load;
mod malformed;
mod peak_memory;
mod save;
