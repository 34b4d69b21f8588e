//! The gated MLP and the mixture of experts.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};
use crate::ops::linear::{self, LinearMode, LinearWeight, check_weight};

mod cpu;
pub mod reference;

pub use reference::ExpertWeights;

pub(crate) const MLP: Op = Op { name: "mlp", cpu: FastPath::CPU };
pub(crate) const MOE: Op = Op { name: "moe", cpu: FastPath::CPU };

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
        _ => reference::mlp(x, gate_proj, up_proj, down_proj, mode),
    }
}

/// The weighted sum of the chosen experts' outputs for each token; shared experts are not included.
///
/// Each expert is an [`mlp`]; the sum is accumulated in f32 in ascending order of a token's choices.
///
/// # Shapes
/// - `x`: `[T, H]`, f32, bf16, f16 or f64
/// - `experts`: gate and up `[I, H]`, down `[H, I]`
/// - `expert_indices`: `[T, k]` u32, each below `experts.len()`, ascending by id as [`gate`](crate::ops::gate::gate)
///   returns them
/// - `expert_weights`: `[T, k]` f32
/// - result: `[T, H]`, dtype of `x`
///
/// # Errors
/// If a shape or dtype is not as above, or an index is out of range.
pub fn moe(
    x: &Tensor,
    experts: &[ExpertWeights],
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
    for expert in experts {
        let ExpertWeights { gate_proj, up_proj, down_proj } = expert;
        check_weights(MOE.name, x, gate_proj, up_proj, down_proj)?;
        args::shape(MOE.name, "down_proj.weight", &down_proj.weight, [exactly("H", hidden), any("I")])?;
    }
    if x.elem_count() == 0 || k == 0 {
        return x.zeros_like();
    }
    let weights = experts.iter().flat_map(|expert| [&expert.gate_proj, &expert.up_proj, &expert.down_proj]);
    let weights = weights.flat_map(|weight| weight.tensors());
    match MOE.backend([x, expert_indices, expert_weights].into_iter().chain(weights)) {
        Backend::Cpu => cpu::moe(x, experts, expert_indices, expert_weights, mode),
        Backend::Reference => reference::moe(x, experts, expert_indices, expert_weights, mode),
    }
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
