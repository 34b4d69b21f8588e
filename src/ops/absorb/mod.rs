//! The two products with `kv_b_proj` of MLA's MQA mode: query into latent space, latent output into value space.

use candle::{Result, Tensor};
use candle_core as candle;

use super::linear::LinearWeight;
use super::{Backend, backend};

mod reference;

/// `q_nope: [T, H, N]` → `[T, H, L]`: each head's query times the key half of its rows of
/// `kv_b_proj: [H * (N + V), L]`.
///
/// # Errors
/// If the shapes don't fit each other.
///
/// # Source
/// DeepSeek-V2 report, section 2.1.2: W_UK absorbed into W_UQ.
pub fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    match backend(&[q_nope, &kv_b_proj.weight]) {
        Backend::Reference | Backend::Cpu => reference::absorb_query(q_nope, kv_b_proj, v_dim),
    }
}

/// `latent: [T, H, L]` → `[T, H, V]`: each head's attention output times the value half of its rows of
/// `kv_b_proj: [H * (N + V), L]`.
///
/// # Errors
/// If the shapes don't fit each other.
///
/// # Source
/// DeepSeek-V2 report, section 2.1.2: W_UV absorbed into W_O.
pub fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    match backend(&[latent, &kv_b_proj.weight]) {
        Backend::Reference | Backend::Cpu => reference::absorb_value(latent, kv_b_proj, nope_dim),
    }
}
