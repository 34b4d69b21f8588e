//! Configs that are refused, each with its key.

use super::*;

#[test]
fn text_that_is_no_object_is_refused() {
    for text in ["", "{", "[]", "null", "3", "\"x\"", "{\"a\": NaN}", "{} {}", "{\"a\": 1e999}"] {
        let error = Config::from_json(text).unwrap_err();
        assert!(error.key.is_empty() && !error.message.contains('\n'), "{error}");
    }
    for depth in [100, 1_000, 1_000_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        assert!(Config::from_json(&format!("{{\"a\": {open}{close}}}")).is_err());
        assert!(Config::from_json(&format!("{{\"a\": {}", "{\"a\":".repeat(depth))).is_err());
    }
    let twice = V32.replacen('{', "{\"hidden_size\": 96,", 1);
    assert!(Config::from_json(&twice).unwrap_err().message.contains("duplicate key `hidden_size`"));
    let nested = V32.replace("\"factor\"", "\"factor\": 2, \"factor\"");
    assert!(Config::from_json(&nested).unwrap_err().message.contains("duplicate key `factor`"));
}

#[test]
fn what_messages_quote_is_cut() {
    let long = "y".repeat(100_000);
    for key in ["model_type", "hidden_act", "topk_method", "hidden_size", "rope_scaling", "architectures"] {
        refused(&with(V32, json!({key: long})), key);
        assert!(Config::from_json(&with(V32, json!({key: long}))).unwrap_err().to_string().len() < 300, "{key}");
    }
    let twice = V32.replacen('{', &format!("{{\"{long}\": 1, \"{long}\": 2,"), 1);
    assert!(Config::from_json(&twice).unwrap_err().to_string().len() < 300);
    let error = Config::from_json(&with(V32, json!({"rope_theta": 1e300}))).unwrap_err().to_string();
    assert!(error.ends_with("found 1e300"), "{error}");
}

#[test]
fn dimensions_must_be_sensible() {
    let keys = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "n_routed_experts",
        "kv_lora_rank",
        "qk_rope_head_dim",
        "v_head_dim",
        "qk_nope_head_dim",
        "num_experts_per_tok",
        "max_position_embeddings",
        "index_n_heads",
        "index_head_dim",
        "index_topk",
        "q_lora_rank",
    ];
    for key in keys {
        let wrong = [
            json!(0),
            json!(-1),
            json!(96.5),
            json!("96"),
            json!(true),
            json!([96]),
            json!({}),
            json!(u64::MAX),
            json!(1u64 << 40),
            json!(1e30),
            json!("absent"),
            json!(null),
        ];
        for wrong in wrong {
            let mut changes = json!({"num_key_value_heads": "absent"});
            changes[key] = wrong;
            refused(&with(V32, changes), key);
        }
    }
    for key in ["n_group", "topk_group", "first_k_dense_replace", "num_nextn_predict_layers", "n_shared_experts"] {
        for wrong in [json!(-1), json!(96.5), json!("96"), json!(true), json!(u64::MAX), json!(1u64 << 40)] {
            let mut changes = json!({});
            changes[key] = wrong;
            refused(&with(V32, changes), key);
        }
    }
}

#[test]
fn contradictions_name_their_key() {
    for (key, changes) in [
        ("model_type", json!({"model_type": "llama"})),
        ("model_type", json!({"model_type": 3})),
        ("model_type", json!({"model_type": "absent", "architectures": ["LlamaForCausalLM"]})),
        ("model_type", json!({"model_type": "absent", "architectures": "absent"})),
        ("architectures", json!({"architectures": ["DeepseekV3ForCausalLM"]})),
        ("architectures", json!({"architectures": ["SomethingElse", "GlmMoeDsaForCausalLM"]})),
        ("architectures", json!({"architectures": "DeepseekV32ForCausalLM"})),
        ("architectures", json!({"architectures": [32]})),
        ("qk_rope_head_dim", json!({"qk_rope_head_dim": 63})),
        ("index_head_dim", json!({"index_head_dim": 32})),
        ("n_group", json!({"n_group": 7})),
        ("n_group", json!({"n_group": 0})),
        ("n_group", json!({"n_group": 512})),
        ("topk_group", json!({"topk_group": 9})),
        ("topk_group", json!({"topk_group": 0})),
        ("topk_group", json!({"topk_group": "absent"})),
        ("num_experts_per_tok", json!({"num_experts_per_tok": 129})),
        ("num_experts_per_tok", json!({"num_experts_per_tok": 257})),
        ("index_topk", json!({"index_topk": "absent"})),
        ("topk_method", json!({"topk_method": "greedy"})),
        ("topk_method", json!({"topk_method": "group_limited_greedy"})),
        ("scoring_func", json!({"scoring_func": "softmax"})),
        ("hidden_act", json!({"hidden_act": "gelu"})),
        ("attention_bias", json!({"attention_bias": true})),
        ("mlp_bias", json!({"mlp_bias": true})),
        ("swiglu_limit", json!({"swiglu_limit": 7.0})),
        ("final_logit_softcapping", json!({"final_logit_softcapping": 30})),
        ("partial_rotary_factor", json!({"partial_rotary_factor": 0.5})),
        ("logits_scaling", json!({"logits_scaling": 8})),
        ("sliding_window", json!({"sliding_window": 128})),
        ("rope_interleave", json!({"rope_interleave": false})),
        ("num_key_value_heads", json!({"num_key_value_heads": 8})),
        ("num_attention_heads", json!({"num_attention_heads": 1 << 20, "num_key_value_heads": "absent"})),
        ("qk_head_dim", json!({"qk_head_dim": 191})),
        ("num_mtp_layers", json!({"num_mtp_layers": 2})),
        ("num_nextn_predict_layers", json!({"num_nextn_predict_layers": 1000})),
        ("num_local_experts", json!({"num_local_experts": 8})),
        ("n_shared_experts", json!({"n_shared_experts": "absent"})),
        ("n_shared_experts", json!({"n_shared_experts": 10000, "moe_intermediate_size": 1 << 20})),
        ("first_k_dense_replace", json!({"first_k_dense_replace": "absent"})),
        ("moe_layer_freq", json!({"moe_layer_freq": 0})),
        ("moe_layer_freq", json!({"moe_layer_freq": [1, 1]})),
        ("mlp_layer_types", json!({"mlp_layer_types": ["dense"]})),
        ("mlp_layer_types", json!({"num_hidden_layers": 1, "mlp_layer_types": ["moe"]})),
        ("mlp_layer_types", json!({"mlp_layer_types": "dense"})),
        ("layer_types", json!({"layer_types": ["sliding_attention"]})),
        ("routed_scaling_factor", json!({"routed_scaling_factor": 0})),
        ("routed_scaling_factor", json!({"routed_scaling_factor": "absent"})),
        ("norm_topk_prob", json!({"norm_topk_prob": 1})),
        ("rms_norm_eps", json!({"rms_norm_eps": 0})),
        ("rms_norm_eps", json!({"rms_norm_eps": -1e-6})),
        ("rms_norm_eps", json!({"rms_norm_eps": "1e-6"})),
        ("rms_norm_eps", json!({"rms_norm_eps": 1e-300})),
        ("routed_scaling_factor", json!({"routed_scaling_factor": 1e300})),
        ("rope_theta", json!({"rope_theta": 1e300})),
        ("rope_theta", json!({"rope_theta": 0})),
        ("rope_theta", json!({"rope_theta": 1})),
        ("rope_theta", json!({"rope_theta": "10000"})),
        ("eos_token_id", json!({"eos_token_id": 129280})),
        ("eos_token_id", json!({"eos_token_id": [1, 129280]})),
        ("eos_token_id", json!({"eos_token_id": -1})),
        ("eos_token_id", json!({"eos_token_id": "</s>"})),
        ("bos_token_id", json!({"bos_token_id": 1u64 << 33})),
        ("pad_token_id", json!({"pad_token_id": 129280})),
        ("pad_token_id", json!({"pad_token_id": -2})),
        ("pad_token_id", json!({"pad_token_id": [2]})),
        ("tie_word_embeddings", json!({"tie_word_embeddings": "yes"})),
        ("q_lora_rank", json!({"q_lora_rank": null})),
        ("quantization_config", json!({"quantization_config": "fp8"})),
    ] {
        refused(&with(V32, changes), key);
    }
    refused(&with(V3, json!({"index_topk": 2048})), "index_topk");
    refused(&with(V3, json!({"index_topk_freq": 4})), "index_topk_freq");
}

#[test]
fn keys_about_sharing_must_agree() {
    let list = json!(["full", "shared", "full"]);
    for (key, other, changes) in [
        ("index_topk_pattern", "indexer_types", json!({"indexer_types": list, "index_topk_pattern": "FFF"})),
        ("index_topk_freq", "indexer_types", json!({"indexer_types": list, "index_topk_freq": 2})),
        ("index_topk_freq", "index_topk_pattern", json!({"index_topk_pattern": "FSS", "index_topk_freq": 3})),
    ] {
        let mut small = json!({"num_hidden_layers": 3});
        small.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let error = Config::from_json(&with(GLM5, small)).unwrap_err();
        assert_eq!(error.key, key);
        assert_eq!(error.message, format!("contradicts `{other}` about layer 1"));
    }
}

#[test]
fn indexer_sharing_must_make_sense() {
    for (key, changes) in [
        ("indexer_types", json!({"indexer_types": ["full"]})),
        ("indexer_types", json!({"num_hidden_layers": 3, "indexer_types": ["shared", "full", "full"]})),
        ("indexer_types", json!({"num_hidden_layers": 3, "indexer_types": ["full", "half", "full"]})),
        ("indexer_types", json!({"num_hidden_layers": 3, "indexer_types": ["full", 1, "full"]})),
        ("indexer_types", json!({"indexer_types": "FFF"})),
        ("index_topk_pattern", json!({"index_topk_pattern": "FS"})),
        ("index_topk_pattern", json!({"num_hidden_layers": 3, "index_topk_pattern": "FXS"})),
        ("index_topk_freq", json!({"index_topk_freq": 0})),
        ("index_topk_freq", json!({"index_topk_freq": 2.5})),
        ("indexer_types", json!({"index_topk_freq": 4, "index_skip_topk_offset": 0})),
        ("indexer_rope_interleave", json!({"indexer_rope_interleave": "yes"})),
    ] {
        refused(&with(GLM5, changes), key);
    }
}

#[test]
fn yarn_needs_its_numbers() {
    let good = value(V32)["rope_scaling"].clone();
    for (key, wrong) in [
        ("factor", json!(null)),
        ("factor", json!(0)),
        ("factor", json!(-4)),
        ("factor", json!(0.5)),
        ("factor", json!("40")),
        ("factor", json!(1e300)),
        ("mscale", json!(1e300)),
        ("original_max_position_embeddings", json!(null)),
        ("original_max_position_embeddings", json!(0)),
        ("original_max_position_embeddings", json!(-1)),
        ("original_max_position_embeddings", json!(4096.5)),
        ("beta_fast", json!(0)),
        ("beta_fast", json!(0.5)),
        ("beta_slow", json!(-1)),
        ("mscale", json!(-1)),
        ("mscale_all_dim", json!("1")),
        ("attention_factor", json!(0)),
        ("truncate", json!(1)),
        ("type", json!("linear")),
        ("type", json!(null)),
        ("rope_type", json!("default")),
        ("partial_rotary_factor", json!(0.5)),
    ] {
        let mut scaling = good.clone();
        scaling[key] = wrong;
        let text = with(V32, json!({"rope_scaling": scaling}));
        let expected = if key == "rope_type" { "rope_scaling.type".to_string() } else { format!("rope_scaling.{key}") };
        refused(&text, &expected);
        scaling["rope_theta"] = json!(10000);
        let text = with(V32, json!({"rope_scaling": null, "rope_parameters": scaling}));
        refused(&text, &expected.replace("rope_scaling", "rope_parameters"));
    }
    refused(&with(V32, json!({"rope_scaling": "yarn"})), "rope_scaling");
    refused(&with(V32, json!({"rope_parameters": {"rope_type": "default"}})), "rope_scaling");
    refused(
        &with(V32, json!({"rope_parameters": {"rope_theta": 5, "rope_type": "default"}})),
        "rope_parameters.rope_theta",
    );
    refused(&with(GLM5, json!({"rope_parameters": {"rope_type": "llama3", "factor": 8}})), "rope_parameters.rope_type");
}

#[test]
fn quantization_must_be_block_fp8() {
    let good = value(V32)["quantization_config"].clone();
    for (key, wrong) in [
        ("quant_method", json!("awq")),
        ("quant_method", json!(null)),
        ("fmt", json!("e5m2")),
        ("activation_scheme", json!("static")),
        ("weight_block_size", json!(null)),
        ("weight_block_size", json!([128])),
        ("weight_block_size", json!([128, 128, 128])),
        ("weight_block_size", json!([0, 128])),
        ("weight_block_size", json!([-128, 128])),
        ("weight_block_size", json!([128.5, 128])),
        ("weight_block_size", json!([64, 64])),
        ("weight_block_size", json!("128x128")),
        ("scale_fmt", json!("e5m2")),
    ] {
        let mut quantization = good.clone();
        quantization[key] = wrong;
        refused(&with(V32, json!({"quantization_config": quantization})), &format!("quantization_config.{key}"));
    }
}

/// The error names the format and what is read instead.
#[test]
fn other_quantizations_are_named() {
    for (quantization, names) in [
        (json!({"quant_method": "gptq", "bits": 4}), &["\"gptq\""][..]),
        (json!({"quant_method": "awq", "version": "gemm"}), &["\"awq\""]),
        (json!({"quant_method": "bitsandbytes"}), &["\"bitsandbytes\""]),
        (
            json!({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}),
            &["\"compressed-tensors\"", "\"nvfp4-pack-quantized\""],
        ),
        (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), &["\"modelopt\"", "\"NVFP4\""]),
        (json!({"quant_algo": "NVFP4"}), &["\"NVFP4\""]),
    ] {
        let config = with(V32, json!({"quantization_config": quantization}));
        let error = Config::from_json(&config.to_string()).unwrap_err();
        assert_eq!(error.key, "quantization_config.quant_method");
        for part in names.iter().chain(&["not supported", "block FP8", "\"fp8\"", "not quantized"]) {
            assert!(error.message.contains(part), "{error} does not contain {part}");
        }
    }
    let old = with(V32, json!({"quantization_config": null, "compression_config": {"format": "pack-quantized"}}));
    let error = Config::from_json(&old.to_string()).unwrap_err();
    assert!(error.key == "compression_config" && error.message.contains("compressed-tensors"), "{error}");
}

#[test]
fn text_that_is_no_json_is_found_by_the_key_before_it() {
    for (text, key) in [
        (r#"{"model_type": "deepseek_v3", "rope_theta": NaN, "n_group": 1}"#, "\"rope_theta\""),
        ("{\"model_type\": \"deepseek_v3\",\n  \"rms_norm_eps\":\n  -Infinity}", "\"rms_norm_eps\""),
        (r#"{"eos_token_id": [1, x]}"#, "\"eos_token_id\""),
        (r#"{"hidden_size": 1e999}"#, "\"hidden_size\""),
    ] {
        let error = Config::from_json(text).unwrap_err().to_string();
        assert!(error.starts_with("invalid JSON") && error.contains(key), "{error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_answer_or_an_error(text in "\\PC{0,200}") {
        let _ = Config::from_json(&text);
    }

    #[test]
    fn any_number_anywhere_is_an_answer_or_an_error(
        key in proptest::sample::select(value(GLM5).as_object().unwrap().keys().cloned().collect::<Vec<_>>()),
        number in proptest::num::i64::ANY,
        float in proptest::num::f64::NORMAL,
    ) {
        for base in [V3, V32, GLM5] {
            let mut changes = json!({});
            changes[&key] = json!(number);
            let _ = Config::from_json(&with(base, changes.clone()));
            changes[&key] = json!(float);
            if let Ok(config) = Config::from_json(&with(base, changes)) {
                prop_assert_eq!(&read(&config.to_json()), &config);
            }
        }
    }
}
