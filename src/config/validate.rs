//! Checks of a [`Config`].

use super::{Config, ConfigError, IndexerType, MlpType, ModelType, Yarn};
use crate::show::number;

/// Most decoder layers.
pub const MAX_HIDDEN_LAYERS: usize = 1024;
/// Most multi-token-prediction layers.
pub const MAX_MTP_LAYERS: usize = 16;
/// Most routed experts, and most shared ones.
pub const MAX_EXPERTS: usize = 1 << 14;
/// Largest width, rank, head count or head dimension.
pub const MAX_DIM: usize = 1 << 20;
/// Most tokens in the vocabulary.
pub const MAX_VOCAB: usize = 1 << 24;
/// Longest context, in tokens.
pub const MAX_POSITIONS: usize = 1 << 24;
/// Largest product of heads and head dimensions, or of shared experts and their width.
pub const MAX_PRODUCT: usize = 1 << 26;

/// Largest factor of any kind. Larger ones are mistakes and could overflow.
const MAX_FACTOR: f64 = 1e6;
/// Largest `rope_theta`.
const MAX_THETA: f64 = 1e15;

/// The block shape of the FP8 kernels.
const BLOCK: usize = 128;

type Result<T> = std::result::Result<T, ConfigError>;

fn fail<T>(key: &str, message: impl Into<String>) -> Result<T> {
    Err(ConfigError::new(key, message))
}

fn between(key: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    fail(key, format!("must be between {low} and {high}, found {value}"))
}

/// Positive in f32 too, and at most `high`.
fn positive(key: &str, value: f64, high: f64) -> Result<()> {
    if value >= f64::from(f32::MIN_POSITIVE) && value <= high {
        return Ok(());
    }
    fail(key, format!("must be positive and at most {high:e}, found {}", number(value)))
}

/// `a * b <= MAX_PRODUCT`.
fn product(key: &str, a: usize, other: &str, b: usize) -> Result<()> {
    match a.checked_mul(b) {
        Some(product) if product <= MAX_PRODUCT => Ok(()),
        _ => fail(key, format!("{a} times {other} ({b}) is more than {MAX_PRODUCT}")),
    }
}

impl Config {
    /// Checks every value and every relation between values; [`Config::from_json`] has called it.
    ///
    /// # Errors
    /// A [`ConfigError`] naming the key at fault.
    pub fn validate(&self) -> Result<()> {
        self.validate_sizes()?;
        self.validate_layers()?;
        self.validate_experts()?;
        self.validate_indexer()?;
        self.validate_numbers()?;
        self.validate_tokens()?;
        if let Some(quantization) = &self.quantization_config {
            let [rows, columns] = quantization.weight_block_size;
            if [rows, columns] != [BLOCK, BLOCK] {
                let message = format!("[{rows}, {columns}] is not supported, only [{BLOCK}, {BLOCK}] is");
                return fail("quantization_config.weight_block_size", message);
            }
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<()> {
        between("vocab_size", self.vocab_size, 1, MAX_VOCAB)?;
        for (key, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("kv_lora_rank", self.kv_lora_rank),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ] {
            between(key, value, 1, MAX_DIM)?;
        }
        if !self.qk_rope_head_dim.is_multiple_of(2) {
            return fail("qk_rope_head_dim", format!("must be even, found {}", self.qk_rope_head_dim));
        }
        let heads = self.num_attention_heads;
        product("num_attention_heads", heads, "qk_nope_head_dim + qk_rope_head_dim", self.qk_head_dim())?;
        product(
            "num_attention_heads",
            heads,
            "qk_nope_head_dim + v_head_dim",
            self.qk_nope_head_dim + self.v_head_dim,
        )?;
        between("max_position_embeddings", self.max_position_embeddings, 1, MAX_POSITIONS)
    }

    fn validate_layers(&self) -> Result<()> {
        let layers = self.num_hidden_layers;
        between("num_hidden_layers", layers, 1, MAX_HIDDEN_LAYERS)?;
        between("num_nextn_predict_layers", self.num_nextn_predict_layers, 0, MAX_MTP_LAYERS)?;
        between("moe_layer_freq", self.moe_layer_freq, 1, MAX_HIDDEN_LAYERS)?;
        if self.first_k_dense_replace > layers {
            let message = format!("{} dense layers of num_hidden_layers {layers}", self.first_k_dense_replace);
            return fail("first_k_dense_replace", message);
        }
        if self.mlp_layer_types.len() != layers {
            let message = format!("expected one entry per layer ({layers}), found {}", self.mlp_layer_types.len());
            return fail("mlp_layer_types", message);
        }
        Ok(())
    }

    fn validate_experts(&self) -> Result<()> {
        between("n_routed_experts", self.n_routed_experts, 0, MAX_EXPERTS)?;
        between("n_shared_experts", self.n_shared_experts, 0, MAX_EXPERTS)?;
        if self.n_routed_experts == 0 {
            return match self.mlp_layer_types.contains(&MlpType::Sparse) {
                true => fail("n_routed_experts", "must be positive, found 0"),
                false => Ok(()),
            };
        }
        between("moe_intermediate_size", self.moe_intermediate_size, 1, MAX_DIM)?;
        product("n_shared_experts", self.n_shared_experts, "moe_intermediate_size", self.moe_intermediate_size)?;
        between("n_group", self.n_group, 1, self.n_routed_experts)?;
        if !self.n_routed_experts.is_multiple_of(self.n_group) {
            let message = format!("{} does not divide n_routed_experts {}", self.n_group, self.n_routed_experts);
            return fail("n_group", message);
        }
        between("topk_group", self.topk_group, 1, self.n_group)?;
        let available = self.n_routed_experts / self.n_group * self.topk_group;
        if !(1..=available).contains(&self.num_experts_per_tok) {
            let message = format!(
                "must be between 1 and the {available} experts in {} of {} groups, found {}",
                self.topk_group, self.n_group, self.num_experts_per_tok
            );
            return fail("num_experts_per_tok", message);
        }
        positive("routed_scaling_factor", self.routed_scaling_factor, MAX_FACTOR)
    }

    fn validate_indexer(&self) -> Result<()> {
        let family = self.model_type.as_str();
        let keys = [
            ("index_n_heads", self.index_n_heads),
            ("index_head_dim", self.index_head_dim),
            ("index_topk", self.index_topk),
        ];
        if !self.has_indexer() {
            if let Some((key, _)) = keys.iter().find(|(_, value)| value.is_some()) {
                return fail(key, format!("a {family} model has no indexer"));
            }
            if !self.indexer_types.is_empty() {
                return fail("indexer_types", format!("a {family} model has no indexer"));
            }
            return Ok(());
        }
        if self.q_lora_rank.is_none() {
            return fail("q_lora_rank", format!("missing, but the indexer of a {family} model needs it"));
        }
        for (key, value) in keys {
            match value {
                None => return fail(key, format!("missing, but a {family} model has an indexer")),
                Some(value) => between(key, value, 1, MAX_DIM.max(MAX_POSITIONS))?,
            }
        }
        let (heads, dim) = (self.index_n_heads.unwrap_or(0), self.index_head_dim.unwrap_or(0));
        between("index_n_heads", heads, 1, MAX_DIM)?;
        between("index_head_dim", dim, 1, MAX_DIM)?;
        product("index_n_heads", heads, "index_head_dim", dim)?;
        if self.qk_rope_head_dim > dim {
            let message = format!("{dim} is less than qk_rope_head_dim {}", self.qk_rope_head_dim);
            return fail("index_head_dim", message);
        }
        let (found, layers) = (self.indexer_types.len(), self.num_hidden_layers);
        if found != layers {
            return fail("indexer_types", format!("expected one entry per layer ({layers}), found {found}"));
        }
        if self.indexer_types.first() != Some(&IndexerType::Full) {
            return fail("indexer_types", "the first layer is \"shared\", but no layer before it has an indexer");
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<()> {
        positive("rms_norm_eps", self.rms_norm_eps, 1.0)?;
        let range = self.initializer_range;
        if !(0.0..=MAX_FACTOR).contains(&range) {
            let message = format!("must be between 0 and {MAX_FACTOR:e}, found {}", number(range));
            return fail("initializer_range", message);
        }
        let theta = self.rope.rope_theta;
        if !(theta > 1.0 && theta <= MAX_THETA) {
            return fail(
                "rope_theta",
                format!("must be more than 1 and at most {MAX_THETA:e}, found {}", number(theta)),
            );
        }
        // The spelling the family's own files use.
        let object = if self.model_type == ModelType::GlmMoeDsa { "rope_parameters" } else { "rope_scaling" };
        self.rope.yarn.as_ref().map_or(Ok(()), |yarn| yarn.validate(object))
    }

    fn validate_tokens(&self) -> Result<()> {
        let in_vocabulary = |key: &str, id: u32| match usize::try_from(id) {
            Ok(id) if id < self.vocab_size => Ok(()),
            _ => fail(key, format!("{id} is not below vocab_size {}", self.vocab_size)),
        };
        self.bos_token_id.map_or(Ok(()), |id| in_vocabulary("bos_token_id", id))?;
        self.eos_token_id.iter().try_for_each(|id| in_vocabulary("eos_token_id", *id))
    }
}

impl Yarn {
    /// `object`: the key that holds the numbers, for messages.
    pub(super) fn validate(&self, object: &str) -> Result<()> {
        let key = |name: &str| format!("{object}.{name}");
        if !(1.0..=MAX_FACTOR).contains(&self.factor) {
            let message = format!("must be between 1 and {MAX_FACTOR:e}, found {}", number(self.factor));
            return fail(&key("factor"), message);
        }
        let original = self.original_max_position_embeddings;
        between(&key("original_max_position_embeddings"), original, 1, MAX_POSITIONS)?;
        positive(&key("beta_fast"), self.beta_fast, MAX_FACTOR)?;
        positive(&key("beta_slow"), self.beta_slow, MAX_FACTOR)?;
        if self.beta_fast < self.beta_slow {
            return fail(&key("beta_fast"), format!("{} is less than beta_slow {}", self.beta_fast, self.beta_slow));
        }
        for (name, value) in [("mscale", self.mscale), ("mscale_all_dim", self.mscale_all_dim)] {
            if let Some(value) = value.filter(|value| !(0.0..=MAX_FACTOR).contains(value)) {
                return fail(&key(name), format!("must be between 0 and {MAX_FACTOR:e}, found {}", number(value)));
            }
        }
        self.attention_factor.map_or(Ok(()), |factor| positive(&key("attention_factor"), factor, MAX_FACTOR))
    }
}
