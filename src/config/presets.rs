//! The released shapes, and a tiny one.

use super::{Config, IndexerType, MlpType, ModelType, QuantizationConfig, Rope, Yarn};

/// `dense` dense layers followed by layers with experts.
fn layers(total: usize, dense: usize) -> Vec<MlpType> {
    (0..total).map(|i| if i < dense { MlpType::Dense } else { MlpType::Sparse }).collect()
}

fn yarn(factor: f64, original_max_position_embeddings: usize) -> Yarn {
    Yarn {
        factor,
        original_max_position_embeddings,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: Some(1.0),
        mscale_all_dim: Some(1.0),
        truncate: true,
        attention_factor: None,
    }
}

impl Config {
    /// DeepSeek-V3.2 (and V3.2-Exp, V3.2-Speciale): 671B parameters, block FP8.
    pub fn v32() -> Self {
        Self {
            model_type: ModelType::DeepseekV32,
            vocab_size: 129280,
            hidden_size: 7168,
            intermediate_size: 18432,
            moe_intermediate_size: 2048,
            num_hidden_layers: 61,
            num_nextn_predict_layers: 1,
            num_attention_heads: 128,
            n_shared_experts: 1,
            n_routed_experts: 256,
            routed_scaling_factor: 2.5,
            kv_lora_rank: 512,
            q_lora_rank: Some(1536),
            qk_rope_head_dim: 64,
            v_head_dim: 128,
            qk_nope_head_dim: 128,
            n_group: 8,
            topk_group: 4,
            num_experts_per_tok: 8,
            first_k_dense_replace: 3,
            moe_layer_freq: 1,
            norm_topk_prob: true,
            max_position_embeddings: 163840,
            rms_norm_eps: 1e-6,
            initializer_range: 0.02,
            tie_word_embeddings: false,
            bos_token_id: Some(0),
            eos_token_id: vec![1],
            index_n_heads: Some(64),
            index_head_dim: Some(128),
            index_topk: Some(2048),
            indexer_rope_interleave: false,
            rope: Rope { rope_theta: 10000.0, yarn: Some(yarn(40.0, 4096)) },
            indexer_types: vec![IndexerType::Full; 61],
            mlp_layer_types: layers(61, 3),
            quantization_config: Some(QuantizationConfig { weight_block_size: [128, 128], ue8m0: true }),
        }
    }

    /// DeepSeek-V3: the same without the indexer, with arbitrary FP8 scales.
    pub fn v3() -> Self {
        Self {
            model_type: ModelType::DeepseekV3,
            index_n_heads: None,
            index_head_dim: None,
            index_topk: None,
            indexer_types: Vec::new(),
            quantization_config: Some(QuantizationConfig { weight_block_size: [128, 128], ue8m0: false }),
            ..Self::v32()
        }
    }

    /// GLM-5: 744B parameters, bf16.
    pub fn glm5() -> Self {
        Self {
            model_type: ModelType::GlmMoeDsa,
            vocab_size: 154880,
            hidden_size: 6144,
            intermediate_size: 12288,
            num_hidden_layers: 78,
            num_attention_heads: 64,
            q_lora_rank: Some(2048),
            v_head_dim: 256,
            qk_nope_head_dim: 192,
            n_group: 1,
            topk_group: 1,
            max_position_embeddings: 202752,
            rms_norm_eps: 1e-5,
            index_n_heads: Some(32),
            indexer_rope_interleave: true,
            rope: Rope { rope_theta: 1_000_000.0, yarn: None },
            indexer_types: vec![IndexerType::Full; 78],
            mlp_layer_types: layers(78, 3),
            quantization_config: None,
            ..Self::v32()
        }
    }

    /// A V3.2 of some hundred thousand parameters, for tests: 4 layers, one of them dense, and one MTP layer.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 256,
            hidden_size: 96,
            intermediate_size: 160,
            moe_intermediate_size: 24,
            num_hidden_layers: 4,
            num_attention_heads: 8,
            n_routed_experts: 16,
            kv_lora_rank: 32,
            q_lora_rank: Some(48),
            qk_rope_head_dim: 16,
            v_head_dim: 20,
            qk_nope_head_dim: 24,
            n_group: 4,
            topk_group: 2,
            num_experts_per_tok: 4,
            first_k_dense_replace: 1,
            max_position_embeddings: 128,
            index_n_heads: Some(12),
            index_head_dim: Some(32),
            index_topk: Some(16),
            rope: Rope { rope_theta: 10000.0, yarn: Some(yarn(4.0, 32)) },
            indexer_types: vec![IndexerType::Full; 4],
            mlp_layer_types: layers(4, 1),
            quantization_config: None,
            ..Self::v32()
        }
    }
}
