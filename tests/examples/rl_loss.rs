//! The `rl_loss` program prints the recorded numbers under the fixtures' names, and refuses what is no call of the loss.

use std::path::PathBuf;
use std::process::Command;

use crate::examples_support::{example, fails, succeeds};
use serde_json::{Value, json};

/// Of every number in f64.
const TOLERANCE: f64 = 1e-9;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/rl").join(name)
}

fn rl_loss(file: &PathBuf, args: &[&str]) -> Command {
    let mut command = example("rl_loss");
    command.arg(file).args(args);
    command
}

fn read(file: &PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Compares all that `expected` has.
fn check(place: &str, found: &Value, expected: &Value, tolerance: f64) {
    match expected {
        Value::Object(expected) => {
            expected.iter().for_each(|(key, value)| check(&format!("{place}.{key}"), &found[key], value, tolerance));
        }
        Value::Array(expected) => {
            assert_eq!(found.as_array().map(Vec::len), Some(expected.len()), "{place}");
            expected
                .iter()
                .enumerate()
                .for_each(|(at, value)| check(&format!("{place}[{at}]"), &found[at], value, tolerance));
        }
        Value::Number(expected) => {
            let difference = found.as_f64().map(|found| (found - expected.as_f64().unwrap()).abs());
            assert!(difference.is_some_and(|difference| difference <= tolerance), "{place}: {found} for {expected}");
        }
        expected => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn it_prints_the_recorded_numbers() {
    for name in ["19_gen_mask.json", "23_truncated_drop.json", "24_v32_preset.json"] {
        let file = fixture(name);
        for (args, tolerance) in [([].as_slice(), TOLERANCE), (&["--dtype", "f32"], 1e-5)] {
            let found: Value = serde_json::from_str(&succeeds(&mut rl_loss(&file, args))).unwrap();
            check(name, &found, &read(&file)["expected"], tolerance);
        }
    }
}

#[test]
fn what_is_no_call_is_refused_by_name() {
    let mut call = read(&fixture("24_v32_preset.json"));
    call["batch"]["logits"][3][2] = json!("x");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_path_buf();
    std::fs::write(&path, call.to_string()).unwrap();
    fails(&mut rl_loss(&path, &[]), 1, &["batch.logits[3][2]", "expected a number"]);
    call["batch"]["logits"][3][2] = json!(0.5);
    call["config"]["kl"] = json!("k7");
    std::fs::write(&path, call.to_string()).unwrap();
    fails(&mut rl_loss(&path, &[]), 1, &["config.kl", "k7"]);
    std::fs::write(&path, "{").unwrap();
    fails(&mut rl_loss(&path, &[]), 1, &[&path.display().to_string()]);
    fails(&mut rl_loss(&fixture("none.json"), &[]), 1, &["none.json"]);
    fails(&mut rl_loss(&path, &["--dtype", "f8"]), 2, &["--dtype"]);
}
