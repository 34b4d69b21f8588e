//! The options of the `generate` program do what they say.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::checkpoint_writer::{bf16_files, fp8_files, golden, write_tokenizer};
use crate::examples_support::{example, fails, succeeds};
use serde_json::Value;

const END: &str = "<｜end▁of▁sentence｜>";

/// What the program answers to its default prompt, as JSON.
fn answer(args: &[&str]) -> Value {
    let out = succeeds(example("generate").arg("--json").args(args));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn answer_of(model: &Path, args: &[&str]) -> Value {
    answer(&[&["--model", model.to_str().unwrap(), "--prompt", "hello there", "-n", "8"], args].concat())
}

fn ids(answer: &Value) -> Vec<u64> {
    answer["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

fn text(answer: &Value) -> &str {
    answer["text"].as_str().unwrap()
}

#[test]
fn log_probabilities() {
    let plain = answer(&["-n", "20"]);
    assert_eq!(plain["logprobs"].as_array().unwrap().len(), 0);
    for (k, count) in [("0", 0), ("3", 3)] {
        let answer = answer(&["-n", "20", "--logprobs", k]);
        assert_eq!(ids(&answer), ids(&plain));
        let logprobs = answer["logprobs"].as_array().unwrap();
        assert_eq!(logprobs.len(), 20);
        for (id, entry) in ids(&answer).into_iter().zip(logprobs) {
            let chosen = entry["logprob"].as_f64().unwrap();
            let top = entry["top"].as_array().unwrap();
            let numbers: Vec<f64> = top.iter().map(|pair| pair[1].as_f64().unwrap()).collect();
            assert_eq!(numbers.len(), count);
            assert!(chosen <= 0.0 && numbers.is_sorted_by(|a, b| a >= b), "{entry}");
            assert!(numbers.iter().map(|p| p.exp()).sum::<f64>() <= 1.0 + 1e-6, "{entry}");
            // The greedy token is the most probable one.
            assert!(top.is_empty() || (top[0][0] == id && numbers[0] == chosen), "{entry}");
        }
    }
    // Without --json: one line a token, with its id, its text and the most probable ones.
    let out = succeeds(example("generate").args(["-n", "3", "--logprobs", "2"]));
    for id in &ids(&plain)[..3] {
        let line = out.lines().find(|line| line.trim_start().starts_with(&format!("{id} \""))).expect("a line");
        assert_eq!(line.matches('"').count(), 6, "{line}");
    }
}

#[test]
fn seeds() {
    let sampled = |seed: &str| ids(&answer(&["-n", "30", "--temperature", "2", "--seed", seed]));
    assert_eq!(sampled("7"), sampled("7"));
    assert_ne!(sampled("7"), sampled("8"));
    // Greedy answers have nothing to choose.
    assert_eq!(ids(&answer(&["-n", "20", "--seed", "1"])), ids(&answer(&["-n", "20", "--seed", "2"])));
    let one = |args: &[&str]| ids(&answer(&[&["-n", "20", "--temperature", "2"], args].concat()));
    let greedy = ids(&answer(&["-n", "20"]));
    for only_the_best in [["--top-k", "1"], ["--top-p", "1e-9"], ["--min-p", "1"]] {
        assert_eq!(one(&only_the_best), greedy, "{only_the_best:?}");
    }
}

#[test]
fn drafts_change_nothing() {
    for args in [vec![], vec!["--temperature", "1.5", "--seed", "3"], vec!["--repeat-penalty", "1.3"]] {
        let args = [&["-n", "60", "--ignore-eos"], args.as_slice()].concat();
        let (plain, drafted) = (answer(&args), answer(&[args.as_slice(), &["--mtp"]].concat()));
        assert_eq!((ids(&plain), text(&plain)), (ids(&drafted), text(&drafted)), "{args:?}");
        assert_eq!((&plain["finish_reason"], plain["drafted"].as_u64()), (&drafted["finish_reason"], Some(0)));
        assert!(
            drafted["accepted"].as_u64().unwrap() > 0 && drafted["accepted"].as_u64() <= drafted["drafted"].as_u64()
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let mut files = bf16_files();
    files.tensors.retain(|name, _| !name.starts_with("model.layers.2."));
    files.write_single(dir.path());
    write_tokenizer(dir.path());
    let model = dir.path().to_str().unwrap();
    fails(example("generate").args(["--mtp", "--prompt", "hello", "--model", model]), 1, &[model, "no MTP layer"]);
}

#[test]
fn dtypes() {
    let exact = answer(&["-n", "10", "--logprobs", "1"]);
    for dtype in ["bf16", "f16"] {
        let rounded = answer(&["-n", "10", "--logprobs", "1", "--dtype", dtype]);
        let first = |answer: &Value| answer["logprobs"][0]["logprob"].as_f64().unwrap();
        // A trained model is sure enough of its first words, and rounding moves them a little.
        assert_eq!(ids(&rounded)[0], ids(&exact)[0], "{dtype}");
        let moved = (first(&rounded) - first(&exact)).abs();
        assert!(moved > 0.0 && moved < 0.1, "{dtype}: {moved}");
    }
}

#[test]
fn precisions() {
    // The recorded FP8 case, which has no tokenizer, and one whose blocks are ragged.
    let dir = tempfile::tempdir().unwrap();
    for entry in golden("v32_fp8").read_dir().unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    write_tokenizer(dir.path());
    let logprobs = |args: &[&str]| answer_of(dir.path(), &[&["--logprobs", "1"], args].concat())["logprobs"].clone();
    let plain = logprobs(&[]);
    assert_eq!(plain, logprobs(&["--precision", "dequant"]));
    assert_ne!(plain, logprobs(&["--precision", "fp8"]));
    let ragged = tempfile::tempdir().unwrap();
    fp8_files().write_single(ragged.path());
    write_tokenizer(ragged.path());
    assert!(!ids(&answer_of(ragged.path(), &["--precision", "fp8"])).is_empty());
}

#[test]
fn stop_strings() {
    let whole = answer(&["-n", "60"]);
    let words: Vec<&str> = text(&whole).split_whitespace().collect();
    let word = words.iter().find(|word| word.len() > 3 && word.is_ascii()).expect("a word");
    let cut = text(&whole).find(word).unwrap();
    for args in [vec!["--stop", word], vec!["--stop", "nothing like it", "--stop", word]] {
        let answer = answer(&[&["-n", "60"], args.as_slice()].concat());
        assert_eq!(text(&answer), &text(&whole)[..cut]);
        assert_eq!(answer["finish_reason"], format!("stop string {word:?}"));
    }
    // A special token comes out as no text, and still it can be a stop string.
    let ended = answer(&["-n", "400"]);
    assert_eq!(ended["finish_reason"], "stop id 1");
    let stopped = answer(&["-n", "400", "--ignore-eos", "--stop", END]);
    assert_eq!(stopped["finish_reason"], format!("stop string {END:?}"));
    assert_eq!((ids(&stopped), text(&stopped)), (ids(&ended), text(&ended)));
    let on = answer(&["-n", &(ids(&ended).len() + 3).to_string(), "--ignore-eos"]);
    assert_eq!((ids(&on).len(), &on["finish_reason"]), (ids(&ended).len() + 3, &Value::from("max_tokens")));
    // What streams is the same text.
    let out = succeeds(example("generate").args(["-n", "60", "--stop", word]));
    assert!(out.starts_with(&format!("{}\n", &text(&whole)[..cut])), "{out}");
}

#[test]
fn repeat_penalties() {
    let distinct = |penalty: &str, args: &[&str]| {
        let all = ["-n", "60", "--ignore-eos", "--repeat-penalty", penalty];
        let ids = ids(&answer(&[&all, args].concat()));
        ids.iter().collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(distinct("1", &[]), distinct("1.0", &[]));
    assert!(distinct("100", &[]) > distinct("1", &[]));
    assert_eq!(distinct("100", &["--repeat-last-n", "0"]), distinct("1", &[]));
}

/// What the checkpoint recommends holds unless an option says otherwise.
#[test]
fn generation_config() {
    let model = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut files = bf16_files();
        files.config["eos_token_id"] = Value::Null;
        files.write_single(dir.path());
        write_tokenizer(dir.path());
        fs::write(dir.path().join("generation_config.json"), text).unwrap();
        dir
    };
    let plain = model("{}");
    let greedy = ids(&answer_of(plain.path(), &[]));
    let sampled = model("{\"do_sample\": true, \"temperature\": 3, \"top_p\": 1.0}");
    assert_ne!(ids(&answer_of(sampled.path(), &[])), greedy);
    assert_eq!(ids(&answer_of(sampled.path(), &["--temperature", "0"])), greedy);
    let narrow = model("{\"do_sample\": true, \"temperature\": 3, \"top_k\": 1}");
    assert_eq!(ids(&answer_of(narrow.path(), &[])), greedy);
    let narrow = model("{\"do_sample\": true, \"temperature\": 3, \"min_p\": 1.0}");
    assert_eq!(ids(&answer_of(narrow.path(), &[])), greedy);
    let stops = model(&format!("{{\"eos_token_id\": [{}]}}", greedy[2]));
    let first = greedy.iter().position(|id| *id == greedy[2]).unwrap();
    assert_eq!(ids(&answer_of(stops.path(), &[])), greedy[..=first]);
    assert_eq!(ids(&answer_of(stops.path(), &["--ignore-eos"])), greedy);
    let penalty = model("{\"repetition_penalty\": 100.0}");
    // As many tokens as there are: some come twice.
    let long = |dir: &tempfile::TempDir, args: &[&str]| {
        let model = ["--model", dir.path().to_str().unwrap(), "--prompt", "hello there", "-n", "40"];
        ids(&answer(&[&model, args].concat()))
    };
    let penalised = long(&plain, &["--repeat-penalty", "100"]);
    assert_ne!(penalised, long(&plain, &[]));
    assert_eq!(long(&penalty, &[]), penalised);
    assert_eq!(long(&penalty, &["--repeat-penalty", "1"]), long(&plain, &[]));
    let short = model("{\"max_new_tokens\": 3}");
    let args = ["--model", short.path().to_str().unwrap(), "--prompt", "hello there"];
    assert_eq!(ids(&answer(&args)), greedy[..3]);
    assert_eq!(ids(&answer_of(short.path(), &[])), greedy);
}
