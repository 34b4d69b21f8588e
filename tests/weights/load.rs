//! Good checkpoints of every kind load, whole and exact.

use std::sync::Mutex;

use crate::checkpoint_writer::*;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use deepseek_v32::Config;
use deepseek_v32::config::{IndexerType, ModelType};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{Checkpoint, GenerationConfig, LoadOptions, for_each_tensor, load};
use float8::F8E4M3;
use half::{bf16, f16};

fn open(files: &Files) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap_or_else(|e| panic!("{e}"));
    (dir, checkpoint)
}

fn loaded(checkpoint: &Checkpoint, options: &LoadOptions) -> VarBuilder<'static> {
    checkpoint.var_builder(options, |_| {}).unwrap_or_else(|e| panic!("{e}"))
}

/// The tensor's elements as f32, decoded here.
fn values(tensor: &RawTensor) -> Vec<f32> {
    let bytes = &tensor.bytes;
    match tensor.dtype.as_str() {
        "F32" => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        "BF16" => bytes.chunks(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        "F16" => bytes.chunks(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        "F8_E4M3" => bytes.iter().map(|b| e4m3(*b)).collect(),
        other => panic!("{other}"),
    }
}

/// OCP e4m3: bias 7, no infinity.
fn e4m3(code: u8) -> f32 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude =
        if exponent == 0 { mantissa / 8.0 * 2f32.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
    sign * magnitude
}

fn to_f32(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn get(vb: &VarBuilder, name: &str) -> Tensor {
    vb.get_unchecked(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every tensor of `files` comes out with its values, matrices in the dtype they are stored in.
fn assert_loads_exactly(files: &Files, checkpoint: &Checkpoint) {
    let vb = loaded(checkpoint, &LoadOptions::default());
    for (name, raw) in &files.tensors {
        let tensor = vb.get(raw.shape.as_slice(), name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = match raw.dtype.as_str() {
            _ if raw.shape.len() == 1 => DType::F32,
            "BF16" => DType::BF16,
            "F16" => DType::F16,
            "F8_E4M3" => DType::F8E4M3,
            _ => DType::F32,
        };
        assert_eq!(tensor.dtype(), expected, "{name}");
        if raw.dtype == "F8_E4M3" {
            let codes: Vec<u8> =
                tensor.flatten_all().unwrap().to_vec1::<F8E4M3>().unwrap().iter().map(|v| v.to_bits()).collect();
            assert_eq!(codes, raw.bytes, "{name}");
        } else {
            assert_eq!(to_f32(&tensor), values(raw), "{name}");
        }
        assert!(vb.get((3, 5, 7), name).is_err());
    }
    assert!(!vb.contains_tensor("model.layers.0.mlp.gate.weight") && vb.get(1, "nothing").is_err());
}

#[test]
fn plain_dtypes_load_exactly() {
    for dtype in ["F32", "BF16", "F16"] {
        let files = Files::new(&tiny_config(), dtype, dtype);
        let (_dir, checkpoint) = open(&files);
        assert_eq!((checkpoint.mtp_layers(), checkpoint.config()), (1, &tiny_config()));
        assert_loads_exactly(&files, &checkpoint);
    }
}

#[test]
fn dtypes_may_be_mixed() {
    let mut files = Files::new(&tiny_config(), "BF16", "F32");
    files.add("model.layers.1.self_attn.o_proj.weight", "F16", &[136, 12]);
    files.add("model.layers.1.mlp.gate.e_score_correction_bias", "BF16", &[4]);
    files.add("model.layers.0.input_layernorm.weight", "F16", &[136]);
    let (_dir, checkpoint) = open(&files);
    assert_loads_exactly(&files, &checkpoint);
}

#[test]
fn fp8_loads_as_codes_and_scales() {
    let files = fp8_files();
    let (_dir, checkpoint) = open(&files);
    assert_loads_exactly(&files, &checkpoint);
    // FP8 is allowed, not demanded.
    let mut mixed = fp8_files();
    mixed.add("model.layers.0.self_attn.o_proj.weight", "BF16", &[136, 12]);
    mixed.tensors.remove("model.layers.0.self_attn.o_proj.weight_scale_inv");
    let (_dir, checkpoint) = open(&mixed);
    assert_loads_exactly(&mixed, &checkpoint);
}

/// One tensor for each projection, in which the names of the files are views.
#[test]
fn experts_come_stacked() {
    for files in [fp8_files(), bf16_files()] {
        let (_dir, checkpoint) = open(&files);
        let vb = loaded(&checkpoint, &LoadOptions::default());
        let mut stacks = 0;
        for (name, raw) in files.tensors.iter().filter(|(name, _)| name.contains(".mlp.experts.0.")) {
            let stack_name = name.replace(".experts.0.", ".experts.");
            let stack = vb.get([&[4], raw.shape.as_slice()].concat(), &stack_name).unwrap();
            for expert in 0..4 {
                let name = name.replace(".experts.0.", &format!(".experts.{expert}."));
                let view = get(&vb, &name);
                assert_eq!(to_f32(&stack.get(expert).unwrap()), values(&files.tensors[&name]), "{name}");
                assert_eq!(view.dtype(), stack.dtype());
                let start = view.storage_and_layout().1.start_offset();
                assert_eq!(start, expert * view.elem_count(), "{name} is no view");
            }
            let beyond = name.replace(".experts.0.", ".experts.4.");
            assert!(vb.contains_tensor(name) && vb.contains_tensor(&stack_name) && !vb.contains_tensor(&beyond));
            assert!(vb.get_unchecked(&beyond).is_err());
            stacks += 1;
        }
        // Two sparse layers, one of them the MTP layer.
        let fp8 = files.tensors.keys().any(|name| name.ends_with("_scale_inv"));
        assert_eq!(stacks, if fp8 { 12 } else { 6 });
    }
}

#[test]
fn experts_of_several_dtypes_come_in_f32() {
    let mut files = fp8_files();
    let one = "model.layers.1.mlp.experts.2.up_proj.weight";
    files.add(one, "BF16", &[12, 136]);
    files.tensors.remove(&format!("{one}_scale_inv"));
    let (_dir, checkpoint) = open(&files);
    let vb = loaded(&checkpoint, &LoadOptions::default());
    let stack = get(&vb, "model.layers.1.mlp.experts.up_proj.weight");
    assert_eq!(stack.dtype(), DType::F32);
    assert!(!vb.contains_tensor("model.layers.1.mlp.experts.up_proj.weight_scale_inv"));
    for expert in 0..4 {
        let name = format!("model.layers.1.mlp.experts.{expert}.up_proj.weight");
        let mut expected = values(&files.tensors[&name]);
        if expert != 2 {
            // One row of blocks; the second is ragged.
            let scales = values(&files.tensors[&format!("{name}_scale_inv")]);
            expected.iter_mut().enumerate().for_each(|(i, value)| *value *= scales[i % 136 / 128]);
        }
        assert_eq!(to_f32(&get(&vb, &name)), expected, "{name}");
    }
    assert_eq!(get(&vb, "model.layers.1.mlp.experts.down_proj.weight").dtype(), DType::F8E4M3);
    Model::new(checkpoint.config(), vb).unwrap();
}

/// Logits of a few tokens, as bits.
fn logits(config: &Config, vb: VarBuilder) -> Vec<u32> {
    let mut model = Model::new(config, vb).unwrap();
    let ids = Tensor::new(&[[3u32, 1, 4, 1, 5, 9, 2, 6]], &Device::Cpu).unwrap();
    to_f32(&model.forward(&ids, 0).unwrap()).into_iter().map(f32::to_bits).collect()
}

/// candle's own reader has the names of the files alone.
#[test]
fn a_builder_with_the_names_of_the_files_gives_the_same_model() {
    for case in ["v32_f32", "v32_fp8", "v3_f32"].map(golden) {
        let (config, vb) = load(&case, &LoadOptions::default(), |_| {}).unwrap();
        let paths = std::fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path());
        let is_shard = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("model") && name.ends_with(".safetensors")
        };
        let shards: Vec<_> = paths.filter(is_shard).collect();
        // SAFETY: the files are not written to.
        let loose = unsafe { VarBuilder::from_mmaped_safetensors(&shards, DType::F32, &Device::Cpu).unwrap() };
        assert_eq!(logits(&config, loose), logits(&config, vb), "{}", case.display());
    }
    let case = golden("v32_f32");
    let config = Checkpoint::open(&case).unwrap().config().clone();
    let tensors = candle_core::safetensors::load(case.join("model.safetensors"), &Device::Cpu).unwrap();
    for missing in [0, 2] {
        let name = format!("model.layers.{}.mlp.experts.{missing}.up_proj.weight", config.first_k_dense_replace);
        let mut tensors = tensors.clone();
        tensors.remove(&name).unwrap();
        let error = Model::new(&config, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[test]
fn scales_may_be_exponent_bytes_or_bf16() {
    let name = "model.layers.0.mlp.gate_proj.weight_scale_inv";
    for dtype in ["F8_E8M0", "U8"] {
        let mut files = fp8_files();
        *files.get(name) = RawTensor { dtype: dtype.to_string(), shape: vec![2, 2], bytes: vec![127, 120, 0, 128] };
        let (_dir, checkpoint) = open(&files);
        let scales = get(&loaded(&checkpoint, &LoadOptions::default()), name);
        assert_eq!((scales.dtype(), scales.dims()), (DType::F32, [2, 2].as_slice()));
        assert_eq!(to_f32(&scales), [1.0, 2f32.powi(-7), 2f32.powi(-127), 2.0]);
    }
    let mut files = fp8_files();
    let bytes = [1.0, 0.5, 0.1, 3.0].into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect();
    *files.get(name) = RawTensor { dtype: "BF16".to_string(), shape: vec![2, 2], bytes };
    let (_dir, checkpoint) = open(&files);
    let scales = get(&loaded(&checkpoint, &LoadOptions::default()), name);
    assert_eq!(to_f32(&scales), [1.0, 0.5, bf16::from_f32(0.1).to_f32(), 3.0]);
}

#[test]
fn weight_dtype_multiplies_scales_in() {
    let files = fp8_files();
    let (_dir, checkpoint) = open(&files);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let vb = loaded(&checkpoint, &LoadOptions { weight_dtype: Some(dtype), ..LoadOptions::default() });
        for (name, raw) in files.tensors.iter().filter(|(_, raw)| raw.shape.len() == 2) {
            if name.ends_with("_scale_inv") {
                assert!(!vb.contains_tensor(name));
                continue;
            }
            let mut expected = values(raw);
            if raw.dtype == "F8_E4M3" {
                let scales = &files.tensors[&format!("{name}_scale_inv")];
                let (columns, scale_columns, scales) = (raw.shape[1], scales.shape[1], values(scales));
                for (i, value) in expected.iter_mut().enumerate() {
                    *value *= scales[i / columns / 128 * scale_columns + i % columns / 128];
                }
            }
            let tensor = get(&vb, name);
            assert_eq!(tensor.dtype(), dtype, "{name}");
            let rounded = Tensor::new(expected, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            assert_eq!(to_f32(&tensor), to_f32(&rounded), "{name}");
        }
    }
}

#[test]
fn vectors_come_in_the_dtype_asked_for_but_not_the_selection_bias() {
    let files = Files::new(&tiny_config(), "BF16", "BF16");
    let (_dir, checkpoint) = open(&files);
    let vb = loaded(&checkpoint, &LoadOptions { dtype: DType::BF16, ..LoadOptions::default() });
    assert_eq!(get(&vb, "model.norm.weight").dtype(), DType::BF16);
    assert_eq!(vb.get_unchecked_dtype("model.norm.weight", DType::F32).unwrap().dtype(), DType::F32);
    assert_eq!(get(&vb, "model.layers.1.mlp.gate.e_score_correction_bias").dtype(), DType::F32);
    assert!(checkpoint.var_builder(&LoadOptions { dtype: DType::U8, ..LoadOptions::default() }, |_| {}).is_err());
    let fp8 = LoadOptions { weight_dtype: Some(DType::F8E4M3), ..LoadOptions::default() };
    assert!(checkpoint.var_builder(&fp8, |_| {}).is_err());
}

#[test]
fn weights_and_scales_may_be_in_different_shards() {
    for count in [1, 2, 3, 7] {
        let files = fp8_files();
        let dir = tempfile::tempdir().unwrap();
        files.write_sharded(dir.path(), count);
        assert_loads_exactly(&files, &Checkpoint::open(dir.path()).unwrap());
    }
}

#[cfg(unix)]
#[test]
fn files_may_be_links() {
    let files = Files::new(&tiny_config(), "BF16", "F32");
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    files.write_sharded(store.path(), 2);
    for entry in std::fs::read_dir(store.path()).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    assert_loads_exactly(&files, &Checkpoint::open(dir.path()).unwrap());
}

#[test]
fn one_file_is_preferred_to_an_index() {
    let files = Files::new(&tiny_config(), "BF16", "F32");
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    std::fs::write(dir.path().join("model.safetensors.index.json"), "{}").unwrap();
    // Neither is any other file taken for a shard.
    std::fs::write(dir.path().join("consolidated.safetensors"), "").unwrap();
    assert_loads_exactly(&files, &Checkpoint::open(dir.path()).unwrap());
}

#[test]
fn mtp_layers_are_optional() {
    let complete = Files::new(&tiny_config(), "BF16", "F32");
    let mut absent = complete.clone();
    absent.tensors.retain(|name, _| !name.starts_with("model.layers.2."));
    let (_dir, checkpoint) = open(&absent);
    assert_eq!(checkpoint.mtp_layers(), 0);
    assert!(!loaded(&checkpoint, &LoadOptions::default()).contains_tensor("model.layers.2.eh_proj.weight"));

    let mut without_copies = complete.clone();
    without_copies
        .tensors
        .retain(|name, _| !name.starts_with("model.layers.2.embed") && !name.contains("shared_head.head"));
    let (_dir, checkpoint) = open(&without_copies);
    let vb = loaded(&checkpoint, &LoadOptions::default());
    assert_eq!(checkpoint.mtp_layers(), 1);
    for (copy, original) in [
        ("model.layers.2.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.layers.2.shared_head.head.weight", "lm_head.weight"),
    ] {
        assert_eq!(to_f32(&get(&vb, copy)), to_f32(&get(&vb, original)));
    }

    let mut own_embedding = complete;
    own_embedding.add("model.layers.2.embed_tokens.weight", "BF16", &[40, 136]);
    let (_dir, checkpoint) = open(&own_embedding);
    assert_loads_exactly(&own_embedding, &checkpoint);

    let two = Config { num_nextn_predict_layers: 2, ..tiny_config() };
    let mut files = Files::new(&two, "F32", "F32");
    let (_dir, checkpoint) = open(&files);
    assert_eq!(checkpoint.mtp_layers(), 2);
    files.tensors.retain(|name, _| !name.starts_with("model.layers.3."));
    let (_dir, checkpoint) = open(&files);
    assert_eq!(checkpoint.mtp_layers(), 1);
}

#[test]
fn tied_heads_are_the_embedding() {
    let config = Config { tie_word_embeddings: true, ..tiny_config() };
    let mut files = Files::new(&config, "BF16", "F32");
    assert!(!files.tensors.contains_key("lm_head.weight"));
    for shipped in [false, true] {
        if shipped {
            let embedding = files.get("model.embed_tokens.weight").clone();
            files.tensors.insert("lm_head.weight".to_string(), embedding);
        }
        let (_dir, checkpoint) = open(&files);
        let vb = loaded(&checkpoint, &LoadOptions::default());
        let embedding = to_f32(&get(&vb, "model.embed_tokens.weight"));
        assert_eq!(to_f32(&get(&vb, "lm_head.weight")), embedding);
        assert_eq!(to_f32(&get(&vb, "model.layers.2.shared_head.head.weight")), embedding);
    }
}

#[test]
fn other_families_and_shapes_load() {
    let v3 = tiny_v3_config();
    for config in [
        v3.clone(),
        Config { q_lora_rank: None, ..v3.clone() },
        Config { n_group: 1, topk_group: 1, model_type: ModelType::KimiK2, ..v3.clone() },
        Config { n_shared_experts: 3, num_nextn_predict_layers: 1, ..v3.clone() },
        Config { model_type: ModelType::GlmMoeDsa, ..tiny_config() },
    ] {
        let files = Files::new(&config, "BF16", "F32");
        let (_dir, checkpoint) = open(&files);
        assert_loads_exactly(&files, &checkpoint);
        // The list of names agrees with the test's own.
        let mut names = Vec::new();
        for_each_tensor(&config, |name, shape, _| {
            assert_eq!(files.tensors[&name].shape, shape);
            names.push(name);
            Ok::<_, ()>(())
        })
        .unwrap();
        let copies = 2 * config.num_nextn_predict_layers;
        assert_eq!(names.len() + copies, files.tensors.len());
    }
}

#[test]
fn released_checkpoints_have_as_many_tensors_as_we_ask_for() {
    let count = |config: &Config| {
        let (mut tensors, mut scales, mut parameters) = (0u64, 0u64, 0u64);
        for_each_tensor(config, |_, shape, kind| {
            tensors += 1;
            scales += u64::from(kind == deepseek_v32::weights::TensorKind::Linear);
            parameters += shape.iter().map(|dim| *dim as u64).product::<u64>();
            Ok::<_, ()>(())
        })
        .unwrap();
        (tensors + scales, parameters)
    };
    // The release has 92,425 tensors and 685,396,921,376 parameters: ours, the scales and two copies of the MTP layer.
    let config = Config::v32();
    let (tensors, parameters) = count(&config);
    assert_eq!(tensors + 2, 92_425);
    let copies = 2 * (config.vocab_size * config.hidden_size) as u64;
    assert!(parameters + copies <= 685_396_921_376 && parameters + copies > 685_300_000_000, "{parameters}");
}

#[test]
fn shared_layers_may_ship_an_indexer() {
    let config = Config {
        model_type: ModelType::GlmMoeDsa,
        indexer_types: vec![IndexerType::Full, IndexerType::Shared],
        ..tiny_config()
    };
    let without = Files::new(&config, "BF16", "F32");
    let full = Files::new(&Config { indexer_types: vec![IndexerType::Full; 2], ..config.clone() }, "BF16", "F32");
    let (_dir, checkpoint) = open(&without);
    assert_loads_exactly(&without, &checkpoint);
    let with = Files { config: without.config.clone(), ..full };
    let (_dir, checkpoint) = open(&with);
    let vb = loaded(&checkpoint, &LoadOptions::default());
    assert!(vb.contains_tensor("model.layers.0.self_attn.indexer.wk.weight"));
    assert!(!vb.contains_tensor("model.layers.1.self_attn.indexer.wk.weight"));
}

#[test]
fn frequency_tables_are_ignored() {
    let mut files = Files::new(&tiny_config(), "BF16", "F32");
    files.add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", &[2]);
    let (_dir, checkpoint) = open(&files);
    assert!(
        !loaded(&checkpoint, &LoadOptions::default()).contains_tensor("model.layers.0.self_attn.rotary_emb.inv_freq")
    );
}

#[test]
fn progress_only_grows() {
    let files = fp8_files();
    let (_dir, checkpoint) = open(&files);
    let seen = Mutex::new(Vec::new());
    checkpoint
        .var_builder(&LoadOptions::default(), |p| {
            seen.lock().unwrap().push((
                p.tensors_done,
                p.tensors_total,
                p.bytes_done,
                p.bytes_total,
                p.name.to_string(),
            ));
        })
        .unwrap();
    let seen = seen.into_inner().unwrap();
    let weights = files.tensors.keys().filter(|name| !name.ends_with("_scale_inv")).count();
    let bytes: usize = files.tensors.values().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!(seen.len(), weights);
    for (i, (done, total, bytes_done, bytes_total, name)) in seen.iter().enumerate() {
        assert_eq!((*done, *total, *bytes_total), (i + 1, weights, bytes as u64));
        assert!(i == 0 || *bytes_done > seen[i - 1].2);
        assert!(files.tensors.contains_key(name));
    }
    assert_eq!(seen.last().unwrap().2, bytes as u64);
}

#[test]
fn golden_and_embedded_checkpoints_load() {
    for case in ["v32_f32", "v32_fp8", "v3_f32", "v32_mtp_train", "glm_dsa_f32"] {
        let (config, vb) = load(golden(case), &LoadOptions::default(), |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let mtp = format!("model.layers.{}.eh_proj.weight", config.num_hidden_layers);
        assert_eq!(vb.contains_tensor(&mtp), config.num_nextn_predict_layers > 0, "{case}");
    }
    let (config, vb) = load(tiny_v32(), &LoadOptions::default(), |_| {}).unwrap();
    assert_eq!(vb.get((config.vocab_size, config.hidden_size), "lm_head.weight").unwrap().dtype(), DType::BF16);
    let generation = GenerationConfig::load(tiny_v32()).unwrap().unwrap();
    assert_eq!((generation.eos_token_id.as_slice(), generation.do_sample), ([1].as_slice(), Some(false)));
}

#[test]
fn generation_configs_are_optional_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(GenerationConfig::load(dir.path()).unwrap(), None);
    let text = r#"{"eos_token_id": [1, 2], "temperature": 0.6, "top_p": 0.95, "do_sample": true, "top_k": 50, "x": 1}"#;
    std::fs::write(dir.path().join(GenerationConfig::FILE), text).unwrap();
    // Whether its tokens exist is for `config.json` to say.
    assert!(GenerationConfig::load(dir.path()).unwrap_err().to_string().contains("config.json"));
    bf16_files().write_config(dir.path());
    let config = GenerationConfig::load(dir.path()).unwrap().unwrap();
    assert_eq!((config.eos_token_id, config.temperature, config.top_p), (vec![1, 2], Some(0.6), Some(0.95)));
    assert_eq!((config.do_sample, config.top_k, config.bos_token_id), (Some(true), Some(50), None));
    assert_eq!(GenerationConfig::from_json("{\"eos_token_id\": 7}").unwrap().eos_token_id, [7]);
    let text = r#"{"min_p": 0.1, "repetition_penalty": 1.05, "max_new_tokens": 9}"#;
    let config = GenerationConfig::from_json(text).unwrap();
    assert_eq!((config.min_p, config.repetition_penalty, config.max_new_tokens), (Some(0.1), Some(1.05), Some(9)));
    let neutral = r#"{"num_beams": 1, "min_length": 0, "suppress_tokens": [], "typical_p": 1.0, "stop_strings": null}"#;
    assert!(GenerationConfig::from_json(neutral).unwrap().not_applied.is_empty());
    let text =
        r#"{"suppress_tokens": [3], "cache_implementation": "static", "num_beams": 4, "sequence_bias": {"a": 1}}"#;
    assert_eq!(
        GenerationConfig::from_json(text).unwrap().not_applied,
        ["suppress_tokens", "num_beams", "sequence_bias"]
    );
    for (key, wrong) in [
        ("min_p", "1.5"),
        ("repetition_penalty", "0"),
        ("max_new_tokens", "0"),
        ("max_new_tokens", "2.5"),
        ("temperature", "-1"),
        ("top_p", "0"),
        ("top_p", "1.5"),
        ("do_sample", "1"),
        ("top_k", "-1"),
        ("eos_token_id", "\"x\""),
        ("eos_token_id", "[-1]"),
        ("bos_token_id", "4294967296"),
    ] {
        let error = GenerationConfig::from_json(&format!("{{\"{key}\": {wrong}}}")).unwrap_err();
        assert_eq!(error.key, key);
    }
    for (key, ids) in [("eos_token_id", "40"), ("eos_token_id", "[1, 41]"), ("bos_token_id", "40")] {
        std::fs::write(dir.path().join(GenerationConfig::FILE), format!("{{\"{key}\": {ids}}}")).unwrap();
        let error = GenerationConfig::load(dir.path()).unwrap_err().to_string();
        for part in ["generation_config.json", key, "not below vocab_size 40"] {
            assert!(error.contains(part), "{error}");
        }
    }
    std::fs::write(dir.path().join(GenerationConfig::FILE), "[").unwrap();
    assert!(GenerationConfig::load(dir.path()).unwrap_err().to_string().contains("generation_config.json"));
}
