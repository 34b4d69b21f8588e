//! One decoder layer.

use candle::{Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::attention::{Attention, AttentionOutput};
use super::indexer::IndexerOutput;
use super::keys::KeySource;
use super::mlp::Mlp;
use super::moe::{Moe, MoeOutput};
use super::norm::RmsNorm;
use super::parameters::{Function, Weights};
use super::step::Step;
use super::training::IndexerInputs;
use crate::config::{Config, MlpType};
use crate::ops;
use crate::ops::linear::LinearMode;

#[derive(Debug, Clone)]
pub(super) enum FeedForward {
    Dense(Mlp),
    Sparse(Box<Moe>),
}

/// Attention and feed-forward, each behind a norm and added to the residual stream.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pub(super) mlp: FeedForward,
}

/// What a layer gives back.
pub(super) struct LayerOutput {
    /// The residual stream, `[T, hidden_size]`.
    pub(super) hidden: Tensor,
    /// The slots that its attention chose for the step's sparse rows, `[sparse rows, index_topk]`, -1 = none.
    pub(super) chosen: Option<Tensor>,
    /// The scores of its indexer, `[T, longest context]` f32, if the step asks for them.
    pub(super) index_scores: Option<Tensor>,
    /// What its indexer's loss is computed from, if the step asks for it.
    pub(super) indexer_inputs: Option<IndexerInputs>,
    /// The logits of its router, `[T, n_routed_experts]` f32; `None` in dense layers.
    pub(super) router_logits: Option<Tensor>,
    /// The experts it used, `[T, num_experts_per_tok]` u32.
    pub(super) expert_indices: Option<Tensor>,
}

/// What a layer takes as chosen, instead of choosing itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// The slots of the step's sparse rows, `[sparse rows, _]`, -1 = none.
    pub(super) chosen: Option<Tensor>,
    /// Experts, `[T, num_experts_per_tok]` u32, ascending.
    pub(super) experts: Option<Tensor>,
    /// Whether the layer ran before and its indexer need not: all that it would choose is given.
    pub(super) again: bool,
}

impl Layer {
    pub(super) fn new(cfg: &Config, mode: LinearMode, mlp: MlpType, indexer: bool, vb: VarBuilder) -> Result<Self> {
        let norm = |name: &str| RmsNorm::new(cfg.hidden_size, cfg.rms_norm_eps, vb.pp(name));
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::new(cfg, mode, indexer, vb.pp("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: match mlp {
                MlpType::Dense => FeedForward::Dense(Mlp::new(cfg, cfg.intermediate_size, mode, vb.pp("mlp"))?),
                MlpType::Sparse => FeedForward::Sparse(Box::new(Moe::new(cfg, mode, vb.pp("mlp"))?)),
            },
        })
    }

    /// `x: [T, hidden_size]` is the residual stream; `shared` is what an earlier layer chose.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        step: &Step,
        source: KeySource,
        shared: Option<Tensor>,
        given: &Given,
    ) -> Result<LayerOutput> {
        let attention = self.self_attn.forward(&self.input_layernorm.forward(x)?, step, source, shared, given)?;
        let (x, normed) = self.post_attention_layernorm.forward_sum(x, &attention.out)?;
        let (hidden, router_logits, expert_indices) = match &self.mlp {
            FeedForward::Dense(mlp) => (ops::add(&x, &mlp.forward(&normed)?, None)?, None, None),
            FeedForward::Sparse(moe) => {
                let MoeOutput { routed, shared, router_logits, expert_indices } =
                    moe.forward(&normed, given.experts.as_ref())?;
                (ops::add(&x, &routed, shared.as_ref())?, Some(router_logits), Some(expert_indices))
            }
        };
        let AttentionOutput { chosen, index_scores, indexer_inputs, .. } = attention;
        Ok(LayerOutput { hidden, chosen, index_scores, indexer_inputs, router_logits, expert_indices })
    }
}

impl Layer {
    /// What the indexer gives for the residual stream `x: [T, hidden_size]`, and nothing else of the layer.
    pub(super) fn index(&self, x: &Tensor, step: &Step, source: KeySource, given: &Given) -> Result<IndexerOutput> {
        self.self_attn.index(&self.input_layernorm.forward(x)?, step, source, given)
    }

    /// The variables that [`Self::forward`]'s residual stream depends on.
    pub(super) fn main_variables(&self) -> Result<Vec<Tensor>> {
        Self { self_attn: self.self_attn.without_indexer(), ..self.clone() }.variables()
    }

    /// The variables of the indexer.
    pub(super) fn index_variables(&self) -> Result<Vec<Tensor>> {
        self.self_attn.index_variables()
    }
}

impl Weights for Layer {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        Ok(Self {
            input_layernorm: self.input_layernorm.with_weights(f)?,
            self_attn: self.self_attn.with_weights(f)?,
            post_attention_layernorm: self.post_attention_layernorm.with_weights(f)?,
            mlp: match &self.mlp {
                FeedForward::Dense(mlp) => FeedForward::Dense(mlp.with_weights(f)?),
                FeedForward::Sparse(moe) => FeedForward::Sparse(Box::new(moe.with_weights(f)?)),
            },
        })
    }
}
