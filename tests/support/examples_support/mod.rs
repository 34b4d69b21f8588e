//! Runs the examples as programs.
#![allow(dead_code)] // Each test binary uses a part.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The examples' files by name: `cargo test` alone has built them, `cargo test --test examples` has not.
static EXAMPLES: LazyLock<BTreeMap<String, PathBuf>> = LazyLock::new(|| {
    let names = [
        "generate",
        "parity",
        "chat_template",
        "tool_calling",
        "chat",
        "dsa_loss",
        "cost_curves",
        "rl_loss",
        "convert_v32",
        "distill",
        "grpo",
        "train",
    ];
    let arguments: Vec<&str> =
        ["build"].into_iter().chain(names.into_iter().flat_map(|name| ["--example", name])).collect();
    let output = crate::cargo_build::cargo(&arguments).output().unwrap();
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

/// An example with nothing on its standard input.
pub fn example(name: &str) -> Command {
    let mut command = Command::new(&EXAMPLES[name]);
    command
        .env_remove("RAYON_NUM_THREADS")
        .env_remove("RUST_BACKTRACE")
        .env_remove("OPENAI_API_KEY")
        .stdin(Stdio::null());
    command
}

/// Runs an example with this on its standard input.
pub fn with_input(command: &mut Command, input: impl AsRef<[u8]>) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the example");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // One that reads less than all is no error here.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Closes the output after its first bytes; returns them and how the example ended.
pub fn with_closed_output(command: &mut Command, input: impl AsRef<[u8]>) -> (Vec<u8>, Output) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the example");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let mut first = vec![0; 16];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (first, output)
}

pub fn parity(model: &Path, tokens: &[&str], out: &Path, args: &[&str]) -> Command {
    let mut command = example("parity");
    command.arg("--model").arg(model).args(tokens).arg("--out").arg(out).args(args);
    command
}

/// The one line on standard error with which `command` fails: it has these parts, and the exit status is `status`.
pub fn fails(command: &mut Command, status: i32, parts: &[&str]) -> String {
    let output = command.output().unwrap();
    failed(&output, status, parts, &format!("{command:?}"))
}

/// As [`fails`], of what has run.
pub fn failed(output: &Output, status: i32, parts: &[&str], what: &str) -> String {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{what}: {line}");
    assert!(line.ends_with('\n') && line.lines().count() == 1 && line.len() < 1000, "{what}: {line:?}");
    for part in parts {
        assert!(line.contains(part), "{what}: {line:?} does not contain {part:?}");
    }
    line
}

/// What a program that succeeded wrote.
pub fn written(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `command`, which must succeed, writes to standard output.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
