//! The gated MLP and the mixture of experts.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::linear::{self, LinearMode, LinearWeight, StackedWeight, check_weight};

mod backward;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;
#[cfg(feature = "cuda")]
mod rows;

pub use reference::ExpertWeights;

pub(crate) const MLP: Op = Op { name: "mlp", cpu: FastPath::CPU, cuda: FastPath::CUDA_FP8 };
pub(crate) const MOE: Op = Op { name: "moe", cpu: FastPath::CPU_TRACKED, cuda: FastPath::CUDA_FP8 };

/// `down_proj(silu(gate_proj(x)) · up_proj(x))`, in f32 throughout.
///
/// # Shapes
/// - `x`: `[.., H]`, f32, bf16, f16 or f64
/// - `gate_proj`, `up_proj`: `[I, H]`; `down_proj`: `[H', I]`
/// - result: `[.., H']`, dtype of `x`
///
/// # Errors
/// If the weights do not fit together or with `x`, and as [`linear`](crate::ops::linear::linear).
pub fn mlp(
    x: &Tensor,
    gate_proj: &LinearWeight,
    up_proj: &LinearWeight,
    down_proj: &LinearWeight,
    mode: LinearMode,
) -> Result<Tensor> {
    let _span = tracing::trace_span!("mlp").entered();
    check_weights(MLP.name, x, gate_proj, up_proj, down_proj)?;
    let weights = [gate_proj, up_proj, down_proj].into_iter().flat_map(|weight| weight.tensors());
    match MLP.backend([x].into_iter().chain(weights)) {
        Backend::Cpu if x.elem_count() > 0 => cpu::mlp(x, gate_proj, up_proj, down_proj, mode),
        #[cfg(feature = "cuda")]
        Backend::Cuda if x.elem_count() > 0 => cuda::mlp(x, gate_proj, up_proj, down_proj, mode),
        _ => reference::mlp(x, gate_proj, up_proj, down_proj, mode),
    }
}

/// The weighted sum of the chosen experts' outputs for each token; shared experts are not included.
///
/// Each expert is an [`mlp`]; the sum is accumulated in f32 in ascending order of a token's choices.
///
/// # Shapes
/// - `x`: `[T, H]`, f32, bf16, f16 or f64
/// - `experts`: gate and up `[E, I, H]`, down `[E, H, I]`, each f32, bf16, f16 or f8e4m3 with scales
///   `[E, ceil(N/128), ceil(K/128)]` f32
/// - `expert_indices`: `[T, k]` u32, each in `0..E`, ascending by id as [`gate`](crate::ops::gate::gate) returns them
/// - `expert_weights`: `[T, k]` f32
/// - result: `[T, H]`, dtype of `x`
///
/// # Errors
/// If a shape or dtype is not as above, or, for indices on CPU, one is out of range. On another device the indices are
/// not read, and one that is out of range chooses nothing.
pub fn moe(
    x: &Tensor,
    experts: &ExpertWeights,
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let _span = tracing::trace_span!("moe").entered();
    args::dtype(MOE.name, "x", x, args::FLOATS)?;
    let [tokens, hidden] = args::shape(MOE.name, "x", x, ["T", "H"].map(any))?;
    let [_, k] = args::shape(MOE.name, "expert_indices", expert_indices, [exactly("T", tokens), any("k")])?;
    args::shape(MOE.name, "expert_weights", expert_weights, [exactly("T", tokens), exactly("k", k)])?;
    args::dtype(MOE.name, "expert_weights", expert_weights, args::FLOATS)?;
    args::dtype(MOE.name, "expert_indices", expert_indices, &[DType::U32])?;
    let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
    let [count, width, _] = check_stack("gate_proj.weight", gate_proj, [any("E"), any("I"), exactly("H", hidden)])?;
    let (e, i, h) = (exactly("E", count), exactly("I", width), exactly("H", hidden));
    check_stack("up_proj.weight", up_proj, [e, i, h])?;
    check_stack("down_proj.weight", down_proj, [e, h, i])?;
    if x.elem_count() == 0 || k == 0 {
        return x.zeros_like();
    }
    if expert_indices.device().is_cpu() {
        let chosen = expert_indices.flatten_all()?.to_vec1::<u32>()?;
        if let Some(index) = chosen.iter().find(|&&index| index as usize >= count) {
            candle::bail!("{}: expert index {index} is out of range of {count} experts", MOE.name)
        }
    }
    let weights = [gate_proj, up_proj, down_proj].into_iter().flat_map(|stack| stack.tensors());
    let arguments: Vec<_> = [x, expert_indices, expert_weights].into_iter().chain(weights).collect();
    let tracked = arguments.iter().any(|tensor| tensor.track_op());
    let learns = |stack: &StackedWeight| stack.weight_scale_inv.as_ref().is_some_and(|scale| scale.track_op());
    let learns_scales = [gate_proj, up_proj, down_proj].into_iter().any(learns);
    match MOE.backend(arguments) {
        // The gradients of scales, and those of activations that are rounded to FP8, are the reference's.
        Backend::Cpu if tracked && (learns_scales || matches!(mode, LinearMode::Fp8 { .. })) => {
            reference::moe(x, experts, expert_indices, expert_weights, mode)
        }
        Backend::Cpu if tracked => backward::tracked(x, experts, expert_indices, expert_weights, mode),
        Backend::Cpu => cpu::moe(x, experts, expert_indices, expert_weights, mode),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::moe(x, experts, expert_indices, expert_weights, mode),
        Backend::Reference => reference::moe(x, experts, expert_indices, expert_weights, mode),
    }
}

/// Checks the shape and dtype of one projection and of its scales; returns its sizes.
fn check_stack(name: &str, stack: &StackedWeight, dims: [args::Dim; 3]) -> Result<[usize; 3]> {
    let sizes = args::shape(MOE.name, name, &stack.weight, dims)?;
    if let Some(scale) = &stack.weight_scale_inv {
        let scale_dims = [exactly("E", sizes[0]), any("blocks of N"), any("blocks of K")];
        args::shape(MOE.name, &format!("{name}_scale_inv"), scale, scale_dims)?;
    }
    if sizes[0] > 0 {
        let LinearWeight { weight, weight_scale_inv } = stack.get(0)?;
        check_weight(MOE.name, name, &weight, weight_scale_inv.as_ref())?;
    }
    Ok(sizes)
}

fn check_weights(op: &str, x: &Tensor, gate: &LinearWeight, up: &LinearWeight, down: &LinearWeight) -> Result<()> {
    linear::check(op, x, &gate.weight, gate.weight_scale_inv.as_ref())?;
    let check = |name, weight: &LinearWeight| check_weight(op, name, &weight.weight, weight.weight_scale_inv.as_ref());
    let (inner, _) = check("gate_proj.weight", gate)?;
    check("up_proj.weight", up)?;
    check("down_proj.weight", down)?;
    args::same_shape(op, "up_proj.weight", &up.weight, gate.weight.dims())?;
    args::last_dim(op, "down_proj.weight", &down.weight, exactly("I", inner)).map(|_| ())
}
