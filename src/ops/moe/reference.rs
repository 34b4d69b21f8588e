//! The MLP and the mixture of experts as compositions of candle tensor functions.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::linear::{LinearMode, LinearWeight};
use crate::ops::swiglu::swiglu;

/// The weights of one expert, or of any gated MLP.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// `[I, H]`
    pub gate_proj: LinearWeight,
    /// `[I, H]`
    pub up_proj: LinearWeight,
    /// `[H, I]`
    pub down_proj: LinearWeight,
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
/// # Errors
/// Those of the tensor functions.
pub fn moe(
    x: &Tensor,
    experts: &[ExpertWeights],
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let (tokens, k) = expert_indices.dims2()?;
    let device = x.device();
    let mut choices = vec![Vec::new(); experts.len()];
    for (choice, expert) in expert_indices.flatten_all()?.to_vec1::<u32>()?.into_iter().enumerate() {
        match choices.get_mut(expert as usize) {
            Some(chosen) => chosen.push(choice as u32),
            None => candle::bail!("moe: expert index {expert} is out of range of {} experts", experts.len()),
        }
    }
    let wide = x.to_dtype(DType::F32)?;
    let weights = expert_weights.to_dtype(DType::F32)?.reshape((tokens * k, 1))?;
    let mut out = Tensor::zeros(x.dims(), DType::F32, device)?;
    for (expert, chosen) in experts.iter().zip(choices).filter(|(_, chosen)| !chosen.is_empty()) {
        let rows: Vec<u32> = chosen.iter().map(|choice| choice / k as u32).collect();
        let (rows, chosen) = (Tensor::new(rows, device)?, Tensor::new(chosen, device)?);
        let input = wide.index_select(&rows, 0)?;
        let output = mlp(&input, &expert.gate_proj, &expert.up_proj, &expert.down_proj, mode)?;
        let weighted = output.broadcast_mul(&weights.index_select(&chosen, 0)?)?;
        out = out.index_add(&rows, &weighted, 0)?;
    }
    out.to_dtype(x.dtype())
}
