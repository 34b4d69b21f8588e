//! The router's selection of experts.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::args::{self, any, exactly};
use crate::ops::dispatch::{Backend, FastPath, Op};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;

pub use reference::{GateConfig, NORM_EPS};

pub(crate) const OP: Op = Op { name: "gate", cpu: FastPath::CPU, cuda: FastPath::CUDA };

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
    let [tokens, experts] = args::shape(OP.name, "logits", logits, ["T", "E"].map(any))?;
    args::dtype(OP.name, "logits", logits, &[DType::F32])?;
    if let Some(bias) = e_score_correction_bias {
        args::dtype(OP.name, "e_score_correction_bias", bias, &[DType::F32])?;
        args::shape(OP.name, "e_score_correction_bias", bias, [exactly("E", experts)])?;
    }
    check_config(cfg, experts)?;
    let k = cfg.num_experts_per_tok;
    if tokens == 0 || k == 0 {
        let device = logits.device();
        return Ok((Tensor::zeros((tokens, k), DType::U32, device)?, Tensor::zeros((tokens, k), DType::F32, device)?));
    }
    match OP.backend([logits].into_iter().chain(e_score_correction_bias)) {
        Backend::Cpu => cpu::gate(logits, e_score_correction_bias, cfg),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::gate(logits, e_score_correction_bias, cfg),
        Backend::Reference => reference::gate(logits, e_score_correction_bias, cfg),
    }
}

/// Returns the weights of experts that were chosen already: [`gate`] without its selection.
///
/// Weights come from `logits`, whichever experts these would choose: an expert that they rank last has a weight above 0,
/// too. Their gradients reach the logits of the named experts, and no others.
///
/// # Shapes
/// - `logits`: `[T, E]`, f32
/// - `expert_indices`: `[T, k]` u32, each in `0..E`
/// - result: `[T, k]` f32, differentiable in `logits`
///
/// # Errors
/// If a shape or dtype is not as above, or an index on CPU is out of range.
///
/// # Source
/// arXiv 2512.02556, section 3.1, "keep routing".
pub fn gate_weights(logits: &Tensor, expert_indices: &Tensor, cfg: &GateConfig) -> Result<Tensor> {
    let op = "gate_weights";
    let [tokens, _] = args::shape(op, "logits", logits, ["T", "E"].map(any))?;
    args::dtype(op, "logits", logits, &[DType::F32])?;
    args::dtype(op, "expert_indices", expert_indices, &[DType::U32])?;
    args::shape(op, "expert_indices", expert_indices, [exactly("T", tokens), any("k")])?;
    if expert_indices.elem_count() == 0 {
        return Tensor::zeros(expert_indices.dims(), DType::F32, logits.device());
    }
    reference::gate_weights(logits, expert_indices, cfg)
}

fn check_config(cfg: &GateConfig, experts: usize) -> Result<()> {
    if cfg.n_group == 0 || !experts.is_multiple_of(cfg.n_group) {
        candle::bail!("gate: n_group must divide the {experts} experts, got {}", cfg.n_group)
    }
    args::number(OP.name, "topk_group", cfg.topk_group, 1, cfg.n_group)?;
    args::number(OP.name, "num_experts_per_tok", cfg.num_experts_per_tok, 0, experts)
}
