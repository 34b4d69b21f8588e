//! The model against golden cases and naive loops.

#[path = "../support/cargo_build/mod.rs"]
mod cargo_build;
#[path = "../support/checkpoint_writer/mod.rs"]
mod checkpoint_writer;
#[path = "../support/golden/mod.rs"]
mod golden_support;
#[path = "../support/naive_model/mod.rs"]
mod naive_model;

mod cache;
mod checkpointing;
mod golden;
mod init;
mod kinds;
mod layers;
mod neighbours;
mod precision;
mod replay;
mod tiny_v32;
mod training;
mod zoo;
