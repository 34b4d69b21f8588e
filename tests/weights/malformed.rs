//! Malformed checkpoints: each is refused with one line that names the file and the tensor or key.

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
fn the_unspoilt_checkpoints_load() {
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
fn every_tensor_is_needed() {
    let names: Vec<String> = bf16_files().tensors.into_keys().collect();
    for name in &names {
        let mut files = bf16_files();
        files.tensors.remove(name);
        // Copies of the embedding and the head may be absent.
        if name.starts_with("model.layers.2.") && (name.contains("embed_tokens") || name.contains("shared_head.head")) {
            continue;
        }
        refused_single(&files, &["model.safetensors", name, "missing"]);
    }
}

#[test]
fn unknown_tensors_are_refused() {
    for name in [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.o_proj.bias",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.1.mlp.experts.4.up_proj.weight",
        "model.layers.3.input_layernorm.weight",
        "model.layers.01.input_layernorm.weight",
        "model.layers.0.self_attn.indexer.wv.weight",
        "extra",
        "",
    ] {
        let mut files = bf16_files();
        files.add(name, "F32", &[4]);
        refused_single(&files, &["model.safetensors", &format!("`{name}`"), "unexpected"]);
    }
    // A name is shown on one line, and not at any length.
    let mut files = bf16_files();
    files.add(&format!("a\nb{}", "c".repeat(10_000)), "F32", &[4]);
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let line = load(dir.path(), &LoadOptions::default(), |_| {}).err().unwrap().to_string();
    assert!(line.contains("a\\nbccc") && !line.contains('\n') && line.len() < 1000, "{line}");
    let config = Config {
        model_type: ModelType::GlmMoeDsa,
        indexer_types: vec![IndexerType::Full, IndexerType::Shared],
        ..tiny_config()
    };
    let mut files = Files::new(&config, "BF16", "F32");
    files.add("model.layers.1.self_attn.indexer.wv.weight", "F32", &[4]);
    refused_single(&files, &["model.layers.1.self_attn.indexer.wv.weight", "unexpected"]);
}

#[test]
fn shapes_must_follow_from_the_config() {
    for (name, shape) in [
        (NORM, vec![135]),
        (NORM, vec![1, 136]),
        (UP, vec![136, 130]),
        (UP, vec![130 * 136]),
        (EXPERT, vec![136, 12, 1]),
        ("model.layers.1.mlp.gate.e_score_correction_bias", vec![5]),
        ("model.layers.2.eh_proj.weight", vec![136, 136]),
        ("model.layers.2.embed_tokens.weight", vec![39, 136]),
    ] {
        let mut files = bf16_files();
        files.add(name, "F32", &shape);
        refused_single(&files, &["model.safetensors", name, "shape", &format!("{shape:?}")]);
    }
}

#[test]
fn dtypes_must_be_computable() {
    for dtype in ["F64", "I32", "I64", "U8", "I8", "BOOL", "F8_E5M2", "F8_E8M0"] {
        for name in [NORM, UP, "model.layers.1.mlp.gate.weight"] {
            let mut files = bf16_files();
            let shape = files.get(name).shape.clone();
            files.add(name, dtype, &shape);
            refused_single(&files, &["model.safetensors", name, dtype]);
        }
    }
    for name in [
        NORM,
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.0.self_attn.indexer.weights_proj.weight",
        "model.layers.2.eh_proj.weight",
    ] {
        let mut files = fp8_files();
        let shape = files.get(name).shape.clone();
        files.add(name, "F8_E4M3", &shape);
        refused_single(&files, &["model.safetensors", name, "F8_E4M3"]);
    }
}

#[test]
fn fp8_needs_its_config_and_its_scales() {
    let scale = format!("{UP}_scale_inv");
    let mut files = fp8_files();
    files.config.as_object_mut().unwrap().remove("quantization_config");
    refused_single(&files, &["model.safetensors", "F8_E4M3", "quantization_config"]);
    let mut files = fp8_files();
    files.tensors.remove(&scale);
    refused_single(&files, &["model.safetensors", UP, &scale, "missing"]);
    for shape in [vec![2], vec![1, 2], vec![2, 1], vec![130, 2], vec![2, 2, 1]] {
        let mut files = fp8_files();
        files.add(&scale, "F32", &shape);
        refused_single(&files, &["model.safetensors", &scale, "shape", "[2, 2]"]);
    }
    for dtype in ["F64", "I32", "F8_E4M3", "I8"] {
        let mut files = fp8_files();
        files.add(&scale, dtype, &[2, 2]);
        refused_single(&files, &["model.safetensors", &scale, dtype]);
    }
    // Scales of a weight that is not FP8.
    let mut files = fp8_files();
    files.add(UP, "BF16", &[130, 136]);
    refused_single(&files, &["model.safetensors", &scale, "BF16"]);
    let mut files = bf16_files();
    files.add("lm_head.weight_scale_inv", "F32", &[1, 2]);
    refused_single(&files, &["model.safetensors", "lm_head.weight_scale_inv", "F32"]);
}

#[test]
fn mtp_layers_are_whole_or_absent() {
    for kept in ["enorm.weight", "eh_proj.weight", "embed_tokens.weight", "self_attn.o_proj.weight"] {
        let mut files = bf16_files();
        files.tensors.retain(|name, _| !name.starts_with("model.layers.2.") || name.ends_with(kept));
        refused_single(&files, &["model.safetensors", "model.layers.2.", "missing"]);
    }
    let mut files = Files::new(&Config { num_nextn_predict_layers: 2, ..tiny_config() }, "BF16", "F32");
    files.tensors.retain(|name, _| !name.starts_with("model.layers.2."));
    refused_single(&files, &["model.safetensors", "model.layers.3.", "absent"]);
}

// ---- values

#[test]
fn values_must_be_finite() {
    for (dtype, bad) in [
        ("F32", f32::NAN.to_le_bytes().to_vec()),
        ("F32", f32::INFINITY.to_le_bytes().to_vec()),
        ("F32", f32::NEG_INFINITY.to_le_bytes().to_vec()),
        ("BF16", half::bf16::NAN.to_le_bytes().to_vec()),
        ("BF16", half::bf16::INFINITY.to_le_bytes().to_vec()),
        ("F16", half::f16::NAN.to_le_bytes().to_vec()),
        ("F16", half::f16::NEG_INFINITY.to_le_bytes().to_vec()),
        ("F8_E4M3", vec![0x7f]),
        ("F8_E4M3", vec![0xff]),
    ] {
        let names = ["model.embed_tokens.weight", UP, EXPERT, NORM, "model.layers.2.shared_head.head.weight"];
        for name in names {
            if dtype == "F8_E4M3" && !name.contains("mlp") {
                continue;
            }
            let mut files = if dtype == "F8_E4M3" { fp8_files() } else { Files::new(&tiny_config(), dtype, dtype) };
            let tensor = files.get(name);
            for element in [0, 77, tensor.bytes.len() / bad.len() - 1] {
                let before = tensor.clone();
                tensor.bytes[element * bad.len()..(element + 1) * bad.len()].copy_from_slice(&bad);
                let spoilt = tensor.clone();
                let mut files = Files::new(&tiny_config(), dtype, dtype);
                if dtype == "F8_E4M3" {
                    files = fp8_files();
                }
                *files.get(name) = spoilt;
                let text = format!("element {element} is not finite");
                refused_single(&files, &["model.safetensors", name, &text]);
                *tensor = before;
            }
        }
    }
}

#[test]
fn the_first_bad_tensor_is_reported_whatever_the_timing() {
    let mut files = bf16_files();
    for tensor in files.tensors.values_mut() {
        if tensor.dtype == "BF16" {
            tensor.bytes[..2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
        }
    }
    for _ in 0..20 {
        refused_single(&files, &["model.layers.0.self_attn.q_a_proj.weight"]);
    }
}

#[test]
fn scales_must_be_positive_and_finite() {
    let name = format!("{UP}_scale_inv");
    for bad in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut files = fp8_files();
        *files.get(&name) = RawTensor::from_f32(&[2, 2], &[1.0, 1.0, bad, 1.0]);
        refused_single(&files, &["model.safetensors", &name, "scale 2"]);
    }
    for dtype in ["F8_E8M0", "U8"] {
        let mut files = fp8_files();
        *files.get(&name) = RawTensor { dtype: dtype.to_string(), shape: vec![2, 2], bytes: vec![127, 255, 1, 1] };
        refused_single(&files, &["model.safetensors", &name, "scale 1"]);
    }
}

#[test]
fn a_cast_that_overflows_is_refused() {
    let mut files = bf16_files();
    let tensor = files.get(UP);
    tensor.bytes[10..12].copy_from_slice(&half::bf16::from_f32(1e6).to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let options = LoadOptions { weight_dtype: Some(candle_core::DType::F16), ..LoadOptions::default() };
    let line = load(dir.path(), &options, |_| {}).err().unwrap().to_string();
    assert!(line.contains(UP) && line.contains("element 5") && line.contains("F16"), "{line}");
}

// ---- the file format

#[test]
fn truncated_files_are_named() {
    let files = bf16_files();
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in [0, 1, 7, 8, 9, header - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(dir.path(), &["model.safetensors", "truncated"]);
    }
    let last = files.tensors.keys().next_back().unwrap();
    for (length, tensor) in [(header, "lm_head.weight"), (header + 1, "lm_head.weight"), (whole.len() - 1, last)] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(dir.path(), &["model.safetensors", tensor, "truncated"]);
    }
    let longer = [whole, vec![0; 3]].concat();
    fs::write(&path, longer).unwrap();
    refused(dir.path(), &["model.safetensors", "3 bytes after the last tensor"]);
}

#[test]
fn what_is_no_safetensors_file_is_named() {
    for (bytes, part) in [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(), "Git LFS pointer"),
        (u64::MAX.to_le_bytes().to_vec(), "absurd"),
        (with_header("", b""), "invalid JSON"),
        (with_header("{", b""), "invalid JSON"),
        (with_header("[]", b""), "object"),
        (with_header("\"\\ud800\"", b""), "invalid JSON"),
        (with_header(&"[".repeat(100_000), b""), "recursion"),
        ([2u64.to_le_bytes().as_slice(), &[0xff, 0xfe]].concat(), "UTF-8"),
        (with_header("{\"__metadata__\": []}", b""), "__metadata__"),
        (with_header("{\"__metadata__\": {\"a\": 1}}", b""), "__metadata__"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        bf16_files().write_single(dir.path());
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        refused(dir.path(), &["model.safetensors", part]);
    }
}

#[test]
fn header_entries_must_make_sense() {
    for (field, value, part) in [
        ("dtype", json!("F33"), "F33"),
        ("dtype", json!(32), "dtype"),
        ("dtype", Value::Null, "dtype"),
        ("shape", json!([-136]), "shape"),
        ("shape", json!("136"), "shape"),
        ("shape", json!([136.5]), "shape"),
        ("shape", json!([0]), "zero"),
        ("shape", json!([135]), "bytes"),
        ("shape", json!([u64::MAX, 2]), "overflows"),
        ("shape", json!([u64::MAX]), "overflows"),
        ("shape", json!([1, 1, 1, 1, 1, 1, 1, 1, 136]), "9 dimensions"),
        ("data_offsets", json!([0]), "data_offsets"),
        ("data_offsets", json!([0, 1, 2]), "data_offsets"),
        ("data_offsets", json!([10, 4]), "backwards"),
        ("data_offsets", json!([-4, 540]), "data_offsets"),
        ("data_offsets", json!([0, 543]), "bytes"),
        ("data_offsets", json!([0, u64::MAX]), "bytes"),
        ("data_offsets", json!([u64::MAX - 544, u64::MAX]), "truncated"),
    ] {
        refused_file(|header, _| header[NORM][field] = value.clone(), &[NORM, part]);
    }
    for field in ["dtype", "shape", "data_offsets"] {
        refused_file(|header, _| drop(header[NORM].as_object_mut().unwrap().remove(field)), &[NORM, field, "missing"]);
    }
    refused_file(|header, _| header[NORM] = json!([1, 2]), &[NORM, "not an object"]);
}

#[test]
fn tensors_must_cover_the_file_exactly() {
    let offset = |header: &Value, name: &str| header[name]["data_offsets"][0].as_u64().unwrap();
    // One tensor moved onto another's bytes.
    refused_file(
        |header, _| {
            let start = offset(header, "lm_head.weight");
            header[NORM]["data_offsets"] = json!([start, start + 544]);
        },
        &["overlaps"],
    );
    refused_file(
        |header, _| {
            let start = offset(header, NORM);
            header[NORM]["data_offsets"] = json!([start - 2, start + 542]);
        },
        &[NORM, "overlaps"],
    );
    // Bytes that belong to nobody, before and between.
    refused_file(
        |header, data| {
            for (name, entry) in header.as_object_mut().unwrap() {
                if name != "__metadata__" {
                    let offsets = [&entry["data_offsets"][0], &entry["data_offsets"][1]];
                    entry["data_offsets"] = json!(offsets.map(|offset| offset.as_u64().unwrap() + 16));
                }
            }
            data.splice(0..0, [0; 16]);
        },
        &["lm_head.weight", "16 unused bytes"],
    );
    refused_file(|header, _| drop(header.as_object_mut().unwrap().remove(UP)), &["unused bytes"]);
    refused_file(
        |header, data| {
            let start = offset(header, NORM) as usize;
            data.truncate(start + 200);
        },
        &[NORM, "truncated"],
    );
}

#[test]
fn a_name_twice_in_a_header_is_refused() {
    let files = bf16_files();
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let path = dir.path().join("model.safetensors");
    let (header, data) = split_file(&fs::read(&path).unwrap());
    let twice = header.to_string().replacen('{', &format!("{{\"{NORM}\":{},", header[NORM]), 1);
    fs::write(&path, with_header(&twice, &data)).unwrap();
    refused(dir.path(), &["model.safetensors", NORM, "duplicate"]);
}

// ---- index and shards

#[test]
fn indexes_must_be_well_formed() {
    for (text, part) in [
        ("", "invalid JSON"),
        ("[]", "weight_map"),
        ("{}", "weight_map"),
        ("{\"weight_map\": []}", "weight_map"),
        ("{\"weight_map\": {}}", "empty"),
        ("{\"weight_map\": {\"a\": 1}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"y.safetensors\"}}", "duplicate key `a`"),
        ("{\"weight_map\": {\"a\": \"../x.safetensors\"}}", "../x.safetensors"),
        ("{\"weight_map\": {\"a\": \"/etc/x.safetensors\"}}", "/etc/x.safetensors"),
        ("{\"weight_map\": {\"a\": \"b/x.safetensors\"}}", "b/x.safetensors"),
        ("{\"weight_map\": {\"a\": \"..\"}}", ".."),
        ("{\"weight_map\": {\"a\": \"\"}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"x.bin\"}}", "x.bin"),
        ("{\"weight_map\": {\"a\": \"x\\u0000.safetensors\"}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "gone.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fp8_files().write_sharded(dir.path(), 2);
        fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
        refused(dir.path(), &["model.safetensors.index.json", part]);
    }
}

#[test]
fn index_and_shards_must_agree() {
    let second = shard_name(1, 3);
    refused_shards(
        |dir, _| fs::remove_file(dir.join(&second)).unwrap(),
        &["model.safetensors.index.json", &second, "not in the directory"],
    );
    refused_shards(|_, map| drop(map.remove(NORM)), &[".safetensors", NORM, "index does not name it"]);
    refused_shards(
        |_, map| drop(map.insert("model.extra.weight".to_string(), json!(second))),
        &[&second, "model.extra.weight", "does not have it"],
    );
    let moved = |_: &Path, map: &mut serde_json::Map<String, Value>| {
        let other = if map[NORM] == json!(second) { shard_name(0, 3) } else { second.clone() };
        map.insert(NORM.to_string(), json!(other));
    };
    refused_shards(moved, &[".safetensors", NORM, "index places it in"]);
    refused_shards(
        |_, map| map.values_mut().filter(|shard| **shard == json!(second)).for_each(|s| *s = json!(shard_name(0, 3))),
        &[&shard_name(0, 3), "does not have it"],
    );
    // One shard spoilt.
    refused_shards(|dir, _| fs::write(dir.join(&second), b"").unwrap(), &[&second, "truncated"]);
    refused_shards(
        |dir, _| {
            let bytes = fs::read(dir.join(&second)).unwrap();
            fs::write(dir.join(&second), &bytes[..bytes.len() - 1]).unwrap();
        },
        &[&second, "truncated"],
    );
    // One tensor in two shards.
    refused_shards(
        |dir, map| {
            let tensor = RawTensor::new("F32", &[136], 1);
            let name = NORM.to_string();
            fs::write(dir.join("another.safetensors"), safetensors_file([(&name, &tensor)].into_iter())).unwrap();
            map.insert("model.extra.weight".to_string(), json!("another.safetensors"));
        },
        &["another.safetensors", NORM, "index places it in"],
    );
}

#[test]
fn a_tensor_missing_from_all_shards_names_the_index() {
    let mut files = fp8_files();
    files.tensors.remove(EXPERT);
    files.tensors.remove(&format!("{EXPERT}_scale_inv"));
    let dir = tempfile::tempdir().unwrap();
    files.write_sharded(dir.path(), 3);
    refused(dir.path(), &["model.safetensors.index.json", EXPERT, "missing"]);
}

#[test]
fn a_bad_value_names_its_shard() {
    let mut files = fp8_files();
    files.get(EXPERT).bytes[5] = 0x7f;
    let position = files.tensors.keys().position(|name| name == EXPERT).unwrap();
    let dir = tempfile::tempdir().unwrap();
    files.write_sharded(dir.path(), 3);
    refused(dir.path(), &[&shard_name(position % 3, 3), EXPERT, "element 5 is not finite"]);
}

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

proptest! {
    #[test]
    fn any_header_is_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in any::<u64>()) {
        let _ = parse_header(&bytes, bytes.len() as u64);
        let _ = parse_header(&bytes, len);
        let _ = parse_header(&with_header(&String::from_utf8_lossy(&bytes), &[0; 8]), len);
    }

    #[test]
    fn any_entry_is_an_answer_or_an_error(
        dtype in proptest::sample::select(vec!["F32", "BF16", "F8_E4M3", "F4", "F6_E2M3", "U8", "X"]),
        shape in proptest::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..5),
        begin in prop_oneof![0u64..40, any::<u64>()],
        end in prop_oneof![0u64..40, any::<u64>()],
        data in 0usize..40,
    ) {
        let header = json!({"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}});
        let file = with_header(&header.to_string(), &vec![0; data]);
        if let Ok(header) = parse_header(&file, file.len() as u64) {
            let entry = &header.tensors["a"];
            prop_assert_eq!(entry.end - entry.start, data);
            prop_assert_eq!(entry.end, file.len());
        }
    }

    #[test]
    fn any_index_is_an_answer_or_an_error(text in "\\PC{0,100}", name in "\\PC{0,20}") {
        let _ = parse_index(&text);
        let index = json!({"weight_map": {"a": name}}).to_string();
        if let Ok(index) = parse_index(&index) {
            prop_assert_eq!(Path::new(&index.weight_map["a"]).components().count(), 1);
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(position in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut file = safetensors_file(fp8_files().tensors.iter().take(5));
        let at = position.index(file.len());
        file[at] ^= 1 << bit;
        let _ = parse_header(&file, file.len() as u64);
    }
}
