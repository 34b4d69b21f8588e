//! Tensors that are missing, unknown, or of a wrong shape, dtype or value.

use super::*;

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
fn a_bad_value_names_its_shard() {
    let mut files = fp8_files();
    files.get(EXPERT).bytes[5] = 0x7f;
    let position = files.tensors.keys().position(|name| name == EXPERT).unwrap();
    let dir = tempfile::tempdir().unwrap();
    files.write_sharded(dir.path(), 3);
    refused(dir.path(), &[&shard_name(position % 3, 3), EXPERT, "element 5 is not finite"]);
}
