//! A dense checkpoint becomes a sparse one that `generate` loads.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::checkpoint_writer::{Files, tiny_config, tiny_v3_config, write_tokenizer};
use crate::examples_support::{example, fails, succeeds};
use serde_json::Value;

fn convert(from: &Path, to: &Path, data: &Path) -> Command {
    let mut command = example("convert_v32");
    command.arg("--from").arg(from).arg("--to").arg(to).arg("--data").arg(data);
    command.args(["--index-n-heads", "2", "--index-head-dim", "8", "--index-topk", "4", "--sequence-tokens", "24"]);
    command.args(["--warm-up-steps", "3", "--sparse-steps", "2"]);
    command
}

#[test]
fn the_result_is_a_checkpoint_of_v32() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, data) = (dir.path().join("dense"), dir.path().join("sparse"), dir.path().join("text.txt"));
    fs::create_dir(&from).unwrap();
    Files::new(&tiny_v3_config(), "BF16", "F32").write_single(&from);
    write_tokenizer(&from);
    fs::write(&data, "the quick brown fox jumps over the lazy dog ".repeat(20)).unwrap();
    let output = succeeds(&mut convert(&from, &to, &data));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 4, "{output}");
    for (line, when) in lines.iter().zip(["new indexers", "after the warm-up", "after the sparse stage"]) {
        assert!(line.starts_with(when) && line.contains("recall 0.") && line.contains("gap"), "{line}");
    }
    let config: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["model_type"], &config["index_topk"]), (&"deepseek_v32".into(), &4.into()));
    succeeds(example("generate").arg("--model").arg(&to).args(["--prompt", "the quick", "-n", "4"]));

    fails(&mut convert(&from, &to, &data), 1, &["config.json: there already"]);
    let other = dir.path().join("other");
    fails(&mut convert(&from, &other, &dir.path().join("none.txt")), 1, &["none.txt"]);
    fs::write(&data, "the").unwrap();
    fails(&mut convert(&from, &other, &data), 1, &["--data"]);
    Files::new(&tiny_config(), "BF16", "F32").write_single(&from);
    fs::write(&data, "the quick brown fox jumps over the lazy dog ".repeat(20)).unwrap();
    fails(&mut convert(&from, &other, &data), 1, &["model_type is deepseek_v32"]);
    assert!(!other.exists());
}
