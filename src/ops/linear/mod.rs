//! Linear layers over f32, bf16, f16 and block-FP8 weights.
//!
//! On CPU a row's bits depend neither on the number of threads nor on the other rows of the batch, with one exception:
//! where the processor has a matrix unit (AMX-BF16), batches of at least 32 rows with bf16 or f8e4m3 weights are added
//! in another order than smaller ones, as precisely. In a mixture of experts a batch is the rows of one expert. FP8
//! arithmetic ([`LinearMode::Fp8`]) keeps away from the unit: there a last bit can grow to a step of e4m3.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::fp8::{BLOCK, check_block_scale};
use crate::ops::{Backend, backend, simd::floats::check_float};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "no_amx.rs"]
mod amx;
pub(crate) mod cpu;
pub(crate) mod gemm;
mod in_order;
pub mod reference;

pub use reference::{LinearMode, LinearWeight};

/// `y = x · dequantised(weight)ᵀ` in f32.
///
/// # Shapes
/// - `x`: `[.., K]`, f32, bf16, f16 or f64
/// - `weight`: `[N, K]`, f32, bf16, f16 or f8e4m3
/// - `weight_scale_inv`: `[ceil(N/128), ceil(K/128)]` f32, below 2^120, with f8e4m3 weights only; without it
///   codes count as they are
/// - result: `[.., N]`, dtype of `x`
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn linear(x: &Tensor, weight: &Tensor, weight_scale_inv: Option<&Tensor>) -> Result<Tensor> {
    let _span = tracing::trace_span!("linear").entered();
    check("linear", x, weight, weight_scale_inv)?;
    match on_cpu(x, weight, weight_scale_inv) {
        true => cpu::linear(x, weight, weight_scale_inv, LinearMode::Dequant),
        false => reference::linear(x, weight, weight_scale_inv),
    }
}

/// `y = x · weightᵀ` with activations quantised to e4m3 by 1×128 groups ([`act_quant`](crate::ops::fp8::act_quant)).
///
/// # Shapes
/// - `x`: `[.., K]`, f32, bf16, f16 or f64
/// - `weight`: `[N, K]` f8e4m3
/// - `weight_scale_inv`: `[ceil(N/128), ceil(K/128)]` f32
/// - result: `[.., N]`, dtype of `x`
///
/// # Errors
/// If a shape or dtype is not as above.
///
/// # Source
/// DeepSeek-V3.2-Exp `inference/kernel.py`, `fp8_gemm`: sums of 128 products of codes, each scaled and added. The CPU
/// path adds the products in the order of K, whatever the batch, the threads and the processor.
pub fn linear_fp8(x: &Tensor, weight: &Tensor, weight_scale_inv: &Tensor, ue8m0: bool) -> Result<Tensor> {
    let _span = tracing::trace_span!("linear_fp8").entered();
    check("linear_fp8", x, weight, Some(weight_scale_inv))?;
    match on_cpu(x, weight, Some(weight_scale_inv)) {
        true => cpu::linear(x, weight, Some(weight_scale_inv), LinearMode::Fp8 { ue8m0 }),
        false => reference::linear_fp8(x, weight, weight_scale_inv, ue8m0),
    }
}

/// [`linear`] with the additions of [`linear_fp8`] on CPU, for what FP8 arithmetic leaves in f32.
///
/// # Errors
/// As [`linear`].
pub(crate) fn linear_in_order(x: &Tensor, weight: &Tensor, weight_scale_inv: Option<&Tensor>) -> Result<Tensor> {
    let _span = tracing::trace_span!("linear").entered();
    check("linear", x, weight, weight_scale_inv)?;
    match on_cpu(x, weight, weight_scale_inv) {
        true => cpu::linear_in_order(x, weight, weight_scale_inv),
        false => reference::linear_in_order(x, weight, weight_scale_inv),
    }
}

/// Several linear layers of the same `x`: `[.., K]` → `[.., N_i]` each, in the dtype of `x`.
///
/// Same values as [`LinearWeight::forward`] for each of `weights`; `x` is prepared once.
///
/// # Errors
/// As [`linear`].
pub fn linear_many(x: &Tensor, weights: &[&LinearWeight], mode: LinearMode) -> Result<Vec<Tensor>> {
    let _span = tracing::trace_span!("linear_many").entered();
    for LinearWeight { weight, weight_scale_inv } in weights {
        check("linear_many", x, weight, weight_scale_inv.as_ref())?;
    }
    if weights.iter().all(|weight| on_cpu(x, &weight.weight, weight.weight_scale_inv.as_ref())) {
        return cpu::linear_many(x, weights, mode);
    }
    weights.iter().map(|weight| weight.forward(x, mode)).collect()
}

/// Whether a linear layer of these runs on the fast path.
pub(crate) fn on_cpu(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> bool {
    backend(&[x, weight, scale.unwrap_or(weight)]) == Backend::Cpu
}

/// Checks the arguments of a linear layer.
pub(crate) fn check(op: &str, x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<()> {
    check_float(op, "x", x)?;
    let (n, k) = check_weight(op, weight, scale)?;
    if x.dims().last() != Some(&k) {
        candle::bail!("{op}: x must be [.., {k}] for a weight [{n}, {k}], got {:?}", x.dims())
    }
    Ok(())
}

/// Checks a weight and its block scale; returns `(N, K)`.
pub(crate) fn check_weight(op: &str, weight: &Tensor, scale: Option<&Tensor>) -> Result<(usize, usize)> {
    let &[n, k] = weight.dims() else { candle::bail!("{op}: weight must be [N, K], got {:?}", weight.dims()) };
    match (weight.dtype(), scale) {
        (DType::F32 | DType::BF16 | DType::F16 | DType::F8E4M3, None) => {}
        (DType::F8E4M3, Some(scale)) => check_block_scale(op, "weight_scale_inv", (n, k), scale, BLOCK)?,
        (other, Some(_)) => candle::bail!("{op}: weight_scale_inv needs an f8e4m3 weight, got {other:?}"),
        (other, None) => candle::bail!("{op}: weight must be f32, bf16, f16 or f8e4m3, got {other:?}"),
    }
    Ok((n, k))
}
