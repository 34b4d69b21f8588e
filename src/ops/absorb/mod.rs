//! The two products with `kv_b_proj` of MLA's MQA mode: query into latent space, latent output into value space.

use candle::{Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any};
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::linear::{LinearWeight, check_weight};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub(crate) const QUERY: Op = Op { name: "absorb_query", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const VALUE: Op = Op { name: "absorb_value", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };

/// Each head's query times the key half of its rows of `kv_b_proj`, in which a head's `N` key rows come before its `V`
/// value rows. Computed in f32.
///
/// # Shapes
/// - `q_nope`: `[T, H, N]`, f32, bf16, f16 or f64
/// - `kv_b_proj`: `[H * (N + V), L]`
/// - `v_dim`: `V`
/// - result: `[T, H, L]`, dtype of `q_nope`
///
/// # Errors
/// If a shape or dtype is not as above.
///
/// # Source
/// DeepSeek-V2 report, section 2.1.2: W_UK absorbed into W_UQ.
pub fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    let _span = tracing::trace_span!("absorb_query").entered();
    args::dtype(QUERY.name, "q_nope", q_nope, args::FLOATS)?;
    let [_, heads, nope_dim] = args::shape(QUERY.name, "q_nope", q_nope, ["T", "H", "N"].map(any))?;
    let (n, k) = check_weight(QUERY.name, "kv_b_proj.weight", &kv_b_proj.weight, kv_b_proj.weight_scale_inv.as_ref())?;
    if n != heads * (nope_dim + v_dim) {
        candle::bail!(
            "absorb_query: kv_b_proj must be [H * (N + V) = {heads} * ({nope_dim} + {v_dim}), L], got [{n}, {k}]"
        )
    }
    match QUERY.backend([q_nope].into_iter().chain(kv_b_proj.tensors())) {
        Backend::Reference => reference::absorb_query(q_nope, kv_b_proj, v_dim),
        Backend::Cpu => cpu::absorb_query(q_nope, kv_b_proj, v_dim),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::absorb_query(q_nope, kv_b_proj, v_dim),
    }
}

/// Each head's attention output times the value half of its rows of `kv_b_proj`, in which a head's `N` key rows come
/// before its `V` value rows. Computed in f32.
///
/// # Shapes
/// - `latent`: `[T, H, L]`, f32, bf16, f16 or f64
/// - `kv_b_proj`: `[H * (N + V), L]`
/// - `nope_dim`: `N`
/// - result: `[T, H, V]`, dtype of `latent`
///
/// # Errors
/// If a shape or dtype is not as above.
///
/// # Source
/// DeepSeek-V2 report, section 2.1.2: W_UV absorbed into W_O.
pub fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    let _span = tracing::trace_span!("absorb_value").entered();
    args::dtype(VALUE.name, "latent", latent, args::FLOATS)?;
    let [_, heads, width] = args::shape(VALUE.name, "latent", latent, ["T", "H", "L"].map(any))?;
    let (n, k) = check_weight(VALUE.name, "kv_b_proj.weight", &kv_b_proj.weight, kv_b_proj.weight_scale_inv.as_ref())?;
    if k != width || heads == 0 || n % heads != 0 || n / heads < nope_dim {
        candle::bail!(
            "absorb_value: kv_b_proj must be [H * (N + V) = {heads} * ({nope_dim} + V), L = {width}], got [{n}, {k}]"
        )
    }
    match VALUE.backend([latent].into_iter().chain(kv_b_proj.tensors())) {
        Backend::Reference => reference::absorb_value(latent, kv_b_proj, nope_dim),
        Backend::Cpu => cpu::absorb_value(latent, kv_b_proj, nope_dim),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::absorb_value(latent, kv_b_proj, nope_dim),
    }
}
