//! The example `chat` in a terminal: Ctrl-C, and who gets ANSI codes.

#![cfg(unix)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::examples_support::example;

/// A program in a terminal.
struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let (mut keys, mut program) = (0, 0);
        let none = std::ptr::null_mut();
        // SAFETY: both places are written to, and the rest may be null.
        let opened = unsafe { libc::openpty(&mut keys, &mut program, none, none.cast(), none.cast()) };
        assert_eq!(opened, 0);
        // SAFETY: both are open, and nobody else's.
        let (keys, program) = unsafe { (OwnedFd::from_raw_fd(keys), OwnedFd::from_raw_fd(program)) };
        command.stdin(program.try_clone().unwrap()).stdout(program.try_clone().unwrap()).stderr(program);
        let child = command.spawn().unwrap();
        // The command keeps what it gave the program.
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let keys = File::from(keys);
        let mut output = keys.try_clone().unwrap();
        let (shown, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let _ = shown.send(bytes[..count].to_vec());
            }
        });
        Self { child, keys, screen, seen: String::new() }
    }

    fn chat(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = example("chat");
        command.args(args).env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
        let mut terminal = Self::start(&mut command);
        terminal.wait_for("lists the commands.");
        terminal.wait_for("> ");
        terminal
    }

    fn type_line(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.wait_for(line);
    }

    /// What is shown up to a text.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left).unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn interrupt(&self) {
        let id = i32::try_from(self.child.id()).unwrap();
        // SAFETY: the program has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.seen);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So hot that an answer has no end.
const ENDLESS: &[&str] = &["--tools", "off", "--thinking", "off", "--temperature", "60"];

#[test]
fn ctrl_c() {
    let mut terminal = Terminal::chat(ENDLESS, &[]);
    for _ in 0..2 {
        terminal.type_line("Tell me a story.");
        // It has begun.
        terminal.wait_for("\r\n");
        thread::sleep(Duration::from_millis(100));
        terminal.interrupt();
        terminal.wait_for("[ended: cancelled]");
        terminal.wait_for("> ");
    }
    terminal.type_line("/tools");
    terminal.wait_for("tools are off");
    terminal.wait_for("> ");
    terminal.interrupt();
    assert_eq!(terminal.end().code(), Some(130));
}

#[test]
fn ctrl_c_at_once() {
    let mut terminal = Terminal::chat(&[], &[]);
    terminal.interrupt();
    assert_eq!(terminal.end().code(), Some(130));
}

#[test]
fn ansi_codes() {
    let told = |environment: &[(&str, &str)]| {
        let mut terminal = Terminal::chat(&[], environment);
        terminal.type_line("Hello!");
        let mut told = terminal.wait_for("of them thinking)");
        terminal.type_line("/quit");
        assert_eq!(terminal.end().code(), Some(0));
        told.push_str(&terminal.seen);
        told
    };
    let dimmed = told(&[]);
    assert!(dimmed.contains("\x1b[2m") && dimmed.contains("\x1b[0m"), "{dimmed:?}");
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = told(&[environment]);
        assert!(!plain.contains('\x1b'), "{environment:?}: {plain:?}");
    }
    assert!(told(&[("NO_COLOR", "")]).contains("\x1b[2m"), "an empty NO_COLOR says nothing");
}
