//! Small checkpoints written byte by byte, good ones and bad ones.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deepseek_v32::Config;
use deepseek_v32::config::{IndexerType, MlpType, QuantizationConfig};
use serde_json::{Value, json};

/// A tensor as it will stand in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct RawTensor {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Bytes of an element of `dtype`.
pub fn width(dtype: &str) -> usize {
    match dtype {
        "F64" | "I64" => 8,
        "F32" | "I32" => 4,
        "BF16" | "F16" => 2,
        _ => 1,
    }
}

impl RawTensor {
    /// Small values that differ from element to element, finite in every dtype.
    pub fn new(dtype: &str, shape: &[usize], seed: u64) -> Self {
        let count: usize = shape.iter().product();
        let bytes = (0..count as u64).flat_map(|i| {
            let mixed =
                (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
            let value = ((mixed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.25;
            match dtype {
                "F64" => f64::from(value).to_le_bytes().to_vec(),
                "F32" => value.to_le_bytes().to_vec(),
                "BF16" => half::bf16::from_f32(value).to_le_bytes().to_vec(),
                "F16" => half::f16::from_f32(value).to_le_bytes().to_vec(),
                // Any code but the two NaNs.
                "F8_E4M3" => vec![(mixed >> 56) as u8 & 0xbf],
                _ => vec![0; width(dtype)],
            }
        });
        Self { dtype: dtype.to_string(), shape: shape.to_vec(), bytes: bytes.collect() }
    }

    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: "F32".to_string(), shape: shape.to_vec(), bytes }
    }
}

/// A checkpoint in memory.
#[derive(Debug, Clone)]
pub struct Files {
    pub config: Value,
    pub tensors: BTreeMap<String, RawTensor>,
}

/// Two layers (one dense), V3.2, with one MTP layer; every linear weight has a ragged block if it becomes FP8.
pub fn tiny_config() -> Config {
    Config {
        vocab_size: 40,
        hidden_size: 136,
        intermediate_size: 130,
        moe_intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        n_routed_experts: 4,
        kv_lora_rank: 16,
        q_lora_rank: Some(20),
        qk_rope_head_dim: 4,
        v_head_dim: 6,
        qk_nope_head_dim: 8,
        n_group: 2,
        topk_group: 1,
        num_experts_per_tok: 2,
        index_n_heads: Some(2),
        index_head_dim: Some(8),
        index_topk: Some(4),
        indexer_types: vec![IndexerType::Full; 2],
        mlp_layer_types: vec![MlpType::Dense, MlpType::Sparse],
        ..Config::tiny()
    }
}

/// The same in the dense family, without MTP.
pub fn tiny_v3_config() -> Config {
    Config {
        num_nextn_predict_layers: 0,
        index_n_heads: None,
        index_head_dim: None,
        index_topk: None,
        indexer_types: Vec::new(),
        quantization_config: None,
        model_type: deepseek_v32::config::ModelType::DeepseekV3,
        ..tiny_config()
    }
}

impl Files {
    /// What `config` asks for, listed here a second time and independently of the crate: linear weights in `linear`,
    /// everything else in `other`.
    pub fn new(config: &Config, linear: &str, other: &str) -> Self {
        let mut files = Self { config: serde_json::from_str(&config.to_json()).unwrap(), tensors: BTreeMap::new() };
        let (h, v) = (config.hidden_size, config.vocab_size);
        files.add("model.embed_tokens.weight", other, &[v, h]);
        files.add("model.norm.weight", other, &[h]);
        if !config.tie_word_embeddings {
            files.add("lm_head.weight", other, &[v, h]);
        }
        for layer in 0..config.num_hidden_layers + config.num_nextn_predict_layers {
            files.add_layer(config, layer, linear, other);
        }
        for layer in config.num_hidden_layers..config.num_hidden_layers + config.num_nextn_predict_layers {
            let prefix = format!("model.layers.{layer}.");
            files.add(&format!("{prefix}eh_proj.weight"), other, &[h, 2 * h]);
            for norm in ["enorm", "hnorm", "shared_head.norm"] {
                files.add(&format!("{prefix}{norm}.weight"), other, &[h]);
            }
            let copies =
                [("embed_tokens.weight", "model.embed_tokens.weight"), ("shared_head.head.weight", "lm_head.weight")];
            for (copy, original) in copies {
                if let Some(tensor) = files.tensors.get(original).cloned() {
                    files.tensors.insert(format!("{prefix}{copy}"), tensor);
                }
            }
        }
        files
    }

    fn add_layer(&mut self, c: &Config, layer: usize, linear: &str, other: &str) {
        let (h, heads, rope) = (c.hidden_size, c.num_attention_heads, c.qk_rope_head_dim);
        let prefix = format!("model.layers.{layer}.");
        let mut matrices = vec![
            ("self_attn.kv_a_proj_with_mqa".to_string(), [c.kv_lora_rank + rope, h]),
            ("self_attn.kv_b_proj".to_string(), [heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank]),
            ("self_attn.o_proj".to_string(), [h, heads * c.v_head_dim]),
        ];
        let mut vectors = vec![
            ("input_layernorm.weight", h),
            ("post_attention_layernorm.weight", h),
            ("self_attn.kv_a_layernorm.weight", c.kv_lora_rank),
        ];
        let query = heads * (c.qk_nope_head_dim + rope);
        if let Some(q) = c.q_lora_rank {
            matrices.push(("self_attn.q_a_proj".to_string(), [q, h]));
            matrices.push(("self_attn.q_b_proj".to_string(), [query, q]));
            vectors.push(("self_attn.q_a_layernorm.weight", q));
        } else {
            matrices.push(("self_attn.q_proj".to_string(), [query, h]));
        }
        if let (Some(ih), Some(id), Some(q), Some(IndexerType::Full)) =
            (c.index_n_heads, c.index_head_dim, c.q_lora_rank, c.indexer_type(layer))
        {
            matrices.push(("self_attn.indexer.wq_b".to_string(), [ih * id, q]));
            matrices.push(("self_attn.indexer.wk".to_string(), [id, h]));
            vectors.push(("self_attn.indexer.k_norm.weight", id));
            vectors.push(("self_attn.indexer.k_norm.bias", id));
            self.add(&format!("{prefix}self_attn.indexer.weights_proj.weight"), other, &[ih, h]);
        }
        let mut mlps = Vec::new();
        if layer < c.first_k_dense_replace {
            mlps.push(("mlp.".to_string(), c.intermediate_size));
        } else {
            mlps.extend((0..c.n_routed_experts).map(|e| (format!("mlp.experts.{e}."), c.moe_intermediate_size)));
            if c.n_shared_experts > 0 {
                mlps.push(("mlp.shared_experts.".to_string(), c.n_shared_experts * c.moe_intermediate_size));
            }
            self.add(&format!("{prefix}mlp.gate.weight"), other, &[c.n_routed_experts, h]);
            self.add(&format!("{prefix}mlp.gate.e_score_correction_bias"), "F32", &[c.n_routed_experts]);
        }
        for (mlp, width) in mlps {
            matrices.push((format!("{mlp}gate_proj"), [width, h]));
            matrices.push((format!("{mlp}up_proj"), [width, h]));
            matrices.push((format!("{mlp}down_proj"), [h, width]));
        }
        for (name, shape) in matrices {
            let name = format!("{prefix}{name}.weight");
            self.add(&name, linear, &shape);
            if linear == "F8_E4M3" {
                let blocks = [shape[0].div_ceil(128), shape[1].div_ceil(128)];
                // Neither powers of two nor equal.
                let values: Vec<f32> = (0..blocks[0] * blocks[1]).map(|i| 0.01 + 0.003 * i as f32).collect();
                self.tensors.insert(format!("{name}_scale_inv"), RawTensor::from_f32(&blocks, &values));
            }
        }
        for (name, len) in vectors {
            self.add(&format!("{prefix}{name}"), other, &[len]);
        }
    }

    pub fn add(&mut self, name: &str, dtype: &str, shape: &[usize]) {
        let seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.tensors.insert(name.to_string(), RawTensor::new(dtype, shape, seed));
    }

    pub fn get(&mut self, name: &str) -> &mut RawTensor {
        self.tensors.get_mut(name).unwrap_or_else(|| panic!("{name} is not in the test's checkpoint"))
    }

    /// One `model.safetensors`.
    pub fn write_single(&self, dir: &Path) {
        self.write_config(dir);
        fs::write(dir.join("model.safetensors"), safetensors_file(self.tensors.iter())).unwrap();
    }

    /// `count` shards, tensors dealt out in turn, so that weights and their scales part.
    pub fn write_sharded(&self, dir: &Path, count: usize) {
        self.write_config(dir);
        let mut weight_map = serde_json::Map::new();
        for shard in 0..count {
            let file = shard_name(shard, count);
            let tensors: Vec<_> = self.tensors.iter().skip(shard).step_by(count).collect();
            weight_map.extend(tensors.iter().map(|(name, _)| (name.to_string(), json!(file))));
            fs::write(dir.join(file), safetensors_file(tensors.into_iter())).unwrap();
        }
        write_index(dir, weight_map);
    }

    pub fn write_config(&self, dir: &Path) {
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
    }
}

pub fn shard_name(shard: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", shard + 1)
}

pub fn write_index(dir: &Path, weight_map: serde_json::Map<String, Value>) {
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A whole file: header and data, in the order given.
pub fn safetensors_file<'a>(tensors: impl Iterator<Item = (&'a String, &'a RawTensor)>) -> Vec<u8> {
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend(&tensor.bytes);
        header[name] = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
    }
    with_header(&header.to_string(), &data)
}

/// Length, `header`, `data`.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// The header's JSON and the data of a file.
pub fn split_file(file: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&file[8..8 + length]).unwrap(), file[8 + length..].to_vec())
}

/// V3.2 with FP8 linear weights, bf16 elsewhere.
pub fn fp8_files() -> Files {
    let quantization = QuantizationConfig { weight_block_size: [128, 128], ue8m0: false };
    Files::new(&Config { quantization_config: Some(quantization), ..tiny_config() }, "F8_E4M3", "BF16")
}

/// V3.2 with bf16 linear weights, f32 elsewhere.
pub fn bf16_files() -> Files {
    Files::new(&tiny_config(), "BF16", "F32")
}

// Tensors of these two that tests spoil.
pub const NORM: &str = "model.norm.weight";
pub const UP: &str = "model.layers.0.mlp.up_proj.weight";
pub const EXPERT: &str = "model.layers.1.mlp.experts.3.down_proj.weight";

/// Rewrites a safetensors file with what `change` makes of its header and data.
pub fn spoil_file(path: &Path, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let (mut header, mut data) = split_file(&fs::read(path).unwrap());
    change(&mut header, &mut data);
    fs::write(path, with_header(&header.to_string(), &data)).unwrap();
}

/// Rewrites a sharded checkpoint's index with what `change` makes of its `weight_map`.
pub fn spoil_index(dir: &Path, change: impl FnOnce(&Path, &mut serde_json::Map<String, Value>)) {
    let text = fs::read_to_string(dir.join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let mut weight_map = index["weight_map"].as_object().unwrap().clone();
    change(dir, &mut weight_map);
    write_index(dir, weight_map);
}

/// A byte-level tokenizer of the letters and the space, which fits into the vocabulary of [`tiny_config`].
pub fn write_tokenizer(dir: &Path) {
    let mut vocab: serde_json::Map<String, Value> =
        ('a'..='z').chain(['\u{120}']).zip(2..).map(|(letter, id)| (letter.to_string(), json!(id))).collect();
    vocab.insert("<s>".to_string(), json!(0));
    vocab.insert("</s>".to_string(), json!(1));
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(case)
}

pub fn tiny_v32() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}
