//! Verified solutions of specialists become conversations.

use std::fs;

use crate::checkpoint_writer::tiny_v32;
use crate::examples_support::{example, fails, succeeds};
use serde_json::Value;

#[test]
fn what_is_solved_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (tasks, out) = (dir.path().join("tasks.jsonl"), dir.path().join("out.jsonl"));
    // Every text contains the empty one; no model writes the other.
    let lines = [
        r#"{"id": "easy", "domain": "talk", "prompt": "hello", "answer": "", "contains": true}"#,
        r#"{"prompt": "hello", "answer": "\u0000 never \u0000"}"#,
    ];
    fs::write(&tasks, lines.join("\n")).unwrap();
    let distill = |tasks: &std::path::Path, out: &std::path::Path| {
        let mut command = example("distill");
        command.arg("--specialist").arg(tiny_v32()).arg("--tasks").arg(tasks).arg("--out").arg(out);
        command.args(["--attempts", "3", "--max-tokens", "400", "--device", "cpu"]);
        command
    };
    let output = succeeds(&mut distill(&tasks, &out));
    assert!(output.contains("2 tasks, ") && output.contains("of 6 attempts solved"), "{output}");
    for line in fs::read_to_string(&out).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["task"], &line["domain"]), (&"easy".into(), &"talk".into()));
        assert_eq!(line["messages"][0]["content"], "hello");
        assert_eq!(line["messages"][1]["role"], "assistant");
    }
    fails(&mut distill(&tasks, &out), 1, &["out.jsonl", "exists"]);
    let other = dir.path().join("other.jsonl");
    fails(distill(&tasks, &other).args(["--tasks", "ledger:2"]), 1, &["--tasks: 2 of them"]);
    fs::write(&tasks, "{\"prompt\": 1}").unwrap();
    fails(&mut distill(&tasks, &other), 1, &["tasks.jsonl:1"]);
}
