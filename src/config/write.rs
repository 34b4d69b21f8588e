//! [`Config`] back to the keys of `config.json`, and serde's traits.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value, json};

use super::{Config, IndexerType, MlpType, ModelType, Rope, mlp_type_by_rule};

impl Config {
    /// The text of a `config.json` that [`Config::from_json`] reads back to an equal value.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.to_value())
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "architectures": [self.model_type.architecture()],
            "model_type": self.model_type.as_str(),
            "attention_bias": false,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": match self.eos_token_id.as_slice() {
                [id] => json!(id),
                ids => json!(ids),
            },
            "first_k_dense_replace": self.first_k_dense_replace,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "kv_lora_rank": self.kv_lora_rank,
            "max_position_embeddings": self.max_position_embeddings,
            "moe_intermediate_size": self.moe_intermediate_size,
            "moe_layer_freq": self.moe_layer_freq,
            "n_group": self.n_group,
            "n_routed_experts": self.n_routed_experts,
            "n_shared_experts": self.n_shared_experts,
            "norm_topk_prob": self.norm_topk_prob,
            "num_attention_heads": self.num_attention_heads,
            "num_experts_per_tok": self.num_experts_per_tok,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_attention_heads,
            "num_nextn_predict_layers": self.num_nextn_predict_layers,
            "q_lora_rank": self.q_lora_rank,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "routed_scaling_factor": self.routed_scaling_factor,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": self.tie_word_embeddings,
            "topk_group": self.topk_group,
            "topk_method": "noaux_tc",
            "v_head_dim": self.v_head_dim,
            "vocab_size": self.vocab_size,
        });
        if let Value::Object(map) = &mut value {
            write_rope(map, self.model_type, &self.rope);
            self.write_indexer(map);
            self.write_mlp_layer_types(map);
            if let Some(quantization) = &self.quantization_config {
                let mut object = json!({
                    "quant_method": "fp8",
                    "fmt": "e4m3",
                    "activation_scheme": "dynamic",
                    "weight_block_size": quantization.weight_block_size,
                });
                if quantization.ue8m0 {
                    object["scale_fmt"] = json!("ue8m0");
                }
                map.insert("quantization_config".to_string(), object);
            }
        }
        value
    }

    fn write_indexer(&self, map: &mut Map<String, Value>) {
        if !self.has_indexer() {
            return;
        }
        map.insert("index_n_heads".to_string(), json!(self.index_n_heads));
        map.insert("index_head_dim".to_string(), json!(self.index_head_dim));
        map.insert("index_topk".to_string(), json!(self.index_topk));
        // DeepSeek's files have neither key.
        if self.model_type == ModelType::GlmMoeDsa || self.indexer_rope_interleave {
            map.insert("indexer_rope_interleave".to_string(), json!(self.indexer_rope_interleave));
        }
        if self.indexer_types.contains(&IndexerType::Shared) {
            let name = |kind: &IndexerType| match kind {
                IndexerType::Full => "full",
                IndexerType::Shared => "shared",
            };
            map.insert("indexer_types".to_string(), self.indexer_types.iter().map(name).collect());
        }
    }

    /// Written only where the two numbers do not say it.
    fn write_mlp_layer_types(&self, map: &mut Map<String, Value>) {
        let by_rule = |layer| mlp_type_by_rule(layer, self.first_k_dense_replace, self.moe_layer_freq);
        if self.mlp_layer_types.iter().enumerate().all(|(layer, kind)| *kind == by_rule(layer)) {
            return;
        }
        let name = |kind: &MlpType| match kind {
            MlpType::Dense => "dense",
            MlpType::Sparse => "sparse",
        };
        map.insert("mlp_layer_types".to_string(), self.mlp_layer_types.iter().map(name).collect());
        // The reader takes the count of leading dense layers from the list, and would find the number contradictory.
        map.remove("first_k_dense_replace");
    }
}

/// `rope_theta` and `rope_scaling` for the DeepSeek families, `rope_parameters` for GLM, as their own files do.
fn write_rope(map: &mut Map<String, Value>, model_type: ModelType, rope: &Rope) {
    let mut scaling = Map::new();
    if let Some(yarn) = &rope.yarn {
        scaling.insert("type".to_string(), json!("yarn"));
        scaling.insert("factor".to_string(), json!(yarn.factor));
        let original = json!(yarn.original_max_position_embeddings);
        scaling.insert("original_max_position_embeddings".to_string(), original);
        scaling.insert("beta_fast".to_string(), json!(yarn.beta_fast));
        scaling.insert("beta_slow".to_string(), json!(yarn.beta_slow));
        for (key, value) in [
            ("mscale", yarn.mscale),
            ("mscale_all_dim", yarn.mscale_all_dim),
            ("attention_factor", yarn.attention_factor),
        ] {
            if let Some(value) = value {
                scaling.insert(key.to_string(), json!(value));
            }
        }
        if !yarn.truncate {
            scaling.insert("truncate".to_string(), json!(false));
        }
    }
    if model_type == ModelType::GlmMoeDsa {
        let kind = scaling.remove("type").unwrap_or_else(|| json!("default"));
        scaling.insert("rope_type".to_string(), kind);
        scaling.insert("rope_theta".to_string(), json!(rope.rope_theta));
        map.insert("rope_parameters".to_string(), Value::Object(scaling));
    } else {
        map.insert("rope_theta".to_string(), json!(rope.rope_theta));
        let scaling = if scaling.is_empty() { Value::Null } else { Value::Object(scaling) };
        map.insert("rope_scaling".to_string(), scaling);
    }
}

/// As the keys of `config.json`.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.validate().map_err(ser::Error::custom)?;
        self.to_value().serialize(serializer)
    }
}

/// From the keys of `config.json`, validated.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
