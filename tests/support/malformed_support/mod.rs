//! Malformed checkpoints, and what `parity` and `generate` must say of them.
#![allow(dead_code)] // Each test binary uses a part.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::checkpoint_writer::*;
use crate::examples_support::{example, fails, parity};

pub const CONFIG: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";

pub fn generate(dir: &Path) -> Command {
    let mut command = example("generate");
    command.args(["-n", "2", "--prompt", "hello", "--model"]).arg(dir);
    command
}

/// Both programs refuse `dir` with a line that has `parts`, and write nothing.
pub fn refused(dir: &Path, parts: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.safetensors");
    let options = ["--hidden", "--selected", "--greedy", "2"];
    for mut command in [parity(dir, &["--tokens", "2,3,4,5,6,7"], &out, &options), generate(dir)] {
        let line = fails(&mut command, 1, parts);
        assert!(line.starts_with("error: ") && !line.contains("panicked"), "{line}");
    }
    assert!(!out.exists());
}

/// A folder with a good checkpoint and its tokenizer, for `change` to spoil.
pub fn spoilt(files: &Files, shards: usize, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    match shards {
        1 => files.write_single(dir.path()),
        count => files.write_sharded(dir.path(), count),
    }
    write_tokenizer(dir.path());
    change(dir.path());
    dir
}

pub fn refused_single(files: &Files, parts: &[&str]) {
    refused(spoilt(files, 1, |_| ()).path(), parts);
}

/// The bf16 checkpoint, whose tensors `change` spoils.
pub fn refused_tensors(change: impl FnOnce(&mut Files), parts: &[&str]) {
    let mut files = bf16_files();
    change(&mut files);
    refused_single(&files, &[&[WEIGHTS], parts].concat());
}

/// The FP8 checkpoint, whose tensors `change` spoils.
pub fn refused_fp8(change: impl FnOnce(&mut Files), parts: &[&str]) {
    let mut files = fp8_files();
    change(&mut files);
    refused_single(&files, &[&[WEIGHTS], parts].concat());
}

/// The bf16 checkpoint, whose `config.json` has these values; null stands for null, the string "absent" for no key.
pub fn refused_config(changes: Value, parts: &[&str]) {
    let mut files = bf16_files();
    let config = files.config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::String(absent) if absent == "absent" => drop(config.remove(key)),
            value => drop(config.insert(key.clone(), value.clone())),
        }
    }
    refused_single(&files, &[&[CONFIG], parts].concat());
}

/// The bf16 checkpoint with this text as `config.json`.
pub fn refused_config_text(text: impl AsRef<[u8]>, parts: &[&str]) {
    let dir = spoilt(&bf16_files(), 1, |dir| fs::write(dir.join(CONFIG), text).unwrap());
    refused(dir.path(), &[&[CONFIG], parts].concat());
}

/// The bf16 checkpoint, whose file's header or data `change` spoils.
pub fn refused_header(change: impl FnOnce(&mut Value, &mut Vec<u8>), parts: &[&str]) {
    let dir = spoilt(&bf16_files(), 1, |dir| spoil_file(&dir.join(WEIGHTS), change));
    refused(dir.path(), &[&[WEIGHTS], parts].concat());
}

/// The FP8 checkpoint in three shards, which `change` spoils with their index.
pub fn refused_shards(change: impl FnOnce(&Path, &mut Map<String, Value>), parts: &[&str]) {
    refused(spoilt(&fp8_files(), 3, |dir| spoil_index(dir, change)).path(), parts);
}

pub fn set_f32(files: &mut Files, name: &str, element: usize, value: f32) {
    files.get(name).bytes[element * 4..element * 4 + 4].copy_from_slice(&value.to_le_bytes());
}
