//! The cost curves of small models: every point measured, and beside the counted work.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::examples_support::{example, fails, succeeds};

/// Runs the example and returns its table, its JSON and its chart.
fn run(args: &[&str]) -> (String, Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let (json, svg) = (dir.path().join("curves.json"), dir.path().join("curves.svg"));
    let mut command = example("cost_curves");
    command.args(["--device", "cpu", "--repeats", "1"]).args(args).arg("--json").arg(&json).arg("--svg").arg(&svg);
    let table = succeeds(&mut command);
    let json = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    (table, json, fs::read_to_string(svg).unwrap())
}

/// Checks the points: attention, phase and position of each, and numbers that fit together.
fn check(json: &Value, contexts: &[u64], batches: &[u64]) {
    let points = json["points"].as_array().unwrap();
    let mut expected = Vec::new();
    for attention in ["DSA", "dense MLA"] {
        let phases = batches.iter().map(|batch| format!("decode b{batch}")).chain(["prefill".to_string()]);
        for phase in phases {
            expected.extend(contexts.iter().map(|position| (attention, phase.clone(), *position)));
        }
    }
    let found: Vec<_> = points
        .iter()
        .map(|point| {
            let text = |key: &str| point[key].as_str().unwrap();
            (text("attention"), text("phase").to_string(), point["position"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(found, expected);
    let bandwidth = json["bytes_per_second"].as_f64().unwrap();
    assert!(bandwidth > 1e8 && json["flops_per_second"].as_f64().unwrap() > 1e8);
    for point in points {
        let number = |key: &str| point[key].as_f64().unwrap();
        let dollars = number("seconds") / number("rows") * 1e6 / 3600.0 * json["dollars_per_hour"].as_f64().unwrap();
        assert!((number("dollars_per_million_tokens") / dollars - 1.0).abs() < 1e-9, "{point}");
        assert!(number("stack_seconds") > 0.0 && number("expected_seconds") > 0.0, "{point}");
        assert!(number("memory_share") > 0.0, "{point}");
    }
}

#[test]
fn the_embedded_checkpoint_is_measured_as_it_is() {
    let (table, json, svg) = run(&["--contexts", "300,128", "--batches", "1,3", "--price", "7"]);
    check(&json, &[128, 300], &[1, 3]);
    assert_eq!(json["dollars_per_hour"], 7.0);
    for point in json["points"].as_array().unwrap() {
        assert_eq!(point["seconds"], point["stack_seconds"]);
    }
    assert_eq!(table.lines().filter(|line| line.contains(" decode b3 ")).count(), 4, "{table}");
    assert!(table.contains("prefill: last position over first: DSA "), "{table}");
    assert_eq!(svg.matches("<polyline").count(), 8);
}

#[test]
fn a_stack_of_random_layers_is_scaled_to_all() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/v32_fp8/config.json");
    let config = config.to_str().unwrap();
    let (_, json, _) =
        run(&["--stack", config, "--layers", "2", "--contexts", "64", "--batches", "2", "--chunk", "16"]);
    check(&json, &[64], &[2]);
    assert_eq!((json["dtype"].as_str(), json["points"][1]["rows"].as_u64()), (Some("bf16"), Some(16)));
}

#[test]
fn wrong_arguments_are_named() {
    for (args, status, part) in [
        (["--price", "0"], 1, "--price is 0: expected a number above 0"),
        (["--price", "-1"], 1, "--price is -1"),
        (["--contexts", "100000000"], 1, "--contexts: 100000000 is beyond max_position_embeddings, 1536"),
        (["--contexts", "0"], 1, "--contexts: expected positions from 1 on"),
        (["--batches", "0"], 1, "--batches: expected numbers from 1 on"),
        (["--chunk", "0"], 1, "--chunk is 0"),
        (["--repeats", "0"], 1, "--repeats is 0"),
        (["--stack", "nowhere"], 1, "nowhere: "),
        (["--batches", "x"], 2, "'--batches <N,N>'"),
    ] {
        fails(example("cost_curves").args(["--device", "cpu"]).args(args), status, &[part]);
    }
}
