//! Mixture of experts: sigmoid gate with group limits, routed experts, shared experts.

use candle::{DType, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;
use candle_nn::init::ZERO;

use super::linear::{linear, stacked};
use super::mlp::Mlp;
use super::parameters::{Function, Role, Weights, map_exact};
use crate::config::Config;
use crate::ops;
use crate::ops::gate::GateConfig;
use crate::ops::linear::{LinearMode, LinearWeight};
use crate::ops::moe::ExpertWeights;

/// The feed-forward part of a sparse layer.
#[derive(Debug, Clone)]
pub(super) struct Moe {
    gate: LinearWeight,
    e_score_correction_bias: Tensor,
    gate_config: GateConfig,
    experts: ExpertWeights,
    shared_experts: Option<Mlp>,
    mode: LinearMode,
}

/// What a mixture of experts gives back; the output is the sum of its first two parts.
pub(super) struct MoeOutput {
    /// The weighted sum of the chosen experts, `[T, hidden_size]`.
    pub(super) routed: Tensor,
    /// The sum of the shared experts, `[T, hidden_size]`, where there are any.
    pub(super) shared: Option<Tensor>,
    /// The router's logits, `[T, n_routed_experts]` f32.
    pub(super) router_logits: Tensor,
    /// The chosen experts, `[T, num_experts_per_tok]` u32, ascending by expert id.
    pub(super) expert_indices: Tensor,
}

impl Moe {
    pub(super) fn new(cfg: &Config, mode: LinearMode, vb: VarBuilder) -> Result<Self> {
        let (hidden, width) = (cfg.hidden_size, cfg.moe_intermediate_size);
        let gate_vb = vb.pp("gate");
        let gate = linear(hidden, cfg.n_routed_experts, cfg.initializer_range, gate_vb.clone())?;
        let e_score_correction_bias =
            gate_vb.get_with_hints_dtype(cfg.n_routed_experts, "e_score_correction_bias", ZERO, DType::F32)?;
        let experts = |projection: &str, dims| {
            stacked(cfg.n_routed_experts, dims, cfg.initializer_range, projection, vb.pp("experts"))
        };
        let experts = ExpertWeights {
            gate_proj: experts("gate_proj", (hidden, width))?,
            up_proj: experts("up_proj", (hidden, width))?,
            down_proj: experts("down_proj", (width, hidden))?,
        };
        let shared_experts = match cfg.n_shared_experts {
            0 => None,
            n => Some(Mlp::new(cfg, n * width, mode, vb.pp("shared_experts"))?),
        };
        let gate_config = GateConfig {
            n_group: cfg.n_group,
            topk_group: cfg.topk_group,
            num_experts_per_tok: cfg.num_experts_per_tok,
            norm_topk_prob: cfg.norm_topk_prob,
            routed_scaling_factor: cfg.routed_scaling_factor,
        };
        Ok(Self { gate, e_score_correction_bias, gate_config, experts, shared_experts, mode })
    }

    /// `x: [T, hidden_size]`. `given` experts, `[T, num_experts_per_tok]` u32 ascending, take the place of the router's
    /// choice; their weights are the router's.
    pub(super) fn forward(&self, x: &Tensor, given: Option<&Tensor>) -> Result<MoeOutput> {
        let router_logits = self.gate.forward_f32(x, self.mode)?;
        let (expert_indices, expert_weights) = match given {
            Some(experts) => (experts.clone(), ops::gate_weights(&router_logits, experts, &self.gate_config)?),
            None => ops::gate(&router_logits, Some(&self.e_score_correction_bias), &self.gate_config)?,
        };
        let routed = ops::moe(x, &self.experts, &expert_indices, &expert_weights, self.mode)?;
        let shared = self.shared_experts.as_ref().map(|experts| experts.forward(x)).transpose()?;
        Ok(MoeOutput { routed, shared, router_logits, expert_indices })
    }
}

impl Weights for Moe {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        let ExpertWeights { gate_proj, up_proj, down_proj } = &self.experts;
        Ok(Self {
            gate: map_exact(&self.gate, f)?,
            e_score_correction_bias: f(Role::Choice, &self.e_score_correction_bias)?,
            gate_config: self.gate_config.clone(),
            experts: ExpertWeights {
                gate_proj: gate_proj.with_weights(f)?,
                up_proj: up_proj.with_weights(f)?,
                down_proj: down_proj.with_weights(f)?,
            },
            shared_experts: self.shared_experts.with_weights(f)?,
            mode: self.mode,
        })
    }
}
