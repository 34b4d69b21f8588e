//! The `generate` and `parity` programs, run as a user runs them.
#![allow(dead_code)] // Each test binary uses a part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The examples' files by name: `cargo test` alone has built them, `cargo test --test examples` has not.
static EXAMPLES: LazyLock<BTreeMap<String, PathBuf>> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--example", "generate", "--example", "parity", "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if cfg!(feature = "hub") {
        cargo.args(["--features", "hub"]);
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| {
            let (name, path) = (message["target"]["name"].as_str()?, message["executable"].as_str()?);
            Some((name.to_string(), PathBuf::from(path)))
        })
        .collect()
});

pub fn example(name: &str) -> Command {
    let mut command = Command::new(&EXAMPLES[name]);
    command.env_remove("RAYON_NUM_THREADS").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

pub fn parity(model: &Path, tokens: &[&str], out: &Path, args: &[&str]) -> Command {
    let mut command = example("parity");
    command.arg("--model").arg(model).args(tokens).arg("--out").arg(out).args(args);
    command
}

/// The one line with which `command` fails: exit status `status`, and `parts` in the line.
pub fn fails(command: &mut Command, status: i32, parts: &[&str]) -> String {
    let Output { status: found, stderr, .. } = command.output().unwrap();
    let line = String::from_utf8(stderr).unwrap();
    assert_eq!(found.code(), Some(status), "{command:?}: {line}");
    assert!(line.ends_with('\n') && line.lines().count() == 1 && line.len() < 1000, "{command:?}: {line:?}");
    for part in parts {
        assert!(line.contains(part), "{command:?}: {line:?} does not contain {part:?}");
    }
    line
}

/// What `command`, which must succeed, writes to standard output.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
