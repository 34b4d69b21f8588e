//! The router's selection of experts.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::{Backend, backend};

mod cpu;
pub mod reference;

pub use reference::{GateConfig, NORM_EPS};

/// Selects each token's experts and their weights from the router's logits.
///
/// Scores are `sigmoid(logits)`. Selection is by score plus `e_score_correction_bias`: the `topk_group` groups
/// with the largest sum of their two best experts stay, then the `k` best experts of these; of equals the smaller id
/// wins. Weights are the scores without bias, divided by their sum + 1e-20 if `norm_topk_prob`, times
/// `routed_scaling_factor`.
///
/// # Shapes
/// - `logits`: `[T, E]`, f32
/// - `e_score_correction_bias`: `[E]`, f32
/// - result: expert indices `[T, k]` u32 ascending by id, expert weights `[T, k]` f32
///
/// # Errors
/// If a shape or dtype is not as above, the groups do not divide the experts, `topk_group > n_group`, `k > E`, or a
/// score is NaN.
///
/// # Source
/// DeepSeek-V3 technical report (arXiv 2412.19437), section 2.1.2; `Gate` in DeepSeek-V3.2-Exp `inference/model.py`.
pub fn gate(logits: &Tensor, e_score_correction_bias: Option<&Tensor>, cfg: &GateConfig) -> Result<(Tensor, Tensor)> {
    let _span = tracing::trace_span!("gate").entered();
    let &[tokens, experts] = logits.dims() else {
        candle::bail!("gate: logits must be [T, E], got {:?}", logits.dims())
    };
    check_f32("logits", logits)?;
    if let Some(bias) = e_score_correction_bias {
        check_f32("e_score_correction_bias", bias)?;
        if bias.dims() != [experts] {
            candle::bail!("gate: e_score_correction_bias must be [{experts}], got {:?}", bias.dims())
        }
    }
    check_config(cfg, experts)?;
    let k = cfg.num_experts_per_tok;
    if tokens == 0 || k == 0 {
        let device = logits.device();
        return Ok((Tensor::zeros((tokens, k), DType::U32, device)?, Tensor::zeros((tokens, k), DType::F32, device)?));
    }
    match backend(&[logits, e_score_correction_bias.unwrap_or(logits)]) {
        Backend::Cpu => cpu::gate(logits, e_score_correction_bias, cfg),
        Backend::Reference => reference::gate(logits, e_score_correction_bias, cfg),
    }
}

fn check_f32(name: &str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F32 => Ok(()),
        other => candle::bail!("gate: {name} must be f32, got {other:?}"),
    }
}

fn check_config(cfg: &GateConfig, experts: usize) -> Result<()> {
    if cfg.n_group == 0 || !experts.is_multiple_of(cfg.n_group) {
        candle::bail!("gate: n_group {} must divide the {experts} experts", cfg.n_group)
    }
    if cfg.topk_group > cfg.n_group || cfg.topk_group == 0 {
        candle::bail!("gate: topk_group must be in 1..={} (n_group), got {}", cfg.n_group, cfg.topk_group)
    }
    if cfg.num_experts_per_tok > experts {
        candle::bail!("gate: num_experts_per_tok {} exceeds the {experts} experts", cfg.num_experts_per_tok)
    }
    Ok(())
}
