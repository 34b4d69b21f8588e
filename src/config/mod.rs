//! `config.json`: the shapes and constants of a model.
//!
//! [`Config`] holds the model's numbers under their Hugging Face names, in one normal form: the several spellings in
//! use (`rope_scaling` or `rope_parameters`, `first_k_dense_replace` or `mlp_layer_types`, ...) are resolved by
//! [`Config::from_json`], and [`Config::validate`] refuses what contradicts itself or what this crate does not compute.
//!
//! This module uses serde, serde_json and std alone.

use std::fmt;

mod indexer_types;
pub(crate) mod json;
mod parse;
mod presets;
mod validate;
mod write;

pub use validate::{MAX_DIM, MAX_EXPERTS, MAX_HIDDEN_LAYERS, MAX_MTP_LAYERS, MAX_POSITIONS, MAX_PRODUCT, MAX_VOCAB};

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key at fault, nested keys joined by dots (`rope_scaling.factor`). Empty if the text is not a JSON object.
    pub key: String,
    /// What was found and what was expected.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A last resort: what a message quotes is cut where the message is made.
        let message = crate::show::shown(&self.message, 500);
        if self.key.is_empty() { f.write_str(&message) } else { write!(f, "`{}`: {message}", self.key) }
    }
}

impl std::error::Error for ConfigError {}

/// The model families this crate computes (`model_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelType {
    /// `deepseek_v3`: dense MLA (DeepSeek-V3, R1, V3.1, Moonlight).
    DeepseekV3,
    /// `kimi_k2`: the V3 architecture under another name.
    KimiK2,
    /// `deepseek_v32`: MLA with DeepSeek Sparse Attention.
    DeepseekV32,
    /// `glm_moe_dsa`: GLM-5, DSA with optional sharing of the selection between layers.
    GlmMoeDsa,
}

impl ModelType {
    /// The value of `model_type` in `config.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeepseekV3 => "deepseek_v3",
            Self::KimiK2 => "kimi_k2",
            Self::DeepseekV32 => "deepseek_v32",
            Self::GlmMoeDsa => "glm_moe_dsa",
        }
    }

    /// The class name in `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::DeepseekV3 | Self::KimiK2 => "DeepseekV3ForCausalLM",
            Self::DeepseekV32 => "DeepseekV32ForCausalLM",
            Self::GlmMoeDsa => "GlmMoeDsaForCausalLM",
        }
    }

    /// Whether the family's attention has a lightning indexer.
    pub fn has_indexer(self) -> bool {
        matches!(self, Self::DeepseekV32 | Self::GlmMoeDsa)
    }
}

/// Where a layer's selected positions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexerType {
    /// The layer has its own indexer.
    Full,
    /// The layer reuses the selection of the last `Full` layer before it.
    Shared,
}

/// A layer's feed-forward kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlpType {
    /// One SwiGLU of width `intermediate_size`.
    Dense,
    /// Routed and shared experts.
    Sparse,
}

/// The parameters of YaRN, as in `rope_scaling`.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// Context length divided by the length of training; >= 1.
    pub factor: f64,
    /// Context length of training, in tokens.
    pub original_max_position_embeddings: usize,
    /// Rotations above which a dimension keeps its frequency; default 32.
    pub beta_fast: f64,
    /// Rotations below which a dimension is fully interpolated; default 1.
    pub beta_slow: f64,
    /// Numerator of the cos/sin factor.
    pub mscale: Option<f64>,
    /// Denominator of the cos/sin factor, and the softmax scale's correction.
    pub mscale_all_dim: Option<f64>,
    /// Whether the ramp's bounds are rounded outwards to whole dimensions; default true.
    pub truncate: bool,
    /// Overrides the factor on cos and sin.
    pub attention_factor: Option<f64>,
}

/// `0.1 * mscale * ln(factor) + 1`, or 1 for a factor of at most 1.
fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

impl Yarn {
    /// Returns the factor on cos and sin: `attention_factor` if given, else the ratio of the two mscales
    /// (1 in every DeepSeek release), else `0.1 ln(factor) + 1` when one of them is absent or zero.
    ///
    /// # Source
    /// `_compute_yarn_parameters` in transformers' `modeling_rope_utils.py`.
    pub fn cos_sin_factor(&self) -> f64 {
        if let Some(factor) = self.attention_factor {
            return factor;
        }
        match (self.mscale, self.mscale_all_dim) {
            (Some(mscale), Some(all_dim)) if mscale != 0.0 && all_dim != 0.0 => {
                yarn_mscale(self.factor, mscale) / yarn_mscale(self.factor, all_dim)
            }
            _ => yarn_mscale(self.factor, 1.0),
        }
    }

    /// Returns the factor on the softmax scale: `mscale(mscale_all_dim)^2`, or 1 if `mscale_all_dim` is absent or zero.
    pub fn softmax_factor(&self) -> f64 {
        match self.mscale_all_dim {
            Some(all_dim) if all_dim != 0.0 => yarn_mscale(self.factor, all_dim).powi(2),
            _ => 1.0,
        }
    }
}

/// Rotary embedding, normalised from `rope_theta` and `rope_scaling`, or from `rope_parameters`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base; > 1.
    pub rope_theta: f64,
    /// Context extension; `None` for plain RoPE.
    pub yarn: Option<Yarn>,
}

/// Block-FP8 storage of the linear weights, from `quantization_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationConfig {
    /// Rows and columns that share one entry of `weight_scale_inv`; `[128, 128]`.
    pub weight_block_size: [usize; 2],
    /// Whether activation scales are rounded up to powers of two (`scale_fmt` "ue8m0").
    pub ue8m0: bool,
}

/// The configuration of a model; each field has the name of its key in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family.
    pub model_type: ModelType,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of a dense layer's SwiGLU.
    pub intermediate_size: usize,
    /// Width of one expert; 0 if no layer has experts.
    pub moe_intermediate_size: usize,
    /// Decoder layers, without the MTP layers.
    pub num_hidden_layers: usize,
    /// Multi-token-prediction layers, stored as `model.layers.{num_hidden_layers + k}`.
    pub num_nextn_predict_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Experts that every token uses, stored as one expert of `n_shared_experts` times the width. 0: none.
    pub n_shared_experts: usize,
    /// Routed experts; 0 if no layer has experts.
    pub n_routed_experts: usize,
    /// Factor on the weights of the routed experts.
    pub routed_scaling_factor: f64,
    /// Width of the cached latent.
    pub kv_lora_rank: usize,
    /// Width of the query's latent; `None` for a direct `q_proj`.
    pub q_lora_rank: Option<usize>,
    /// Rotated dimensions of a head; even.
    pub qk_rope_head_dim: usize,
    /// Value dimensions of a head.
    pub v_head_dim: usize,
    /// Dimensions of a head's query and key without position.
    pub qk_nope_head_dim: usize,
    /// Groups of routed experts.
    pub n_group: usize,
    /// Groups that the experts of one token come from, at most.
    pub topk_group: usize,
    /// Routed experts for each token; 0 if no layer has experts.
    pub num_experts_per_tok: usize,
    /// Leading dense layers.
    pub first_k_dense_replace: usize,
    /// Of the layers after those, every `moe_layer_freq`-th (by layer number) has experts.
    pub moe_layer_freq: usize,
    /// Whether the chosen experts' weights are divided by their sum.
    pub norm_topk_prob: bool,
    /// Longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Standard deviation of the normal distribution that projections and embeddings of a new model are drawn from.
    pub initializer_range: f64,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// First token of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// The indexer's heads; `None` without an indexer.
    pub index_n_heads: Option<usize>,
    /// Dimensions of an indexer head; the first `qk_rope_head_dim` are rotated. `None` without an indexer.
    pub index_head_dim: Option<usize>,
    /// Positions that a query attends to, at most; `None` without an indexer.
    pub index_topk: Option<usize>,
    /// Whether the indexer rotates neighbouring pairs (GLM) or halves (DeepSeek).
    pub indexer_rope_interleave: bool,
    /// Rotary embedding.
    pub rope: Rope,
    /// One per layer; empty without an indexer. MTP layers always have their own indexer.
    pub indexer_types: Vec<IndexerType>,
    /// One per layer.
    pub mlp_layer_types: Vec<MlpType>,
    /// Present if linear weights may be stored as block FP8.
    pub quantization_config: Option<QuantizationConfig>,
}

impl Config {
    /// Returns whether attention is sparse: each query attends to `index_topk` positions chosen by an indexer.
    pub fn has_indexer(&self) -> bool {
        self.model_type.has_indexer()
    }

    /// Returns the dimensions of a head's query and key: `qk_nope_head_dim + qk_rope_head_dim`.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Returns the factor on attention scores: `qk_head_dim^-0.5` times YaRN's correction.
    pub fn softmax_scale(&self) -> f64 {
        (self.qk_head_dim() as f64).powf(-0.5) * self.rope.yarn.as_ref().map_or(1.0, Yarn::softmax_factor)
    }

    /// Returns the feed-forward kind of layer `layer`. MTP layers have the numbers from `num_hidden_layers` on; they have
    /// experts unless `n_routed_experts` is 0.
    pub fn mlp_type(&self, layer: usize) -> MlpType {
        match self.mlp_layer_types.get(layer) {
            Some(mlp_type) => *mlp_type,
            None if self.n_routed_experts == 0 => MlpType::Dense,
            None => MlpType::Sparse,
        }
    }

    /// Returns the kind of indexer of layer `layer`, or `None` if the model has none. MTP layers have the numbers from
    /// `num_hidden_layers` on.
    pub fn indexer_type(&self, layer: usize) -> Option<IndexerType> {
        if !self.has_indexer() {
            return None;
        }
        Some(self.indexer_types.get(layer).copied().unwrap_or(IndexerType::Full))
    }
}

/// Dense before `first_k_dense_replace`; after it, experts in every `moe_layer_freq`-th layer.
fn mlp_type_by_rule(layer: usize, first_k_dense_replace: usize, moe_layer_freq: usize) -> MlpType {
    if layer >= first_k_dense_replace && layer.is_multiple_of(moe_layer_freq.max(1)) {
        MlpType::Sparse
    } else {
        MlpType::Dense
    }
}
