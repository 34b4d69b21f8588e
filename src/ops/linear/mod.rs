//! Linear layers over f32, bf16, f16 and block-FP8 weights.
//!
//! On CPU a row's bits depend neither on the number of threads nor on the other rows of the batch, with one exception:
//! where the processor has a matrix unit (AMX-BF16), batches of at least 32 rows with bf16 or f8e4m3 weights are added
//! in another order than smaller ones, as precisely. In a mixture of experts a batch is the rows of one expert. FP8
//! arithmetic ([`LinearMode::Fp8`]) keeps away from the unit: there a last bit can grow to a step of e4m3.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
#[cfg(feature = "cuda")]
use crate::ops::cast::cast;
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::fp8::{BLOCK, check_block_scale};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "no_amx.rs"]
mod amx;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod gemm;
mod in_order;
pub mod reference;

pub use reference::{LinearMode, LinearWeight, StackedWeight};

pub(crate) const LINEAR: Op = Op { name: "linear", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const LINEAR_BF16: Op = Op { name: "linear_bf16", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const LINEAR_FP8: Op = Op { name: "linear_fp8", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };

impl LinearWeight {
    /// The weight, and its scale where there is one.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.weight].into_iter().chain(&self.weight_scale_inv)
    }
}

impl StackedWeight {
    /// The weights, and their scales where there are any.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.weight].into_iter().chain(&self.weight_scale_inv)
    }
}

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
    check(LINEAR.name, x, weight, weight_scale_inv)?;
    match LINEAR.backend([x, weight].into_iter().chain(weight_scale_inv)) {
        Backend::Cpu => cpu::linear(x, weight, weight_scale_inv, LinearMode::Dequant),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::linear(x, weight, weight_scale_inv),
        Backend::Reference => reference::linear(x, weight, weight_scale_inv),
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
    check(LINEAR_FP8.name, x, weight, Some(weight_scale_inv))?;
    match LINEAR_FP8.backend([x, weight, weight_scale_inv]) {
        Backend::Cpu => cpu::linear(x, weight, Some(weight_scale_inv), LinearMode::Fp8 { ue8m0 }),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::linear_fp8(x, weight, weight_scale_inv, ue8m0),
        Backend::Reference => reference::linear_fp8(x, weight, weight_scale_inv, ue8m0),
    }
}

/// `y = bf16(x) · weightᵀ`: activations are rounded to bf16 (to nearest, ties to even), products are added in f32.
///
/// # Shapes
/// - `x`: `[.., K]`, f32, bf16, f16 or f64
/// - `weight`: `[N, K]` bf16
/// - result: `[.., N]`, dtype of `x`
///
/// On processors with AVX512-BF16 two products are added at a time, where `K` is even; subnormal numbers count as zero
/// there. So the bits of a processor with the instruction are not those of one without. They depend on the other rows
/// only as those of [`linear`] do.
///
/// # Errors
/// If a shape or dtype is not as above.
pub fn linear_bf16(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let _span = tracing::trace_span!("linear_bf16").entered();
    check(LINEAR_BF16.name, x, weight, None)?;
    args::dtype(LINEAR_BF16.name, "weight", weight, &[DType::BF16])?;
    match LINEAR_BF16.backend([x, weight]) {
        Backend::Cpu => cpu::linear(x, weight, None, LinearMode::Bf16),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::linear(&cast(&cast(x, DType::BF16)?, x.dtype())?, weight, None),
        Backend::Reference => reference::linear_bf16(x, weight),
    }
}

/// [`linear`] with the additions of [`linear_fp8`] on CPU, for what FP8 arithmetic leaves in f32.
///
/// # Errors
/// As [`linear`].
pub(crate) fn linear_in_order(x: &Tensor, weight: &Tensor, weight_scale_inv: Option<&Tensor>) -> Result<Tensor> {
    let _span = tracing::trace_span!("linear").entered();
    check(LINEAR.name, x, weight, weight_scale_inv)?;
    match LINEAR.backend([x, weight].into_iter().chain(weight_scale_inv)) {
        Backend::Cpu => cpu::linear_in_order(x, weight, weight_scale_inv),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::linear(x, weight, weight_scale_inv),
        Backend::Reference => reference::linear_in_order(x, weight, weight_scale_inv),
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
    match LINEAR.backend([x].into_iter().chain(weights.iter().flat_map(|weight| weight.tensors()))) {
        Backend::Cpu => cpu::linear_many(x, weights, mode),
        #[cfg(feature = "cuda")]
        Backend::Cuda => weights.iter().map(|weight| weight.forward(x, mode)).collect(),
        Backend::Reference => weights.iter().map(|weight| weight.forward(x, mode)).collect(),
    }
}

/// Checks the arguments of a linear layer.
pub(crate) fn check(op: &str, x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<()> {
    args::dtype(op, "x", x, args::FLOATS)?;
    let (_, k) = check_weight(op, "weight", weight, scale)?;
    args::last_dim(op, "x", x, exactly("K", k)).map(|_| ())
}

/// Checks the weight `name` and its block scale `{name}_scale_inv`; returns `(N, K)`.
pub(crate) fn check_weight(op: &str, name: &str, weight: &Tensor, scale: Option<&Tensor>) -> Result<(usize, usize)> {
    let [n, k] = args::shape(op, name, weight, ["N", "K"].map(any))?;
    match scale {
        None => args::dtype(op, name, weight, args::WEIGHTS)?,
        Some(scale) => {
            args::dtype(op, &format!("{name} with a scale"), weight, &[DType::F8E4M3])?;
            check_block_scale(op, &format!("{name}_scale_inv"), (n, k), scale, BLOCK)?;
        }
    }
    Ok((n, k))
}
