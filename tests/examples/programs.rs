//! The examples answer every bad input with one line and a status.

#![cfg(unix)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::checkpoint_writer::tiny_v32;
use crate::examples_support::{example, fails, parity, succeeds};
use serde_json::{Value, json};

fn generate(args: &[&str]) -> Command {
    let mut command = example("generate");
    command.args(["--prompt", "hello", "-n", "2"]).args(args);
    command
}

/// The embedded checkpoint, linked file by file, with other values in `config.json`.
fn checkpoint(changes: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        symlink(tiny_v32().join(file), dir.path().join(file)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&fs::read(tiny_v32().join("config.json")).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn options_out_of_range_are_named() {
    let long = "9".repeat(100_000) + "x";
    for (args, status, part) in [
        (["--top-p", "2"], 1, "--top-p is 2"),
        (["--top-p", "-1"], 1, "--top-p is -1"),
        (["--top-p", "1e300"], 1, "--top-p is 1e300"),
        (["--min-p", "nan"], 1, "--min-p is NaN"),
        (["--top-k", "0"], 1, "--top-k is 0"),
        (["--temperature", "-1"], 1, "--temperature is -1"),
        (["--repeat-penalty", "0"], 1, "--repeat-penalty is 0"),
        (["--stop", ""], 1, "--stop is \"\""),
        (["--logprobs", "1000000"], 1, "--logprobs is 1000000"),
        (["--seed", "-1"], 2, "'--seed <SEED>'"),
        (["--top-k", "-1"], 2, "'--top-k <TOP_K>'"),
        (["--dtype", "f64"], 2, "[possible values: f32, bf16, f16]"),
        (["--top-p", &long], 2, "'--top-p <TOP_P>'"),
        (["--prompt-file", "x"], 2, "'--prompt-file <PROMPT_FILE>'"),
        (["--model", "a\nb"], 1, "a\\nb: no such folder"),
        (["--model", ""], 1, "--model is empty"),
    ] {
        fails(&mut generate(&args), status, &[part]);
    }
    fails(example("generate").args(["--prompt", "x", "-n", "0"]), 1, &["--max-tokens is 0"]);
    fails(example("generate").args(["--prompt", "x", "-n", "-3"]), 2, &["'--max-tokens <MAX_TOKENS>'"]);
    fails(example("generate").args(["--prompt", ""]), 1, &["prompt is empty"]);
    fails(example("generate").arg("--nonsense"), 2, &["--nonsense"]);
    fails(&mut example("parity"), 2, &["--out <OUT>"]);
    for threads in ["100000", "-1", "many"] {
        fails(generate(&[]).env("RAYON_NUM_THREADS", threads), 1, &[&format!("RAYON_NUM_THREADS is {threads}")]);
    }
    let help = example("generate").arg("--help").output().unwrap();
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(String::from_utf8(help.stdout).unwrap().lines().count() > 30);
}

#[test]
fn odd_prompts_are_answered() {
    for prompt in [" ", "\n\t", "<｜User｜>", "<｜end▁of▁sentence｜>", "\u{1}\u{7f}", "--help", "-1"] {
        succeeds(example("generate").args(["-n", "2", "--prompt", prompt]));
    }
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let missing = format!("{folder}/no\nwhere/trace");
    fails(&mut generate(&["--tracing", folder]), 1, &[folder]);
    fails(&mut generate(&["--tracing", &missing]), 1, &["no\\nwhere/trace"]);
    let trace = dir.path().join("trace");
    let trace_file = trace.to_str().unwrap();
    succeeds(&mut generate(&["--tracing", trace_file]));
    assert!(serde_json::from_slice::<Vec<Value>>(&fs::read(&trace).unwrap()).is_ok());
    // What is there stays, unless it is said that it need not.
    fs::write(&trace, "precious").unwrap();
    fails(&mut generate(&["--tracing", trace_file]), 1, &[trace_file, "exists", "--overwrite"]);
    assert_eq!(fs::read(&trace).unwrap(), b"precious");
    succeeds(&mut generate(&["--tracing", trace_file, "--overwrite"]));
    assert!(serde_json::from_slice::<Vec<Value>>(&fs::read(&trace).unwrap()).is_ok());
    fails(&mut generate(&["--overwrite"]), 2, &["--tracing"]);
    let prompt = dir.path().join("prompt");
    fs::write(&prompt, "hello").unwrap();
    let file = prompt.to_str().unwrap();
    fails(example("generate").args(["--prompt-file", file, "--tracing", file]), 1, &["--tracing", "--prompt-file"]);
    assert_eq!(fs::read(&prompt).unwrap(), b"hello");
    let tokens = ["--tokens", "1,2"];
    fails(&mut parity(&tiny_v32(), &tokens, dir.path(), &[]), 1, &[folder, "a folder, not a file"]);
    fails(&mut parity(&tiny_v32(), &tokens, Path::new(&missing), &[]), 1, &["no\\nwhere/trace"]);
    if Path::new("/dev/full").exists() {
        fails(&mut generate(&["--tracing", "/dev/full"]), 1, &["/dev/full: No space left"]);
        fails(generate(&[]).stdout(File::create("/dev/full").unwrap()), 1, &["standard output: No space left"]);
    }
    // Nothing takes the place of the checkpoint's own files, also not of those that it links to.
    let copy = checkpoint(json!({}));
    let target = dir.path().join("generation_config.json");
    fs::write(&target, "{}").unwrap();
    symlink(&target, copy.path().join("generation_config.json")).unwrap();
    for file in [copy.path().join("config.json"), copy.path().join("new.safetensors"), target.clone()] {
        let part = "a file of the checkpoint's folder";
        fails(&mut parity(copy.path(), &tokens, &file, &[]), 1, &["--out", part]);
        let model = copy.path().to_str().unwrap();
        fails(&mut generate(&["--model", model, "--tracing", file.to_str().unwrap()]), 1, &["--tracing", part]);
    }
    assert_eq!(fs::read(target).unwrap(), b"{}");
}

#[test]
fn token_lists_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    for (tokens, status) in [("1,2560", 1), ("-1", 2), ("", 2), ("1,,2", 2), ("4294967296", 2), ("a", 2)] {
        fails(&mut parity(&tiny_v32(), &["--tokens", tokens], &out, &[]), status, &["--tokens"]);
    }
    let file = dir.path().join("tokens");
    let name = file.to_str().unwrap();
    let long = "x".repeat(100_000);
    for text in ["", "[]", "[[]]", "[[1], [1, 2]]", "[-1]", "1 2 two", "2560", "[1] 2", &long] {
        fs::write(&file, text).unwrap();
        fails(&mut parity(&tiny_v32(), &["--tokens-file", name], &out, &[]), 1, &[name]);
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    fails(&mut parity(&tiny_v32(), &["--tokens-file", name], &out, &[]), 1, &[name, "UTF-8"]);
    let folder = dir.path().to_str().unwrap();
    fails(&mut parity(&tiny_v32(), &["--tokens-file", folder], &out, &[]), 1, &[folder]);
    let greedy = usize::MAX.to_string();
    fails(&mut parity(&tiny_v32(), &["--tokens", "1"], &out, &["--greedy", &greedy]), 1, &["--tokens", &greedy]);
}

#[test]
fn an_absurd_index_topk_is_not_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let absurd = checkpoint(json!({"index_topk": 1 << 24}));
    let parts = [absurd.path().to_str().unwrap(), "config.json: `index_topk`", "16777216"];
    fails(&mut parity(absurd.path(), &["--tokens", "1,2,3"], &out, &["--selected"]), 1, &parts);
    succeeds(&mut parity(absurd.path(), &["--tokens", "1,2,3"], &out, &[]));
    // Chunks see less context than the file has columns.
    let wide = checkpoint(json!({"index_topk": 1000}));
    succeeds(&mut parity(wide.path(), &["--tokens", "1,2,3"], &out, &["--selected", "--chunk", "1", "--greedy", "2"]));
    let tensors = candle_core::safetensors::load(&out, &candle_core::Device::Cpu).unwrap();
    assert_eq!(tensors["layer0.topk_idx"].dims(), [1, 3, 1000]);
    assert_eq!(tensors["decode.layer5.topk_idx"].dims(), [1, 2, 1000]);
}
