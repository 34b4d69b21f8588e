//! The router's selection as a composition of candle tensor functions.

use candle::{D, DType, Result, Tensor};
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
/// On CPU a NaN score is an error. On another device, where looking for one would wait for the device, a row with one
/// gets NaN weights.
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
    let is_nan = choice.ne(&choice)?;
    if choice.device().is_cpu() && is_nan.max_all()?.to_scalar::<u8>()? == 1 {
        candle::bail!("gate: a router score is NaN")
    }
    let choice = if cfg.topk_group < cfg.n_group {
        let size = experts / cfg.n_group;
        let groups = choice.reshape((tokens * cfg.n_group, size))?;
        let (best_two, _) = first_maxima(&groups, size.min(2))?;
        let group_scores = groups.gather(&best_two, 1)?.sum(1)?.reshape((tokens, cfg.n_group))?;
        let (_, kept) = first_maxima(&group_scores, cfg.topk_group)?;
        let kept = kept.unsqueeze(2)?.broadcast_as((tokens, cfg.n_group, size))?.reshape((tokens, experts))?;
        let excluded = Tensor::full(f32::NEG_INFINITY, (tokens, experts), choice.device())?;
        kept.where_cond(&choice, &excluded)?
    } else {
        choice
    };
    let (indices, _) = first_maxima(&choice, cfg.num_experts_per_tok)?;
    // The ids of a row are distinct, so any sort will do.
    let (indices, _) = indices.sort_last_dim(true)?;
    let weights = weights_of(&scores, &indices, cfg)?;
    if logits.device().is_cpu() {
        return Ok((indices, weights));
    }
    let nan = Tensor::full(f32::NAN, weights.dims(), weights.device())?;
    let poisoned = is_nan.max_keepdim(1)?.broadcast_as(weights.dims())?;
    Ok((indices, poisoned.where_cond(&nan, &weights)?))
}

/// [`gate_weights`](super::gate_weights) on any device, differentiable in the logits.
///
/// # Errors
/// Those of the tensor functions.
pub fn gate_weights(logits: &Tensor, expert_indices: &Tensor, cfg: &GateConfig) -> Result<Tensor> {
    weights_of(&candle_nn::ops::sigmoid(&logits.to_dtype(DType::F32)?)?, expert_indices, cfg)
}

/// The weights `[T, k]` of the experts `indices: [T, k]` by their scores `[T, E]`.
fn weights_of(scores: &Tensor, indices: &Tensor, cfg: &GateConfig) -> Result<Tensor> {
    let mut weights = scores.gather(&indices.contiguous()?, D::Minus1)?;
    if cfg.norm_topk_prob {
        weights = weights.broadcast_div(&(weights.sum_keepdim(D::Minus1)? + NORM_EPS)?)?;
    }
    weights * cfg.routed_scaling_factor
}

/// The columns of the `k` largest elements of each row of `values` `[R, N]`, largest first, `[R, k]` u32, and 1 at these
/// in `[R, N]` u8; of equal elements the smaller column comes first. `k` must not exceed `N`.
fn first_maxima(values: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
    let (rows, width) = values.dims2()?;
    let device = values.device();
    let column = Tensor::arange(0u32, width as u32, device)?.reshape((1, width))?.broadcast_as((rows, width))?;
    let column = column.contiguous()?;
    let beyond = Tensor::full(width as u32, (rows, width), device)?;
    let lowest = Tensor::full(f32::NEG_INFINITY, (rows, width), device)?;
    let mut taken = Tensor::zeros((rows, width), DType::U8, device)?;
    let mut columns = Vec::with_capacity(k);
    for _ in 0..k {
        // Sorts are not stable on every device, so the first maximum is looked up k times.
        let left = taken.where_cond(&lowest, values)?;
        let is_largest = left.broadcast_eq(&left.max_keepdim(1)?)?;
        // What is taken may equal a maximum of -inf.
        let open = taken.where_cond(&taken.zeros_like()?, &is_largest)?;
        let first = open.where_cond(&column, &beyond)?.min_keepdim(1)?;
        taken = (taken + column.broadcast_eq(&first)?)?;
        columns.push(first);
    }
    Ok((Tensor::cat(&columns, 1)?, taken))
}
