//! Malformed checkpoints: each is refused with one line that names the file and the tensor or key.

mod files;
mod tensors;

use std::fs;
use std::path::Path;

use crate::checkpoint_writer::*;
use deepseek_v32::Config;
use deepseek_v32::config::{IndexerType, ModelType};
use deepseek_v32::weights::{GenerationConfig, LoadOptions, load, parse_header, parse_index};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Loads `dir`, which must fail with one line that contains every one of `parts`.
fn refused(dir: &Path, parts: &[&str]) {
    let Err(error) = load(dir, &LoadOptions::default(), |_| {}) else {
        panic!("loaded, expected an error with {parts:?}");
    };
    let line = error.to_string();
    for part in parts {
        assert!(line.contains(part), "{line:?} does not contain {part:?}");
    }
    assert!(!line.contains('\n') && !line.ends_with('.'), "{line:?}");
}

fn refused_single(files: &Files, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    refused(dir.path(), parts);
}

/// A good single-file checkpoint, whose header or bytes `change` spoils.
fn refused_file(change: impl FnOnce(&mut Value, &mut Vec<u8>), parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    bf16_files().write_single(dir.path());
    spoil_file(&dir.path().join("model.safetensors"), change);
    refused(dir.path(), &[&["model.safetensors"], parts].concat());
}

/// A good sharded checkpoint, which `change` spoils.
fn refused_shards(change: impl FnOnce(&Path, &mut serde_json::Map<String, Value>), parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    fp8_files().write_sharded(dir.path(), 3);
    spoil_index(dir.path(), change);
    refused(dir.path(), parts);
}

#[test]
fn the_unchanged_checkpoints_load() {
    for files in [bf16_files(), fp8_files()] {
        let dir = tempfile::tempdir().unwrap();
        files.write_single(dir.path());
        load(dir.path(), &LoadOptions::default(), |_| {}).unwrap();
    }
}

// ---- directory

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    refused(&dir.path().join("nowhere"), &["nowhere", "config.json"]);
    refused(dir.path(), &["config.json"]);
    bf16_files().write_config(dir.path());
    refused(dir.path(), &[dir.path().to_str().unwrap(), "model.safetensors", "model.safetensors.index.json"]);
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    refused(dir.path(), &["model.safetensors", "not a file"]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    fs::create_dir(dir.path().join("config.json")).unwrap();
    refused(dir.path(), &["config.json", "not a file"]);
}

/// What stands in a file's place is named, and what should stand there.
#[test]
fn files_of_other_kinds_are_named() {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2147\nsize 135\n";
    let torch = [b"PK\x03\x04\0\0\x08\x08".as_slice(), &[0; 40]].concat();
    let old_torch = [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".as_slice(), &[0; 40]].concat();
    let gguf = [b"GGUF\x03\0\0\0".as_slice(), &[0; 40]].concat();
    let page = b"<!DOCTYPE html>\n<html>".to_vec();
    let kinds = [
        (POINTER.to_vec(), "Git LFS pointer"),
        (gguf.clone(), "GGUF"),
        (torch, "PyTorch"),
        (old_torch, "PyTorch"),
        (page, "web page"),
    ];
    let files = fp8_files();
    for (bytes, kind) in &kinds {
        let single = tempfile::tempdir().unwrap();
        files.write_single(single.path());
        fs::write(single.path().join("model.safetensors"), bytes).unwrap();
        refused(single.path(), &["model.safetensors", kind, "expected a safetensors file"]);
        let sharded = tempfile::tempdir().unwrap();
        files.write_sharded(sharded.path(), 2);
        let shard = shard_name(1, 2);
        fs::write(sharded.path().join(&shard), bytes).unwrap();
        refused(sharded.path(), &[&shard, kind, "expected a safetensors file"]);
        for file in ["model.safetensors.index.json", "config.json"] {
            fs::write(sharded.path().join(file), bytes).unwrap();
            refused(sharded.path(), &[file, kind, "expected JSON"]);
        }
        let generation = tempfile::tempdir().unwrap();
        files.write_single(generation.path());
        fs::write(generation.path().join(GenerationConfig::FILE), bytes).unwrap();
        let error = GenerationConfig::load(generation.path()).unwrap_err().to_string();
        assert!(error.contains(GenerationConfig::FILE) && error.contains(kind), "{error}");
    }
    // A file instead of a folder.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model-Q4_K_M.gguf");
    fs::write(&file, &gguf).unwrap();
    refused(&file, &["model-Q4_K_M.gguf", "GGUF", "folder"]);
    // A folder with nothing else, without and with a configuration.
    refused(dir.path(), &[dir.path().to_str().unwrap(), "model-Q4_K_M.gguf", "GGUF", "expected model.safetensors"]);
    files.write_config(dir.path());
    refused(dir.path(), &["model-Q4_K_M.gguf", "GGUF", "expected model.safetensors"]);
    fs::write(dir.path().join("a.bin"), "").unwrap();
    refused(dir.path(), &["a.bin", "PyTorch", "expected model.safetensors"]);
    // Beside a checkpoint it does not matter.
    files.write_single(dir.path());
    load(dir.path(), &LoadOptions::default(), |_| {}).unwrap();
}

/// Formats that a configuration without `quantization_config` does not tell.
#[test]
fn quantized_tensors_are_named() {
    for (suffix, dtype, format) in [
        ("qweight", "I32", "GPTQ or AWQ"),
        ("weight_packed", "I32", "compressed-tensors"),
        ("weight_scale_2", "F32", "NVFP4"),
    ] {
        let mut files = bf16_files();
        let name = format!("model.layers.0.mlp.up_proj.{suffix}");
        files.tensors.remove(UP);
        files.add(&name, dtype, &[4]);
        refused_single(&files, &["model.safetensors", &name, format, "not supported", "block FP8"]);
    }
}

#[test]
fn bad_configs_are_named() {
    for (text, part) in [
        (b"".as_slice(), "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"[]", "object"),
        (b"{}", "model_type"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"{\"a\": 1, \"a\": 2}", "duplicate key `a`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        bf16_files().write_single(dir.path());
        fs::write(dir.path().join("config.json"), text).unwrap();
        refused(dir.path(), &["config.json", part]);
    }
}

#[test]
fn configs_that_disagree_with_the_tensors_are_refused() {
    for (key, value, tensor) in [
        ("vocab_size", json!(41), "model.embed_tokens.weight"),
        ("hidden_size", json!(128), "model.embed_tokens.weight"),
        ("intermediate_size", json!(131), "model.layers.0.mlp.gate_proj.weight"),
        ("moe_intermediate_size", json!(13), "model.layers.1.mlp.experts.0.gate_proj.weight"),
        ("num_attention_heads", json!(4), "q_b_proj"),
        ("kv_lora_rank", json!(17), "kv_a_proj_with_mqa"),
        ("q_lora_rank", json!(21), "q_a_proj"),
        ("v_head_dim", json!(7), "kv_b_proj"),
        ("index_n_heads", json!(3), "indexer.wq_b"),
        ("index_head_dim", json!(16), "indexer.wq_b"),
        ("n_routed_experts", json!(6), "model.layers.1.mlp.experts.4.gate_proj.weight"),
        ("n_routed_experts", json!(2), "mlp.gate.weight"),
        ("n_shared_experts", json!(2), "shared_experts.gate_proj"),
        ("n_shared_experts", json!(0), "shared_experts"),
        ("first_k_dense_replace", json!(2), "model.layers.1.mlp.gate_proj.weight"),
        ("num_nextn_predict_layers", json!(0), "model.layers.2."),
        ("tie_word_embeddings", json!(true), "lm_head.weight"),
    ] {
        let mut files = bf16_files();
        files.config[key] = value;
        if key == "n_routed_experts" {
            files.config["topk_group"] = json!(2);
        }
        if key == "num_attention_heads" {
            files.config["num_key_value_heads"] = Value::Null;
        }
        refused_single(&files, &["model.safetensors", tensor]);
    }
    // Another family.
    let mut files = Files::new(&tiny_v3_config(), "BF16", "F32");
    files.config["q_lora_rank"] = Value::Null;
    refused_single(&files, &["model.safetensors", "model.layers.0.self_attn.q_proj.weight", "missing"]);
    let mut files = Files::new(&Config { q_lora_rank: None, ..tiny_v3_config() }, "BF16", "F32");
    files.config["q_lora_rank"] = json!(20);
    refused_single(&files, &["model.safetensors", "model.layers.0.self_attn.q_a_proj.weight", "missing"]);
    let dense = Files::new(&tiny_v3_config(), "BF16", "F32");
    let files = Files { config: bf16_files().config, ..dense };
    refused_single(&files, &["model.safetensors", "indexer", "missing"]);
    let sparse = Files::new(&Config { num_nextn_predict_layers: 0, ..tiny_config() }, "BF16", "F32");
    let files = Files { config: Files::new(&tiny_v3_config(), "BF16", "F32").config, ..sparse };
    refused_single(&files, &["model.safetensors", "indexer", "unexpected"]);
}

// ---- names, shapes, dtypes

#[test]
fn a_hostile_config_costs_nothing() {
    let mut files = bf16_files();
    files.config["num_hidden_layers"] = json!(1024);
    files.config["n_routed_experts"] = json!(16384);
    files.config["num_nextn_predict_layers"] = json!(16);
    files.config["first_k_dense_replace"] = json!(0);
    refused_single(&files, &["model.layers.0.mlp.experts.0.gate_proj.weight", "missing"]);
}

// ---- any bytes
