//! The example `tool_calling`: its exit statuses, its traces, and what a server can do to a terminal.

#![cfg(unix)]

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;

use crate::examples_support::{example, failed, fails, written};

fn run(args: &[&str]) -> Output {
    example("tool_calling").args(args).output().unwrap()
}

fn resume(trace: &Path, args: &[&str]) -> Output {
    run(&[&["--trace", trace.to_str().unwrap(), "--resume"], args].concat())
}

#[test]
fn a_run_without_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.jsonl");
    let limit = ["no answer: the limit is reached after 1 steps (--steps)"];
    let first = run(&["--steps", "1", "--no-thinking", "--trace", trace.to_str().unwrap()]);
    failed(&first, 3, &limit, "one step");
    let before = fs::read(&trace).unwrap();
    for args in [&[][..], &["--steps", "1"]] {
        failed(&resume(&trace, args), 3, &limit, "resumed");
    }
    assert_eq!(fs::read(&trace).unwrap(), before);
    for arg in [&["--prompt", "Hi"][..], &["--system", "Hi"], &["--no-thinking"], &["--thinking"], &["--seed", "1"]] {
        failed(&resume(&trace, arg), 2, &["'--resume' cannot be used with", arg[0]], arg[0]);
    }
    // With more steps it goes on, and then its answer is there to be asked for.
    let answer = "177 times 579 is 102483. The price of lamp is 40 euros.\n\nanswer: 2 steps, ";
    let more = written(resume(&trace, &["--steps", "5"]));
    assert!(more.starts_with(answer), "{more}");
    assert_eq!(written(resume(&trace, &[])), more);
    assert!(written(run(&["--help"])).contains("Exit status: 0 after an answer"));

    // A record without its line break counts, half of one does not.
    let whole = fs::read_to_string(&trace).unwrap();
    fs::write(&trace, whole.trim_end()).unwrap();
    assert_eq!(written(resume(&trace, &[])), more);
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let (last, rest) = lines.split_last().unwrap();
    fs::write(&trace, rest.concat() + &last[..last.len() / 2]).unwrap();
    let output = resume(&trace, &[]);
    let torn = format!("the trace's last record, line {}, was not written to its end", lines.len());
    failed(&output, 0, &[&torn], "torn");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), more);
    let name = r#""model":"tiny-v32""#;
    fs::write(&trace, whole.replace(name, r#""model":"other""#)).unwrap();
    failed(&resume(&trace, &[]), 1, &["trace.jsonl: line 1: `model`: is \"other\""], "another model's");
}

#[test]
fn a_trace_in_what_is_no_file() {
    for path in ["/dev/full", "/dev/zero", "/"] {
        failed(&run(&["--trace", path]), 1, &[path, "exists already"], path);
        failed(&resume(Path::new(path), &[]), 1, &[path, "is no regular file"], path);
    }
}

#[test]
fn streams_that_take_nothing() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let full = || full.try_clone().unwrap();
    for name in ["chat", "generate", "parity", "tool_calling"] {
        fails(example(name).arg("--help").stdout(full()), 1, &["standard output: No space"]);
        // Nobody hears the error, but its status is the same.
        for (args, status) in
            [(&["--nonsense"][..], 2), (&["--model", "/no/where"], if name == "parity" { 2 } else { 1 })]
        {
            let output = example(name).args(args).stderr(full()).output().unwrap();
            assert_eq!(output.status.code(), Some(status), "{name} {args:?}");
        }
    }
}

#[cfg(feature = "client")]
mod server {
    use crate::agent_client_support::{Server, delta, end, stream, whole};

    use super::*;

    fn ask(url: &str) -> Output {
        run(&["--base-url", url, "--model", "m", "--prompt", "Hi"])
    }

    #[test]
    fn what_could_steer_a_terminal() {
        let body = r#"{"error": {"message": "bad \u001b[31mfield\u0007 \u009b2J"}}"#;
        let server = Server::new(vec![whole("400 Bad Request", "", body)]);
        let output = ask(&server.url.replace("http://", "http://me:secret@"));
        let line = failed(&output, 1, &[r"bad \u{1b}[31mfield\u{7} \u{9b}2J"], body);
        assert!(!line.contains("secret"), "{line}");

        let call =
            r#"{"tool_calls": [{"index": 0, "id": "c", "function": {"name": "a\u001b[2J", "arguments": "{\u009b}"}}]}"#;
        let asks = delta(r#"{"reasoning_content": "A\u001b]0;x\u0007\rB"}"#) + &delta(call) + &end("tool_calls");
        let answers = delta(r#"{"content": "\u202eC\u001b[2J"}"#) + &end("stop");
        let server = Server::new(vec![stream(asks, 64), stream(answers, 64)]);
        let said = written(ask(&server.url));
        assert!(said.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{said:?}");
        assert!(said.contains(r"A\u{1b}]0;x\u{7}\rB") && said.contains(r"\u{202e}C\u{1b}[2J"), "{said:?}");
        assert!(said.contains(r"→ a\u{1b}[2J({\u{9b}})"), "{said:?}");
    }

    #[test]
    fn no_answer() {
        let cut = delta(r#"{"content": "Hel"}"#) + &end("length");
        failed(&ask(&Server::new(vec![stream(cut, 64)]).url), 3, &["no answer: ", "limit of tokens"], "cut off");
        let none = Server::new(vec![whole("200 OK", "", r#"{"a": 1}"#)]);
        failed(&ask(&none.url), 1, &["not an answer: it is {\"a\":1}"], "no answer");
        assert_eq!(none.received().len(), 1);
        let url = "http://me:secret@127.0.0.1:99999/v1";
        let line = failed(&ask(url), 1, &["--base-url is http://127.0.0.1:99999/v1: expected a port"], url);
        assert!(!line.contains("secret"), "{line}");
    }
}
