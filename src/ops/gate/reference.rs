//! The router's selection as a composition of candle tensor functions.

use candle::{D, DType, Device, Result, Tensor};
use candle_core as candle;

/// How the router selects experts. Field names are those of the model's config.
#[derive(Debug, Clone, PartialEq)]
pub struct GateConfig {
    /// Groups that the experts are divided into, in order of id.
    pub n_group: usize,
    /// Groups that a token may take experts from.
    pub topk_group: usize,
    /// Experts per token, `k`.
    pub num_experts_per_tok: usize,
    /// Whether the weights of a token's experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the weights.
    pub routed_scaling_factor: f64,
}

/// Added to the sum that the weights are divided by.
pub const NORM_EPS: f64 = 1e-20;

/// [`gate`](super::gate) on any device, differentiable in the logits.
///
/// # Errors
/// If a score is NaN, and those of the tensor functions.
pub fn gate(logits: &Tensor, bias: Option<&Tensor>, cfg: &GateConfig) -> Result<(Tensor, Tensor)> {
    let (tokens, experts) = logits.dims2()?;
    let scores = candle_nn::ops::sigmoid(&logits.to_dtype(DType::F32)?)?;
    let choice = match bias {
        Some(bias) => scores.broadcast_add(&bias.to_dtype(DType::F32)?)?,
        None => scores.clone(),
    };
    let choice = choice.detach();
    let not_nan = choice.eq(&choice)?.to_dtype(DType::F32)?.min_all()?.to_scalar::<f32>()?;
    if not_nan == 0.0 {
        candle::bail!("gate: a router score is NaN")
    }
    let choice = if cfg.topk_group < cfg.n_group {
        let size = experts / cfg.n_group;
        let groups = choice.reshape((tokens, cfg.n_group, size))?;
        let best_two = top_mask(&groups, 2)?;
        let group_scores = best_two.where_cond(&groups, &groups.zeros_like()?)?.sum(D::Minus1)?;
        let kept = top_mask(&group_scores, cfg.topk_group)?.unsqueeze(2)?.broadcast_as(groups.dims())?;
        let excluded = Tensor::full(f32::NEG_INFINITY, groups.dims(), groups.device())?;
        kept.where_cond(&groups, &excluded)?.reshape((tokens, experts))?
    } else {
        choice
    };
    let chosen = top_mask(&choice, cfg.num_experts_per_tok)?;
    let indices = ascending_ids(&chosen, cfg.num_experts_per_tok)?;
    let mut weights = scores.gather(&indices, D::Minus1)?;
    if cfg.norm_topk_prob {
        weights = weights.broadcast_div(&(weights.sum_keepdim(D::Minus1)? + NORM_EPS)?)?;
    }
    Ok((indices, (weights * cfg.routed_scaling_factor)?))
}

/// 1 at the `k` largest elements of the last dimension, 0 elsewhere; of equal elements the first wins.
fn top_mask(values: &Tensor, k: usize) -> Result<Tensor> {
    // Candle's sorts are not stable on every device, so rank each element by counting those before it.
    let width = values.dim(D::Minus1)?;
    let (own, other) = (values.unsqueeze(D::Minus1)?, values.unsqueeze(values.rank() - 1)?);
    let column = Tensor::arange(0u32, width as u32, &Device::Cpu)?.to_device(values.device())?;
    let earlier = column.unsqueeze(0)?.broadcast_lt(&column.unsqueeze(1)?)?;
    let larger = other.broadcast_gt(&own)?.to_dtype(DType::F32)?;
    let tied = other.broadcast_eq(&own)?.to_dtype(DType::F32)?.broadcast_mul(&earlier.to_dtype(DType::F32)?)?;
    (larger + tied)?.sum(D::Minus1)?.lt(k as f64)
}

/// Positions of the `k` ones of every row of `mask` `[T, E]`, ascending, `[T, k]` u32.
fn ascending_ids(mask: &Tensor, k: usize) -> Result<Tensor> {
    let (tokens, experts) = mask.dims2()?;
    // The n-th smallest id is the number of experts with at most n chosen ones up to and including them.
    let chosen_so_far = mask.to_dtype(DType::F32)?.cumsum(1)?.unsqueeze(1)?;
    let rank = Tensor::arange(0u32, k as u32, mask.device())?.to_dtype(DType::F32)?.reshape((1, k, 1))?;
    let before = chosen_so_far.broadcast_as((tokens, k, experts))?.broadcast_le(&rank)?;
    before.to_dtype(DType::F32)?.sum(D::Minus1)?.to_dtype(DType::U32)
}
