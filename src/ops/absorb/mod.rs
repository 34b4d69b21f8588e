//! The two products with `kv_b_proj` of MLA's MQA mode: query into latent space, latent output into value space.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::linear::{LinearWeight, check_weight};
use crate::ops::simd::floats::check_float;
use crate::ops::{Backend, backend};

mod cpu;
pub mod reference;

/// `q_nope: [T, H, N]` → `[T, H, L]` of the same dtype: each head's query times the key half of its rows of
/// `kv_b_proj: [H * (N + V), L]`, in which a head's N key rows come before its V value rows.
///
/// # Errors
/// If a shape or dtype is not as above.
///
/// # Source
/// DeepSeek-V2 report, section 2.1.2: W_UK absorbed into W_UQ.
pub fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    let _span = tracing::trace_span!("absorb_query").entered();
    check_float("absorb_query", "q_nope", q_nope)?;
    let (_, heads, nope_dim) = q_nope.dims3()?;
    let (n, _) = check_weight("absorb_query", &kv_b_proj.weight, kv_b_proj.weight_scale_inv.as_ref())?;
    if n != heads * (nope_dim + v_dim) {
        candle::bail!("absorb_query: kv_b_proj has {n} rows, not {heads} heads × ({nope_dim} + {v_dim})")
    }
    match backend(&[q_nope, &kv_b_proj.weight]) {
        Backend::Reference => reference::absorb_query(q_nope, kv_b_proj, v_dim),
        Backend::Cpu => cpu::absorb_query(q_nope, kv_b_proj, v_dim),
    }
}

/// `latent: [T, H, L]` → `[T, H, V]` of the same dtype: each head's attention output times the value half of its rows
/// of `kv_b_proj: [H * (N + V), L]`.
///
/// # Errors
/// If a shape or dtype is not as above.
///
/// # Source
/// DeepSeek-V2 report, section 2.1.2: W_UV absorbed into W_O.
pub fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    let _span = tracing::trace_span!("absorb_value").entered();
    check_float("absorb_value", "latent", latent)?;
    let (_, heads, width) = latent.dims3()?;
    let (n, k) = check_weight("absorb_value", &kv_b_proj.weight, kv_b_proj.weight_scale_inv.as_ref())?;
    if k != width || heads == 0 || n % heads != 0 || n / heads < nope_dim {
        candle::bail!("absorb_value: kv_b_proj [{n}, {k}] does not fit {heads} heads of {width}, key half {nope_dim}")
    }
    match backend(&[latent, &kv_b_proj.weight]) {
        Backend::Reference => reference::absorb_value(latent, kv_b_proj, nope_dim),
        Backend::Cpu => cpu::absorb_value(latent, kv_b_proj, nope_dim),
    }
}
