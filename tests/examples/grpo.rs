//! A run of reinforcement learning, its end and its repetition, and the way from specialists to a student.

use std::fs;
use std::path::{Path, PathBuf};

use crate::examples_support::{example, fails, succeeds};
use serde_json::Value;

/// The example's own file, with other numbers.
fn config(name: &str, dir: &Path, out: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = fs::read_to_string(root.join("examples").join(name)).unwrap();
    let begin = text.find("out = ").unwrap();
    let end = begin + text[begin..].find('\n').unwrap();
    text.replace_range(begin..end, &format!("out = {:?}", out.display().to_string()));
    text = text.replace("\"examples/", &format!("\"{}/", root.join("examples").display()));
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let path = dir.join(format!("{}.toml", out.file_name().unwrap().display()));
    fs::write(&path, text).unwrap();
    path
}

/// The steps of a run without what a clock says.
fn steps(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| {
        let mut step: Value = serde_json::from_str(line).unwrap();
        let fields = step.as_object_mut().unwrap();
        fields.remove("seconds").unwrap();
        fields.remove("rollout_seconds").unwrap();
        step
    };
    text.lines().map(timeless).collect()
}

#[test]
fn a_run_ends_goes_on_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let few = [("steps = 150\n", "steps = 4\nkeep_rollouts = 9\nkeep = 2\n"), ("steps = 80\n", "steps = 3\n")];
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let path = config("grpo/drawers.toml", dir.path(), &out, &few);
        let output = succeeds(example("grpo").arg("--config").arg(path).args(more));
        (out, output)
    };
    let (whole, output) = run("whole", &[]);
    assert!(output.contains("fine-tuned for 3 steps") && output.contains("step-00000004"), "{output}");
    assert_eq!(steps(&whole).len(), 4);
    assert!(fs::read_to_string(whole.join("curves.svg")).unwrap().contains("gradient norm"));
    assert_eq!(fs::read_dir(whole.join("events")).unwrap().count(), 1);
    let mut checkpoints: Vec<_> =
        fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    checkpoints.retain(|name| name.starts_with("step-"));
    checkpoints.sort();
    assert_eq!(checkpoints, ["step-00000000", "step-00000004"]);
    assert!(whole.join("step-00000004/tokenizer.json").is_file());
    // Ended early, and gone on from there.
    let (parts, _) = run("parts", &["--steps", "2"]);
    fails(example("grpo").arg("--config").arg(dir.path().join("parts.toml")), 1, &["--resume"]);
    run("parts", &["--resume"]);
    assert_eq!(steps(&parts), steps(&whole));
    // From the episodes of another run.
    let rollouts = whole.join("rollouts");
    let (replayed, _) = run("replayed", &["--replay", rollouts.to_str().unwrap()]);
    assert_eq!(steps(&replayed), steps(&whole));
    let broken = config("grpo/drawers.toml", dir.path(), &dir.path().join("broken"), &[("beta = 0.001", "betta = 1")]);
    fails(example("grpo").arg("--config").arg(broken), 1, &["broken.toml:", "betta"]);
}
