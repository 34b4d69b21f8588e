//! A malformed `config.json` through the `parity` and `generate` programs: each ends with status 1 and one line that names
//! the file and the key, or the tensor that it contradicts.

#![cfg(unix)]

use crate::checkpoint_writer::*;
use crate::examples_support::succeeds;
use crate::malformed_support::*;
use serde_json::{Value, json};

#[test]
fn configs_that_are_no_config() {
    let good = bf16_files().config.to_string();
    for (text, part) in [
        ("".as_bytes(), "invalid JSON"),
        (b" \n", "invalid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"\"deepseek_v32\"", "object"),
        (b"{}", "model_type"),
        (b"\xff\xfe{\0}\0", "UTF-8"),
        // A byte order mark is none.
        (&b"\xef\xbb\xbf{}"[..], "model_type"),
        (b"{\"model_type\": \"deepseek_v32\", \"model_type\": \"deepseek_v3\"}", "duplicate key `model_type`"),
        (&good.as_bytes()[..good.len() - 1], "invalid JSON"),
        (&[good.as_bytes(), b","].concat(), "invalid JSON"),
        (&vec![b'['; 100_000], "recursion"),
    ] {
        refused_config_text(text, &[part]);
    }
    let hidden = "\"hidden_size\":136";
    assert!(good.contains(hidden));
    for value in ["NaN", "Infinity", "1e400", "0x88", "136.", "\"136\""] {
        let text = good.replace(hidden, &format!("\"hidden_size\":{value}"));
        let part = if value.starts_with('"') { "`hidden_size`" } else { CONFIG };
        refused_config_text(text, &[part]);
    }
}

#[test]
fn config_values_that_cannot_be() {
    for (key, values) in [
        (
            "hidden_size",
            vec![json!(0), json!(-136), json!(136.5), json!(1e300), json!(u64::MAX), json!([136]), json!("absent")],
        ),
        ("num_hidden_layers", vec![json!(0), json!(1_000_000_000u64), json!(true), Value::Null]),
        ("num_attention_heads", vec![json!({}), Value::Null]),
        ("vocab_size", vec![json!(-1), json!(1e10)]),
        ("kv_lora_rank", vec![Value::Null, json!(0)]),
        ("q_lora_rank", vec![Value::Null, json!(0), json!("20")]),
        ("qk_rope_head_dim", vec![json!(3), json!(0)]),
        ("v_head_dim", vec![json!("absent")]),
        ("n_group", vec![json!(3), json!(0)]),
        ("topk_group", vec![json!(3), json!(0)]),
        ("num_experts_per_tok", vec![json!(3), json!(0), json!(99)]),
        ("routed_scaling_factor", vec![json!(0), json!(-1), json!("2.5")]),
        ("first_k_dense_replace", vec![json!(-1), json!("1")]),
        ("moe_layer_freq", vec![json!(0)]),
        ("rms_norm_eps", vec![json!(0), json!(-1e-6), json!(2)]),
        ("rope_theta", vec![json!(0), json!(1), json!(-10000)]),
        ("rope_scaling", vec![json!("yarn"), json!([1])]),
        ("index_topk", vec![json!(0), Value::Null, json!("absent")]),
        ("index_n_heads", vec![json!("absent")]),
        ("index_head_dim", vec![json!(2), json!("absent")]),
        ("topk_method", vec![json!("greedy")]),
        ("scoring_func", vec![json!("softmax")]),
        ("hidden_act", vec![json!("gelu")]),
        ("attention_bias", vec![json!(true)]),
        ("model_type", vec![json!("llama"), json!(7)]),
        ("num_key_value_heads", vec![json!(1)]),
        ("num_nextn_predict_layers", vec![json!(-1), json!(17)]),
        ("eos_token_id", vec![json!(40), json!(-1), json!([1, 40])]),
        ("bos_token_id", vec![json!(40)]),
        ("pad_token_id", vec![json!(40)]),
        ("max_position_embeddings", vec![json!(0), json!("absent")]),
        ("tie_word_embeddings", vec![json!("no")]),
        ("mlp_layer_types", vec![json!(["dense"]), json!(["dense", "odd"])]),
        ("indexer_types", vec![json!(["full"]), json!(["shared", "full"])]),
        ("quantization_config", vec![json!({}), json!({"quant_method": "gptq"}), json!(8)]),
    ] {
        for value in values {
            let named = format!("`{key}");
            refused_config(json!({ key: value }), &[&named]);
        }
    }
    let nested = |object: &str, key: &str, value: Value| {
        let mut changed = bf16_files().config[object].clone();
        changed[key] = value;
        refused_config(json!({ object: changed }), &[&format!("`{object}.{key}`")]);
    };
    refused_config(json!({"num_attention_heads": 0, "num_key_value_heads": null}), &["`num_attention_heads`"]);
    for (key, value) in [
        ("factor", json!(0.5)),
        ("factor", Value::Null),
        ("original_max_position_embeddings", Value::Null),
        ("type", json!("linear")),
        ("beta_fast", json!(-1)),
    ] {
        nested("rope_scaling", key, value);
    }
    let mut fp8 = fp8_files();
    fp8.config["quantization_config"]["weight_block_size"] = json!([64, 64]);
    refused_single(&fp8, &[CONFIG, "`quantization_config.weight_block_size`"]);
}

#[test]
fn configs_that_disagree_with_the_tensors() {
    for (key, value, tensor) in [
        ("vocab_size", json!(41), "model.embed_tokens.weight"),
        ("hidden_size", json!(128), "model.embed_tokens.weight"),
        ("intermediate_size", json!(131), "model.layers.0.mlp.gate_proj.weight"),
        ("kv_lora_rank", json!(17), "kv_a_proj_with_mqa"),
        ("q_lora_rank", json!(21), "q_a_proj"),
        ("v_head_dim", json!(7), "kv_b_proj"),
        ("index_n_heads", json!(3), "indexer.wq_b"),
        ("n_routed_experts", json!(6), "model.layers.1.mlp.experts.4.gate_proj.weight"),
        ("n_shared_experts", json!(2), "shared_experts.gate_proj"),
        ("n_shared_experts", json!(0), "shared_experts"),
        ("first_k_dense_replace", json!(2), "model.layers.1.mlp.gate_proj.weight"),
        ("num_hidden_layers", json!(3), "model.layers.2."),
        ("num_hidden_layers", json!(1), "model.layers.1."),
        ("num_nextn_predict_layers", json!(0), "model.layers.2."),
        ("num_nextn_predict_layers", json!(2), ""),
        ("tie_word_embeddings", json!(true), "lm_head.weight"),
        ("model_type", json!("glm_moe_dsa"), ""),
    ] {
        let mut files = bf16_files();
        files.config[key] = value;
        if key == "n_routed_experts" {
            files.config["topk_group"] = json!(2);
        }
        if key == "model_type" {
            files.config["architectures"] = Value::Null;
        }
        // Neither is a contradiction: an MTP layer may be absent, and the families' tensors have the same names.
        if tensor.is_empty() {
            succeeds(&mut generate(spoilt(&files, 1, |_| ()).path()));
        } else {
            refused_single(&files, &[WEIGHTS, tensor]);
        }
    }
}
