//! The MLP and the mixture of experts as compositions of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use crate::ops::swiglu::swiglu;

/// The routed experts of a layer.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// `[E, I, H]`
    pub gate_proj: StackedWeight,
    /// `[E, I, H]`
    pub up_proj: StackedWeight,
    /// `[E, H, I]`
    pub down_proj: StackedWeight,
}

/// [`mlp`](super::mlp) on any device, differentiable.
///
/// # Errors
/// Those of the tensor functions.
pub fn mlp(
    x: &Tensor,
    gate_proj: &LinearWeight,
    up_proj: &LinearWeight,
    down_proj: &LinearWeight,
    mode: LinearMode,
) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let hidden = swiglu(&gate_proj.forward(&wide, mode)?, &up_proj.forward(&wide, mode)?)?;
    down_proj.forward(&hidden, mode)?.to_dtype(x.dtype())
}

/// [`moe`](super::moe) on any device, differentiable.
///
/// Every expert computes every token, with zeros for the tokens that did not choose it: nothing is read from the
/// device, for E/k times the work. An index that is out of range chooses nothing.
///
/// # Errors
/// Those of the tensor functions.
pub fn moe(
    x: &Tensor,
    experts: &ExpertWeights,
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let count = experts.gate_proj.weight.dim(0)?;
    let wide = x.to_dtype(DType::F32)?;
    let weights = expert_weights.to_dtype(DType::F32)?;
    let (no_weight, no_input) = (weights.zeros_like()?, wide.zeros_like()?);
    let ids = Tensor::arange(0, count as u32, x.device())?;
    let mut out = Tensor::zeros(x.dims(), DType::F32, x.device())?;
    for expert in 0..count {
        let chosen = expert_indices.broadcast_eq(&ids.narrow(0, expert, 1)?)?; // [T, k]
        let by_token = chosen.max_keepdim(1)?.broadcast_as(x.dims())?; // [T, H]
        let input = by_token.where_cond(&wide, &no_input)?;
        let weight = chosen.where_cond(&weights, &no_weight)?.sum_keepdim(1)?; // [T, 1]
        let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
        let (gate, up, down) = (gate_proj.get(expert)?, up_proj.get(expert)?, down_proj.get(expert)?);
        out = (out + mlp(&input, &gate, &up, &down, mode)?.broadcast_mul(&weight)?)?;
    }
    out.to_dtype(x.dtype())
}
