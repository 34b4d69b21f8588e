//! Malformed checkpoints through the `parity` and `generate` programs: each ends with status 1 and one line that names
//! the file and the tensor.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::checkpoint_writer::*;
use crate::examples_support::{example, fails, parity, succeeds};
use crate::malformed_support::*;
use deepseek_v32::chat_model::LocalChat;
use deepseek_v32::config::{Config, IndexerType, ModelType};
use deepseek_v32::model::Precision;
use serde_json::{Map, Value, json};

#[test]
fn the_unchanged_checkpoints_run() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.safetensors");
    let tied = Files::new(&Config { tie_word_embeddings: true, ..tiny_config() }, "BF16", "F32");
    let direct = Files::new(&Config { q_lora_rank: None, ..tiny_v3_config() }, "F16", "BF16");
    for (files, shards) in [(bf16_files(), 1), (fp8_files(), 1), (fp8_files(), 3), (tied, 2), (direct, 1)] {
        let dir = spoilt(&files, shards, |_| ());
        succeeds(&mut parity(dir.path(), &["--tokens", "2,3,4,5,6,7"], &out, &["--selected", "--greedy", "2"]));
        succeeds(&mut generate(dir.path()));
    }
}

// ---- files

#[test]
fn files_that_are_missing_or_no_files() {
    for file in [CONFIG, WEIGHTS] {
        refused(spoilt(&bf16_files(), 1, |dir| fs::remove_file(dir.join(file)).unwrap()).path(), &[file]);
        let folder = spoilt(&bf16_files(), 1, |dir| {
            fs::remove_file(dir.join(file)).unwrap();
            fs::create_dir(dir.join(file)).unwrap();
        });
        refused(folder.path(), &[file, "not a file"]);
        let circle = spoilt(&bf16_files(), 1, |dir| {
            fs::remove_file(dir.join(file)).unwrap();
            symlink(dir.join(file), dir.join(file)).unwrap();
        });
        refused(circle.path(), &[circle.path().join(file).to_str().unwrap(), "symbolic links"]);
        let dangling = spoilt(&bf16_files(), 1, |dir| {
            fs::remove_file(dir.join(file)).unwrap();
            symlink(dir.join("nowhere"), dir.join(file)).unwrap();
        });
        refused(dangling.path(), &[dangling.path().join(file).to_str().unwrap(), "No such file"]);
    }
    let name = "generation_config.json";
    let dangling = spoilt(&bf16_files(), 1, |dir| symlink(dir.join("nowhere"), dir.join(name)).unwrap());
    fails(example("generate").arg("--model").arg(dangling.path()), 1, &[name, "No such file"]);
    let empty = tempfile::tempdir().unwrap();
    refused(empty.path(), &[empty.path().to_str().unwrap()]);
    refused(&empty.path().join("nowhere"), &["nowhere", "no such folder"]);
    let file = empty.path().join("file");
    fs::write(&file, "{}").unwrap();
    refused(&file, &[file.to_str().unwrap()]);
}

/// Every program says the same of what is no checkpoint, before it misses a tokenizer.
#[test]
fn other_kinds_of_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model-Q4_K_M.gguf");
    fs::write(&file, [b"GGUF\x03\0\0\0".as_slice(), &[0; 40]].concat()).unwrap();
    for path in [file.as_path(), dir.path()] {
        let parts = ["model-Q4_K_M.gguf", "a GGUF file, which is not supported"];
        refused(path, &parts);
        for (name, args) in [("tool_calling", &["--prompt", "Hi"][..]), ("chat", &[])] {
            fails(example(name).arg("--model").arg(path).args(args), 1, &parts);
        }
        let loaded = LocalChat::load(path, &Default::default(), Precision::Dequant, Default::default(), |_| ());
        assert!(loaded.unwrap_err().to_string().contains(parts[1]));
    }
}

#[test]
fn files_that_are_no_safetensors() {
    let files = bf16_files();
    let whole = safetensors_file(files.tensors.iter());
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let long_header = [&(whole.len() as u64).to_le_bytes(), &whole[8..]].concat();
    for (bytes, part) in [
        (vec![], "truncated"),
        (vec![1, 2, 3], "truncated"),
        (whole[..8].to_vec(), "truncated"),
        (whole[..header - 1].to_vec(), "truncated"),
        (whole[..header].to_vec(), "lm_head.weight"),
        (whole[..whole.len() - 1].to_vec(), NORM),
        ([whole.as_slice(), &[0; 3]].concat(), "3 bytes after the last tensor"),
        (long_header, "truncated"),
        (u64::MAX.to_le_bytes().repeat(4), "absurd"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(), "Git LFS pointer"),
        (with_header("", b""), "invalid JSON"),
        (with_header("not JSON", b""), "invalid JSON"),
        (with_header("[]", b""), "object"),
        (with_header("{}", b""), "model.embed_tokens.weight"),
        (with_header("{\"__metadata__\": {\"a\": 1}}", b""), "__metadata__"),
        (with_header(&"{\"a\":".repeat(50_000), b""), "recursion"),
        ([2u64.to_le_bytes().as_slice(), &[0xff, 0xfe]].concat(), "UTF-8"),
    ] {
        let dir = spoilt(&files, 1, |dir| fs::write(dir.join(WEIGHTS), bytes).unwrap());
        refused(dir.path(), &[WEIGHTS, part]);
    }
}

#[test]
fn header_entries_that_cannot_be() {
    for (field, value, part) in [
        ("dtype", json!("F33"), "F33"),
        ("dtype", json!(32), "dtype"),
        ("shape", json!([-136]), "shape"),
        ("shape", json!([0]), "zero"),
        ("shape", json!([135]), "bytes"),
        ("shape", json!([u64::MAX, 2]), "overflows"),
        ("data_offsets", json!([0]), "data_offsets"),
        ("data_offsets", json!([10, 4]), "backwards"),
        ("data_offsets", json!([u64::MAX - 544, u64::MAX]), "truncated"),
        ("data_offsets", Value::Null, "data_offsets"),
    ] {
        refused_header(|header, _| header[NORM][field] = value, &[NORM, part]);
    }
    let start = |header: &Value, name: &str| header[name]["data_offsets"][0].as_u64().unwrap();
    let overlap = |header: &mut Value, _: &mut Vec<u8>| {
        let start = start(header, NORM);
        header[NORM]["data_offsets"] = json!([start - 2, start + 542]);
    };
    refused_header(overlap, &[NORM, "overlaps"]);
    refused_header(|header, _| drop(header.as_object_mut().unwrap().remove(UP)), &["unused bytes"]);
    refused_header(|header, _| header[NORM] = json!([1, 2]), &[NORM, "not an object"]);
    let twice = spoilt(&bf16_files(), 1, |dir| {
        let (header, data) = split_file(&fs::read(dir.join(WEIGHTS)).unwrap());
        let twice = header.to_string().replacen('{', &format!("{{\"{NORM}\":{},", header[NORM]), 1);
        fs::write(dir.join(WEIGHTS), with_header(&twice, &data)).unwrap();
    });
    refused(twice.path(), &[WEIGHTS, NORM, "duplicate"]);
}

// ---- index and shards

#[test]
fn indexes_that_cannot_be() {
    for (text, part) in [
        ("", "invalid JSON"),
        ("[]", "weight_map"),
        ("{}", "weight_map"),
        ("{\"weight_map\": []}", "weight_map"),
        ("{\"weight_map\": {}}", "weight_map"),
        ("{\"weight_map\": {\"a\": 1}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"y.safetensors\"}}", "duplicate key `a`"),
        ("{\"weight_map\": {\"a\": \"../x.safetensors\"}}", "../x.safetensors"),
        ("{\"weight_map\": {\"a\": \"/etc/x.safetensors\"}}", "/etc/x.safetensors"),
        ("{\"weight_map\": {\"a\": \"x.bin\"}}", "x.bin"),
        ("{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "gone.safetensors"),
    ] {
        let dir = spoilt(&fp8_files(), 3, |dir| fs::write(dir.join(INDEX), text).unwrap());
        refused(dir.path(), &[INDEX, part]);
    }
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let second = shard_name(1, 3);
    refused_shards(|dir, _| fs::remove_file(dir.join(&second)).unwrap(), &[INDEX, &second]);
    refused_shards(|dir, _| fs::write(dir.join(&second), b"").unwrap(), &[&second, "truncated"]);
    let folder = |dir: &Path, _: &mut Map<String, Value>| {
        fs::remove_file(dir.join(&second)).unwrap();
        fs::create_dir(dir.join(&second)).unwrap();
    };
    refused_shards(folder, &[&second, "not a file"]);
    let swapped = |dir: &Path, _: &mut Map<String, Value>| {
        let (first, third) = (dir.join(shard_name(0, 3)), dir.join(shard_name(2, 3)));
        fs::rename(&first, dir.join("aside")).unwrap();
        fs::rename(&third, &first).unwrap();
        fs::rename(dir.join("aside"), third).unwrap();
    };
    refused_shards(swapped, &[&shard_name(0, 3), "index places it in"]);
    refused_shards(|_, map| drop(map.remove(NORM)), &[NORM, "index does not name it"]);
    refused_shards(
        |_, map| drop(map.insert("model.extra.weight".to_string(), json!(second))),
        &[&second, "model.extra.weight", "does not have it"],
    );
    let moved = |_: &Path, map: &mut Map<String, Value>| {
        let other = if map[NORM] == json!(second) { shard_name(0, 3) } else { second.clone() };
        map.insert(NORM.to_string(), json!(other));
    };
    refused_shards(moved, &[".safetensors", NORM, "index places it in"]);
    let twice = |dir: &Path, map: &mut Map<String, Value>| {
        let tensor = RawTensor::new("BF16", &[136], 1);
        let name = NORM.to_string();
        fs::write(dir.join("z.safetensors"), safetensors_file([(&name, &tensor)].into_iter())).unwrap();
        map.insert("model.extra.weight".to_string(), json!("z.safetensors"));
    };
    refused_shards(twice, &["z.safetensors", NORM, "index places it in"]);
    let mut files = fp8_files();
    files.tensors.remove(&format!("{UP}_scale_inv"));
    refused(spoilt(&files, 3, |_| ()).path(), &[".safetensors", UP, "_scale_inv", "missing"]);
    let mut files = bf16_files();
    files.tensors.remove(EXPERT);
    refused(spoilt(&files, 3, |_| ()).path(), &[INDEX, EXPERT, "missing"]);
}

// ---- tensors

#[test]
fn tensors_that_are_missing_or_too_many() {
    for name in [
        "model.embed_tokens.weight",
        "lm_head.weight",
        NORM,
        UP,
        EXPERT,
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.e_score_correction_bias",
        "model.layers.0.self_attn.kv_a_layernorm.weight",
        "model.layers.0.self_attn.indexer.weights_proj.weight",
        "model.layers.0.self_attn.indexer.k_norm.bias",
        "model.layers.2.eh_proj.weight",
        "model.layers.2.mlp.experts.0.up_proj.weight",
    ] {
        refused_tensors(|files| drop(files.tensors.remove(name)), &[name, "missing"]);
    }
    for name in [
        "extra",
        "model.layers.0.self_attn.o_proj.bias",
        "model.layers.0.mlp.gate.weight",
        "model.layers.1.mlp.experts.4.up_proj.weight",
        "model.layers.3.input_layernorm.weight",
        "model.layers.01.input_layernorm.weight",
    ] {
        refused_tensors(|files| files.add(name, "F32", &[4]), &[name, "unexpected"]);
    }
    // Half an MTP layer.
    let half = |files: &mut Files| files.tensors.retain(|name, _| !name.contains("layers.2.mlp"));
    refused_tensors(half, &["model.layers.2.mlp", "missing"]);
    // A layer that shares its selection has an indexer's tensors, and one that is none of them.
    let config = Config {
        model_type: ModelType::GlmMoeDsa,
        indexer_types: vec![IndexerType::Full, IndexerType::Shared],
        ..tiny_config()
    };
    let mut files = Files::new(&config, "BF16", "F32");
    files.add("model.layers.1.self_attn.indexer.wv.weight", "F32", &[4]);
    refused_single(&files, &[WEIGHTS, "model.layers.1.self_attn.indexer.wv.weight", "unexpected"]);
}

#[test]
fn tensors_of_another_shape_or_dtype() {
    for (name, shape) in [
        ("model.embed_tokens.weight", vec![39, 136]),
        ("lm_head.weight", vec![136, 40]),
        (NORM, vec![1, 136]),
        (UP, vec![130 * 136]),
        ("model.layers.1.mlp.gate.e_score_correction_bias", vec![5]),
        ("model.layers.2.eh_proj.weight", vec![136, 136]),
    ] {
        refused_tensors(|files| files.add(name, "F32", &shape), &[name, "shape", &format!("{shape:?}")]);
    }
    for dtype in ["F64", "I64", "U8", "BOOL", "F8_E5M2"] {
        for name in [NORM, UP] {
            let change = |files: &mut Files| {
                let shape = files.get(name).shape.clone();
                files.add(name, dtype, &shape);
            };
            refused_tensors(change, &[name, dtype]);
        }
    }
    refused_fp8(
        |files| drop(files.config.as_object_mut().unwrap().remove("quantization_config")),
        &["F8_E4M3", "quantization_config"],
    );
    let scale = format!("{UP}_scale_inv");
    refused_fp8(|files| drop(files.tensors.remove(&scale)), &[UP, &scale, "missing"]);
    refused_fp8(|files| files.add(&scale, "F32", &[2, 1]), &[&scale, "shape", "[2, 2]"]);
    refused_fp8(|files| files.add(&scale, "I32", &[2, 2]), &[&scale, "I32"]);
    refused_fp8(|files| files.add(UP, "BF16", &[130, 136]), &[&scale, "BF16"]);
    refused_fp8(|files| files.add("lm_head.weight", "F8_E4M3", &[40, 136]), &["lm_head.weight", "F8_E4M3"]);
}

#[test]
fn tensors_with_values_that_cannot_be() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for name in [NORM, "model.embed_tokens.weight", "model.layers.1.mlp.gate.e_score_correction_bias"] {
            refused_tensors(|files| set_f32(files, name, 2, value), &[name, "element 2 is not finite"]);
        }
    }
    let bf16_nan = |files: &mut Files| files.get(UP).bytes[4..6].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    refused_tensors(bf16_nan, &[UP, "element 2 is not finite"]);
    for code in [0x7f, 0xff] {
        refused_fp8(|files| files.get(EXPERT).bytes[5] = code, &[EXPERT, "element 5 is not finite"]);
    }
    let scale = format!("{UP}_scale_inv");
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX] {
        let scales = RawTensor::from_f32(&[2, 2], &[1.0, 1.0, value, 1.0]);
        refused_fp8(|files| *files.get(&scale) = scales, &[&scale, "scale 2"]);
    }
    let different = |files: &mut Files| {
        files.config["tie_word_embeddings"] = json!(true);
    };
    refused_tensors(different, &["lm_head.weight", "differs", "tie_word_embeddings"]);
}

/// What can be loaded but not computed.
#[test]
fn weights_that_overflow() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.safetensors");
    let tokens = ["--tokens", "2,3,4,5,6,7"];
    let mut files = bf16_files();
    let name = "model.layers.0.post_attention_layernorm.weight";
    (0..136).for_each(|element| set_f32(&mut files, name, element, 6e4));
    let half = spoilt(&files, 1, |_| ());
    let folder = half.path().to_str().unwrap();
    let parts = [folder, "model.layers.0: ", "f16"];
    for mut command in [parity(half.path(), &tokens, &out, &[]), generate(half.path())] {
        succeeds(&mut command);
        fails(command.args(["--dtype", "f16"]).env("RUST_BACKTRACE", "1"), 1, &parts);
    }
    for (name, part) in [
        (name, "model.layers.0: "),
        ("model.layers.1.post_attention_layernorm.weight", "model.layers.1: "),
        ("model.layers.1.input_layernorm.weight", "model.layers.1: "),
        (NORM, "model.norm: "),
    ] {
        let mut files = bf16_files();
        (0..136).for_each(|element| set_f32(&mut files, name, element, 3e38));
        let dir = spoilt(&files, 1, |_| ());
        refused(dir.path(), &[dir.path().to_str().unwrap(), part]);
    }
    let name = "model.layers.2.input_layernorm.weight";
    let mut files = bf16_files();
    (0..136).for_each(|element| set_f32(&mut files, name, element, 3e38));
    let dir = spoilt(&files, 1, |_| ());
    let parts = [dir.path().to_str().unwrap(), "model.layers.2: "];
    succeeds(&mut parity(dir.path(), &tokens, &out, &[]));
    fails(&mut parity(dir.path(), &tokens, &out, &["--mtp"]), 1, &parts);
    let mut command = example("generate");
    fails(command.args(["--mtp", "-n", "9", "--prompt", "hello", "--model"]).arg(dir.path()), 1, &parts);
}

// ---- what only `generate` reads

#[test]
fn tokenizers_and_generation_configs() {
    let with = |file: &str, text: &[u8]| spoilt(&bf16_files(), 1, |dir| fs::write(dir.join(file), text).unwrap());
    let tokenizer = "tokenizer.json";
    let missing = spoilt(&bf16_files(), 1, |dir| fs::remove_file(dir.join(tokenizer)).unwrap());
    fails(&mut generate(missing.path()), 1, &[tokenizer]);
    for text in [&b""[..], b"{}", b"[]", b"garbage", b"\xff\xfe", b"{\"model\": {}}", b"{\"model\": {\"type\": \"X\"}}"]
    {
        fails(&mut generate(with(tokenizer, text).path()), 1, &[tokenizer]);
    }
    let folder = spoilt(&bf16_files(), 1, |dir| {
        fs::remove_file(dir.join(tokenizer)).unwrap();
        fs::create_dir(dir.join(tokenizer)).unwrap();
    });
    fails(&mut generate(folder.path()), 1, &[tokenizer, "not a file"]);
    let larger = spoilt(&bf16_files(), 1, |dir| {
        let text = fs::read_to_string(dir.join(tokenizer)).unwrap();
        fs::write(dir.join(tokenizer), text.replace("\"z\":27", "\"z\":40")).unwrap();
    });
    fails(&mut generate(larger.path()), 1, &[tokenizer, "41", "40"]);
    let file = "generation_config.json";
    for (text, part) in [
        (&b""[..], "invalid JSON"),
        (b"garbage", "invalid JSON"),
        (b"[]", "object"),
        (b"\xff", "UTF-8"),
        (b"{\"temperature\": -1}", "`temperature`"),
        (b"{\"temperature\": \"hot\"}", "`temperature`"),
        (b"{\"top_p\": 2}", "`top_p`"),
        (b"{\"top_k\": -1}", "`top_k`"),
        (b"{\"do_sample\": 1}", "`do_sample`"),
        (b"{\"eos_token_id\": \"end\"}", "`eos_token_id`"),
        (b"{\"eos_token_id\": 40}", "eos_token_id"),
        (b"{\"top_p\": 0.5, \"top_p\": 0.6}", "duplicate key `top_p`"),
    ] {
        fails(&mut generate(with(file, text).path()), 1, &[file, part]);
    }
    // `parity` needs neither.
    let dir = with(file, b"garbage");
    fs::remove_file(dir.path().join(tokenizer)).unwrap();
    let out = tempfile::tempdir().unwrap();
    succeeds(&mut parity(dir.path(), &["--tokens", "2,3"], &out.path().join("out"), &[]));
}
