//! The gated MLP and the mixture of experts.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::linear::{self, LinearMode, LinearWeight, check_weight};
use crate::ops::{Backend, backend, simd::floats::check_float};

mod cpu;
pub mod reference;

pub use reference::ExpertWeights;

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
    check_weights("mlp", x, gate_proj, up_proj, down_proj)?;
    if x.elem_count() > 0 && [gate_proj, up_proj, down_proj].iter().all(|weight| on_cpu(x, weight)) {
        return cpu::mlp(x, gate_proj, up_proj, down_proj, mode);
    }
    reference::mlp(x, gate_proj, up_proj, down_proj, mode)
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
    check_float("moe", "x", x)?;
    let &[tokens, hidden] = x.dims() else { candle::bail!("moe: x must be [T, H], got {:?}", x.dims()) };
    let (indices, weights) = (expert_indices.dims(), expert_weights.dims());
    if indices.len() != 2 || indices[0] != tokens || indices != weights {
        candle::bail!(
            "moe: expert_indices and expert_weights must both be [{tokens}, k], got {indices:?} and {weights:?}"
        )
    }
    check_float("moe", "expert_weights", expert_weights)?;
    if expert_indices.dtype() != DType::U32 {
        candle::bail!("moe: expert_indices must be u32, got {:?}", expert_indices.dtype())
    }
    for expert in experts {
        let ExpertWeights { gate_proj, up_proj, down_proj } = expert;
        check_weights("moe", x, gate_proj, up_proj, down_proj)?;
        if down_proj.weight.dims()[0] != hidden {
            candle::bail!("moe: down_proj must be [{hidden}, I], got {:?}", down_proj.weight.dims())
        }
    }
    if x.elem_count() == 0 || indices[1] == 0 {
        return x.zeros_like();
    }
    let all_on_cpu = |expert: &ExpertWeights| {
        [&expert.gate_proj, &expert.up_proj, &expert.down_proj].iter().all(|weight| on_cpu(x, weight))
    };
    if backend(&[x, expert_indices, expert_weights]) == Backend::Cpu && experts.iter().all(all_on_cpu) {
        return cpu::moe(x, experts, expert_indices, expert_weights, mode);
    }
    reference::moe(x, experts, expert_indices, expert_weights, mode)
}

fn on_cpu(x: &Tensor, weight: &LinearWeight) -> bool {
    linear::on_cpu(x, &weight.weight, weight.weight_scale_inv.as_ref())
}

fn check_weights(op: &str, x: &Tensor, gate: &LinearWeight, up: &LinearWeight, down: &LinearWeight) -> Result<()> {
    linear::check(op, x, &gate.weight, gate.weight_scale_inv.as_ref())?;
    linear::check(op, x, &up.weight, up.weight_scale_inv.as_ref())?;
    let (gate, up) = (gate.weight.dims(), up.weight.dims());
    if gate != up {
        candle::bail!("{op}: gate_proj {gate:?} and up_proj {up:?} must have the same shape")
    }
    let (n, k) = check_weight(op, &down.weight, down.weight_scale_inv.as_ref())?;
    if k != gate[0] {
        candle::bail!("{op}: down_proj must be [.., {}] for gate_proj {gate:?}, got [{n}, {k}]", gate[0])
    }
    Ok(())
}
