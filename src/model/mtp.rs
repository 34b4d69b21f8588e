//! Multi-token prediction: one more layer that predicts the token after the next one.

use candle::{DType, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::layer::{Layer, LayerOutput};
use super::linear::linear;
use super::norm::RmsNorm;
use super::parameters::Weights;
use crate::config::Config;
use crate::ops;
use crate::ops::linear::{LinearMode, LinearWeight};

/// The MTP module, `model.layers.{num_hidden_layers}`.
#[derive(Debug, Clone)]
pub(super) struct Mtp {
    embed_tokens: Tensor,
    enorm: RmsNorm,
    hnorm: RmsNorm,
    eh_proj: LinearWeight,
    layer: Layer,
    norm: RmsNorm,
    head: LinearWeight,
}

impl Mtp {
    /// Whether `vb`, the root, has the MTP layer that `cfg` asks for: a checkpoint may lack it. A `vb` that has no
    /// embedding either has nothing yet, and makes what it is asked for.
    pub(super) fn is_in(cfg: &Config, vb: &VarBuilder) -> bool {
        let layer = cfg.num_hidden_layers;
        cfg.num_nextn_predict_layers > 0
            && (vb.contains_tensor(&format!("model.layers.{layer}.eh_proj.weight"))
                || !vb.contains_tensor("model.embed_tokens.weight"))
    }

    /// `embed_tokens` and `lm_head` are the main model's, for checkpoints that don't repeat them.
    pub(super) fn new(
        cfg: &Config,
        mode: LinearMode,
        embed_tokens: &Tensor,
        lm_head: &LinearWeight,
        vb: VarBuilder,
    ) -> Result<Self> {
        let hidden = cfg.hidden_size;
        let linear = |in_dim, out_dim, vb| linear(in_dim, out_dim, cfg.initializer_range, vb);
        let norm = |vb: VarBuilder| RmsNorm::new(hidden, cfg.rms_norm_eps, vb);
        let embed_vb = vb.pp("embed_tokens");
        let embed_tokens = if embed_vb.contains_tensor("weight") {
            embed_vb.get((cfg.vocab_size, hidden), "weight")?
        } else {
            embed_tokens.clone()
        };
        let head_vb = vb.pp("shared_head").pp("head");
        let head =
            if head_vb.contains_tensor("weight") { linear(hidden, cfg.vocab_size, head_vb)? } else { lm_head.clone() };
        Ok(Self {
            embed_tokens,
            enorm: norm(vb.pp("enorm"))?,
            hnorm: norm(vb.pp("hnorm"))?,
            eh_proj: linear(2 * hidden, hidden, vb.pp("eh_proj"))?,
            layer: Layer::new(cfg, mode, cfg.mlp_type(cfg.num_hidden_layers), cfg.has_indexer(), vb.clone())?,
            norm: norm(vb.pp("shared_head").pp("norm"))?,
            head,
        })
    }

    /// The decoder layer.
    pub(super) fn layer(&self) -> &Layer {
        &self.layer
    }

    /// The same with the projection of its input rounded to `dtype`.
    pub(super) fn with_input_rounded(&self, dtype: DType) -> Result<Self> {
        Ok(Self { eh_proj: self.eh_proj.rounded(dtype)?, ..self.clone() })
    }

    /// `next_ids: [T]` u32 and `hidden: [T, hidden_size]` → `[T, hidden_size]` after `shared_head.norm`, and what the
    /// layer gave before it. `run` runs the layer, given the residual stream.
    pub(super) fn forward(
        &self,
        next_ids: &Tensor,
        hidden: &Tensor,
        run: impl FnOnce(&Layer, &Tensor) -> Result<LayerOutput>,
    ) -> Result<(Tensor, LayerOutput)> {
        let embedding = ops::gather(&self.embed_tokens, next_ids, hidden.dtype())?;
        let z = ops::join(&self.enorm.forward(&embedding)?, &self.hnorm.forward(hidden)?)?;
        let x = self.eh_proj.forward(&z, LinearMode::Dequant)?;
        let out = run(&self.layer, &x)?;
        Ok((self.norm.forward(&out.hidden)?, out))
    }

    pub(super) fn head(&self) -> &LinearWeight {
        &self.head
    }

    /// `hidden: [n, hidden_size]` → logits `[n, vocab_size]` f32.
    pub(super) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(&ops::cast(hidden, DType::F32)?, LinearMode::Dequant)
    }
}
