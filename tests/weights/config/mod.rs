//! `config.json`: every family's keys and spellings are read, every contradiction is refused with its key.

mod refused;

use deepseek_v32::config::{Config, IndexerType, MlpType, ModelType};
use proptest::prelude::*;
use serde_json::{Value, json};

const V3: &str = include_str!("../../data/config/deepseek_v3.json");
const V32: &str = include_str!("../../data/config/deepseek_v32.json");
const GLM5: &str = include_str!("../../data/config/glm5.json");
const MOONLIGHT: &str = include_str!("../../data/config/moonlight.json");
const KIMI_K2: &str = include_str!("../../data/config/kimi_k2.json");

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `base` with the top-level keys of `changes` replaced; a key set to the string "absent" is removed.
fn with(base: &str, changes: Value) -> String {
    let mut config = value(base);
    let map = config.as_object_mut().unwrap();
    for (key, change) in changes.as_object().unwrap() {
        match change {
            Value::String(text) if text == "absent" => drop(map.remove(key)),
            change => drop(map.insert(key.clone(), change.clone())),
        }
    }
    config.to_string()
}

fn read(text: &str) -> Config {
    Config::from_json(text).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str, key: &str) {
    let error = Config::from_json(text).expect_err(key);
    assert_eq!(error.key, key, "{error}");
    let line = error.to_string();
    assert!(line.contains(key) && !line.contains('\n') && !line.ends_with('.'), "{line}");
}

#[test]
fn released_configs_are_the_presets() {
    assert_eq!(read(V3), Config::v3());
    assert_eq!(read(V32), Config::v32());
    let glm5 = Config { bos_token_id: None, eos_token_id: vec![154820, 154827, 154829], ..Config::glm5() };
    assert_eq!(read(GLM5), glm5);
    Config::tiny().validate().unwrap();
}

#[test]
fn moonlight_and_kimi_k2_are_v3() {
    let moonlight = read(MOONLIGHT);
    assert_eq!((moonlight.model_type, moonlight.q_lora_rank, moonlight.n_group), (ModelType::DeepseekV3, None, 1));
    assert_eq!(moonlight.rope.yarn, None);
    let kimi = read(KIMI_K2);
    assert!(!kimi.has_indexer());
    assert_eq!(
        (kimi.model_type, kimi.mlp_type(0), kimi.mlp_type(1)),
        (ModelType::KimiK2, MlpType::Dense, MlpType::Sparse)
    );
}

#[test]
fn transformers_5_rewrites_mean_the_same() {
    for (ours, theirs) in [
        (
            include_str!("../../data/golden/v32_f32/config.json"),
            include_str!("../../data/config/transformers5_v32_f32.json"),
        ),
        (
            include_str!("../../data/golden/v32_fp8/config.json"),
            include_str!("../../data/config/transformers5_v32_fp8.json"),
        ),
        (
            include_str!("../../data/golden/v3_f32/config.json"),
            include_str!("../../data/config/transformers5_v3_f32.json"),
        ),
        (
            include_str!("../../data/golden/glm_dsa_f32/config.json"),
            include_str!("../../data/config/transformers5_glm_dsa_f32.json"),
        ),
    ] {
        assert_eq!(read(ours), read(theirs));
    }
}

#[test]
fn every_config_survives_writing() {
    let shared = Config {
        indexer_types: vec![IndexerType::Full, IndexerType::Shared, IndexerType::Full, IndexerType::Shared],
        ..Config::tiny()
    };
    let every_other = read(&with(V32, json!({"moe_layer_freq": 2})));
    let listed = with(
        V32,
        json!({"num_hidden_layers": 3, "mlp_layer_types": ["dense", "sparse", "dense"],
        "first_k_dense_replace": "absent"}),
    );
    for config in [
        Config::v3(),
        Config::v32(),
        Config::glm5(),
        Config::tiny(),
        read(MOONLIGHT),
        read(KIMI_K2),
        read(GLM5),
        shared,
        every_other,
        read(&listed),
    ] {
        assert_eq!(read(&config.to_json()), config);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
}

#[test]
fn softmax_scale_has_yarns_correction() {
    // 192^-0.5 * (0.1 ln 40 + 1)^2
    assert!((Config::v32().softmax_scale() - 0.13523377886).abs() < 1e-10);
    assert!((Config::glm5().softmax_scale() - 256f64.powf(-0.5)).abs() < 1e-15);
    let yarn = |scaling: Value| read(&with(V32, json!({"rope_scaling": scaling}))).rope.yarn.unwrap();
    let plain = json!({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096});
    let mscale = 0.1 * 40f64.ln() + 1.0;
    assert_eq!((yarn(plain.clone()).softmax_factor(), yarn(plain).cos_sin_factor()), (1.0, mscale));
    let equal = yarn(json!({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096.0,
        "mscale": 0.707, "mscale_all_dim": 0.707}));
    assert_eq!(equal.cos_sin_factor(), 1.0);
    assert!((equal.softmax_factor() - (0.0707 * 40f64.ln() + 1.0).powi(2)).abs() < 1e-12);
    let given = yarn(json!({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
        "attention_factor": 1.25, "truncate": false}));
    assert_eq!((given.cos_sin_factor(), given.truncate), (1.25, false));
}

#[test]
fn rope_is_read_in_every_spelling() {
    let yarn = value(V32)["rope_scaling"].clone();
    let mut parameters = yarn.clone();
    parameters["rope_theta"] = json!(10000.0);
    parameters["rope_type"] = json!("yarn");
    let expected = read(V32);
    for changes in [
        json!({"rope_scaling": "absent", "rope_theta": "absent", "rope_parameters": parameters}),
        json!({"rope_scaling": null, "rope_theta": "absent", "rope_parameters": parameters}),
        json!({"rope_parameters": parameters}),
        json!({"rope_scaling": parameters, "rope_theta": "absent"}),
    ] {
        assert_eq!(read(&with(V32, changes)), expected);
    }
    for changes in [
        json!({"rope_scaling": null}),
        json!({"rope_scaling": "absent"}),
        json!({"rope_scaling": {"type": "default"}}),
        json!({"rope_scaling": {"rope_type": "default", "rope_theta": 10000}}),
        json!({"rope_scaling": "absent", "rope_theta": "absent"}),
    ] {
        let rope = read(&with(V32, changes)).rope;
        assert_eq!((rope.rope_theta, rope.yarn), (10000.0, None));
    }
}

#[test]
fn optional_keys_have_their_familys_defaults() {
    let config = read(&with(
        V3,
        json!({"n_group": null, "topk_group": null, "num_key_value_heads": null,
        "topk_method": "absent", "scoring_func": "absent", "hidden_act": "absent", "attention_bias": "absent",
        "num_nextn_predict_layers": "absent", "tie_word_embeddings": "absent", "rms_norm_eps": "absent",
        "bos_token_id": null, "eos_token_id": null, "quantization_config": null, "some_new_key": {"a": [1, 2]}}),
    ));
    assert_eq!((config.n_group, config.topk_group, config.num_nextn_predict_layers), (1, 1, 0));
    assert_eq!((config.bos_token_id, config.eos_token_id.len(), config.rms_norm_eps), (None, 0, 1e-6));
    assert_eq!(read(&with(GLM5, json!({"rms_norm_eps": "absent"}))).rms_norm_eps, 1e-5);
    assert!(read(&with(GLM5, json!({"indexer_rope_interleave": "absent"}))).indexer_rope_interleave);
    assert!(!read(&with(GLM5, json!({"indexer_rope_interleave": false}))).indexer_rope_interleave);
    assert_eq!(
        read(&with(V3, json!({"num_nextn_predict_layers": "absent", "num_mtp_layers": 2}))).num_nextn_predict_layers,
        2
    );
    assert_eq!(read(&with(V3, json!({"n_shared_experts": null}))).n_shared_experts, 0);
    assert_eq!(read(&with(V3, json!({"model_type": "absent"}))).model_type, ModelType::DeepseekV3);
    for architectures in [json!(null), json!([]), json!(["SomeVariantForCausalLM"])] {
        assert_eq!(read(&with(V3, json!({"architectures": architectures}))).model_type, ModelType::DeepseekV3);
    }
    for pad in [json!(null), json!(-1), json!(129279)] {
        read(&with(V3, json!({"pad_token_id": pad})));
    }
    // head_dim is misleading in some releases, and ignored.
    read(&with(GLM5, json!({"head_dim": 192, "dtype": "bfloat16"})));
    // As transformers saves small models: its default of three dense layers stands beside whatever there is.
    let small = read(&with(V3, json!({"num_hidden_layers": 2, "first_k_dense_replace": 3})));
    assert_eq!((small.mlp_layer_types, small.first_k_dense_replace), (vec![MlpType::Dense; 2], 2));
    let list = json!({"num_hidden_layers": 2, "first_k_dense_replace": 3, "mlp_layer_types": ["dense", "sparse"]});
    let listed = read(&with(V3, list));
    assert_eq!((listed.mlp_layer_types, listed.first_k_dense_replace), (vec![MlpType::Dense, MlpType::Sparse], 1));
    // No layer has experts, so none of their numbers is needed.
    let dense = read(&with(
        V3,
        json!({"num_hidden_layers": 2, "first_k_dense_replace": 2, "n_routed_experts": null,
        "num_experts_per_tok": "absent", "moe_intermediate_size": "absent", "n_shared_experts": "absent",
        "routed_scaling_factor": "absent"}),
    ));
    assert_eq!((dense.mlp_layer_types.as_slice(), dense.mlp_type(2)), ([MlpType::Dense; 2].as_slice(), MlpType::Dense));
}

#[test]
fn indexer_types_come_from_list_pattern_or_frequency() {
    use IndexerType::{Full, Shared};
    let types = |changes: Value| {
        let mut small = json!({"num_hidden_layers": 6});
        small.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        read(&with(GLM5, small)).indexer_types
    };
    let expected = vec![Full, Full, Shared, Full, Shared, Full];
    assert_eq!(types(json!({"indexer_types": ["full", "full", "shared", "full", "shared", "full"]})), expected);
    assert_eq!(types(json!({"index_topk_pattern": "FFSFSF"})), expected);
    assert_eq!(types(json!({"index_topk_pattern": ["full", "full", "shared", "full", "shared", "full"]})), expected);
    // Layer i is full iff max(i - offset + 1, 0) % freq == 0.
    assert_eq!(types(json!({"index_topk_freq": 2})), expected);
    let every_third = vec![Full, Full, Full, Shared, Shared, Full];
    assert_eq!(types(json!({"index_topk_freq": 3, "index_skip_topk_offset": 3})), every_third);
    assert_eq!(types(json!({"index_topk_freq": 1})), vec![Full; 6]);
    // Several keys may say the same, and the default frequency says nothing.
    let all = json!({"index_topk_pattern": "FFSFSF", "index_topk_freq": 2,
        "indexer_types": ["full", "full", "shared", "full", "shared", "full"]});
    assert_eq!(types(all), expected);
    assert_eq!(types(json!({"index_topk_pattern": "FFSFSF", "index_topk_freq": 1})), expected);
    assert_eq!(read(GLM5).indexer_type(78), Some(Full));
    assert_eq!(read(V3).indexer_type(0), None);
}

#[test]
fn moe_layer_freq_counts_layer_numbers() {
    use MlpType::{Dense, Sparse};
    let config = read(&with(V32, json!({"num_hidden_layers": 6, "first_k_dense_replace": 1, "moe_layer_freq": 2})));
    assert_eq!(config.mlp_layer_types, [Dense, Dense, Sparse, Dense, Sparse, Dense]);
    assert_eq!(config.mlp_type(6), Sparse);
}

#[test]
fn yarn_takes_its_original_length_from_either_place() {
    let mut config: Value = serde_json::from_str(V3).unwrap();
    config["original_max_position_embeddings"] = json!(4096);
    read(&config.to_string());
    let error = Config::from_json(&with(V3, json!({"original_max_position_embeddings": 8192}))).unwrap_err();
    assert!(error.to_string().contains("original_max_position_embeddings"), "{error}");
    config["rope_scaling"].as_object_mut().unwrap().remove("original_max_position_embeddings");
    let yarn = read(&config.to_string()).rope.yarn.unwrap();
    assert_eq!(yarn.original_max_position_embeddings, 4096);
}
