//! The ops against naive loops, element by element.

#[path = "../support/common/mod.rs"]
mod common;
#[path = "../support/common_attn/mod.rs"]
mod common_attn;

mod absorb;
mod cache_write;
mod dense_mla;
mod dispatch;
mod elementwise;
mod fp8;
mod gate;
mod gradients;
mod indexer_topk;
mod indices;
mod linear;
mod linear_amx;
mod linear_bf16;
mod mha;
mod mla_backward;
mod moe;
mod mqa_logits;
mod pieces;
mod row_invariance;
mod sparse_mha;
mod sparse_mla;
mod topk;
