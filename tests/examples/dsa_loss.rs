//! The `dsa_loss` program: recorded fixtures, and inputs that are refused by the field's name.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::examples_support::{example, fails, succeeds};

/// Greatest difference from recorded values: absolute for numbers up to 1, else relative.
const F64_TOLERANCE: f64 = 1e-9;
const F32_TOLERANCE: f64 = 1e-5;

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dsa_loss");
    let mut files: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Compares numbers, lists of them and nulls.
fn compare(what: &str, found: &Value, expected: &Value, tolerance: f64) {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{what}");
            found.iter().zip(expected).enumerate().for_each(|(i, (f, e))| {
                compare(&format!("{what}[{i}]"), f, e, tolerance);
            });
        }
        (Value::Null, Value::Null) => {}
        _ => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let limit = tolerance * expected.abs().max(1.0);
            assert!((found - expected).abs() <= limit, "{what}: {found}, expected {expected}");
        }
    }
}

fn run(fixture: &Value, args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fixture.json");
    std::fs::write(&file, fixture.to_string()).unwrap();
    serde_json::from_str(&succeeds(example("dsa_loss").arg(&file).args(args))).unwrap()
}

#[test]
fn recorded_fixtures() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 4);
    for file in fixtures {
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let expected = fixture["expected"].as_object().unwrap();
        for (dtype, tolerance) in [("f64", F64_TOLERANCE), ("f32", F32_TOLERANCE)] {
            let found = run(&fixture, &["--dtype", dtype]);
            assert_eq!(found.as_object().unwrap().len(), expected.len());
            for (name, value) in expected {
                compare(&format!("{}: {dtype}: {name}", file.display()), &found[name], value, tolerance);
            }
        }
    }
}

fn fixture(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dsa_loss").join(name);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Sequences that are interleaved have the numbers that each has alone.
#[test]
fn sequences_do_not_see_each_other() {
    for name in ["01_dense.json", "02_sparse_top3.json"] {
        let one = fixture(name);
        let tokens = one["inputs"]["T"].as_u64().unwrap() as usize;
        // Row 2 i is row i of the first sequence, row 2 i + 1 that of the second.
        let mut two = one.clone();
        let inputs = two["inputs"].as_object_mut().unwrap();
        inputs["T"] = json!(2 * tokens);
        inputs["seq_id"] = (0..2 * tokens).map(|row| 7 - row as i64 % 2).collect();
        for field in ["q", "k", "w"] {
            inputs[field] =
                one["inputs"][field].as_array().unwrap().iter().flat_map(|row| [row, row]).cloned().collect();
        }
        let twice = |row: &Value| row.as_array().unwrap().iter().flat_map(|p| [p, p]).cloned().collect::<Vec<_>>();
        let heads = one["inputs"]["attn_probs"].as_array().unwrap().iter();
        inputs["attn_probs"] = heads
            .map(|head| head.as_array().unwrap().iter().flat_map(|row| [twice(row), twice(row)]).collect::<Vec<_>>())
            .collect();
        if let Some(selected) = one["inputs"]["selected"].as_array() {
            let keys =
                |row: &Value, of: u64| row.as_array().unwrap().iter().map(|k| 2 * k.as_u64().unwrap() + of).collect();
            let both = |row: &Value| -> [Vec<u64>; 2] { [keys(row, 0), keys(row, 1)] };
            inputs["selected"] = selected.iter().flat_map(both).collect();
        }
        let (one, two) = (run(&one, &[]), run(&two, &[]));
        assert!((two["loss_sum"].as_f64().unwrap() - 2.0 * one["loss_sum"].as_f64().unwrap()).abs() < 1e-12);
        for row in 0..2 * tokens {
            for field in ["kl", "grad_q", "grad_k", "grad_w"] {
                compare(&format!("{name}: {field}"), &two[field][row], &one[field][row / 2], 1e-12);
            }
            for (key, score) in two["index_scores"][row].as_array().unwrap().iter().enumerate() {
                let own = row % 2 == key % 2;
                let expected = if own { one["index_scores"][row / 2][key / 2].clone() } else { Value::Null };
                compare(&format!("{name}: index_scores"), score, &expected, 1e-12);
            }
        }
    }
}

#[test]
fn a_query_may_attend_to_nothing() {
    let mut fixture = fixture("02_sparse_top3.json");
    fixture["inputs"]["selected"][1] = json!([]);
    // A later key does not count.
    fixture["inputs"]["selected"][2] = json!([6]);
    let found = run(&fixture, &[]);
    for row in [1, 2] {
        assert_eq!(found["kl"][row], 0.0);
        assert!(found["target_p"][row].as_array().unwrap().iter().all(|p| *p == 0.0));
        assert!(found["grad_w"][row].as_array().unwrap().iter().all(|g| *g == 0.0));
    }
    assert!(found["kl"][3].as_f64().unwrap() > 0.0);
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fixture.json");
    let refused = |text: &str, expected: &str| {
        std::fs::write(&file, text).unwrap();
        fails(example("dsa_loss").arg(&file), 1, &["fixture.json", expected]);
    };
    refused("{", "not JSON");
    refused("[]", "config is missing");
    let with = |path: &str, value: Value, expected: &str| {
        let mut fixture = fixture("02_sparse_top3.json");
        *fixture.pointer_mut(path).unwrap() = value;
        refused(&fixture.to_string(), expected);
    };
    with("/config/mode", json!("warm"), "config.mode is \"warm\", expected \"dense\" or \"sparse\"");
    with("/inputs/T", json!(0), "inputs.T is 0");
    with("/inputs/T", json!(8), "inputs.q has 7 elements, expected 8");
    with("/inputs/main_heads", json!(1u64 << 60), "inputs.main_heads is");
    with("/inputs/index_dim", json!(1 << 25), "inputs.q: [7, 3, 33554432] is too large");
    with("/inputs/q/1/2/3", json!("x"), "inputs.q[1][2][3] is \"x\", expected a finite number");
    with("/inputs/k/6", json!([1.0]), "inputs.k[6] has 1 elements, expected 4");
    with("/inputs/w", Value::Null, "inputs.w is missing");
    with("/inputs/seq_id/3", json!(0.5), "inputs.seq_id[3] is 0.5, expected an integer");
    with("/inputs/selected", Value::Null, "inputs.selected is missing");
    with("/inputs/selected/3", json!([7]), "inputs.selected[3][0] is 7, expected a row below 7");
    with("/inputs/selected/3", json!([1, 1]), "inputs.selected[3] has the key 1 twice");
    with("/inputs/attn_probs/1/4/2", json!(-0.1), "inputs.attn_probs[1][4][2] is -0.1, expected no negative number");
    let mut fixture = fixture("02_sparse_top3.json");
    for head in 0..2 {
        fixture["inputs"]["attn_probs"][head][0][0] = json!(0);
    }
    refused(&fixture.to_string(), "inputs.attn_probs: the probabilities of row 0 on its keys have the sum 0");
    fixture["inputs"]["attn_probs"][0][0][0] = json!(1);
    fixture["inputs"]["q"][1][2] = json!([1e308, 1e308, 1e308, 1e308]);
    fixture["inputs"]["k"][1] = json!([1e308, 1e308, 1e308, 1e308]);
    refused(&fixture.to_string(), "is not finite: inputs.q, k and w are too large");
    fails(example("dsa_loss").arg(dir.path().join("none.json")), 1, &["none.json", "No such file"]);
}
