//! The layers of `docs/architecture.md`, and where the chat formats' markup stands, read from the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules of `src/`, lowest layer first; a module may use those of the lines before its own.
const LAYERS: [&[&str]; 11] = [
    &["show", "foreign", "chart", "statistics"],
    &["config", "grammar"],
    &["ops"],
    &["weights", "distributed"],
    &["model"],
    &["generation", "chat"],
    &["environment"],
    &["chat_model", "training"],
    &["agent", "synthesis"],
    &["server", "rl", "evaluation"],
    &["error", "prelude"],
];

/// All that `model` may use, so that it can move to another crate together with its ops.
const BELOW_MODEL: [&str; 2] = ["config", "ops"];

/// The one file that writes the markup of the chat formats.
const MARKUP: &str = "src/chat/format.rs";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder, by their path in the repository.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.strip_prefix(root()).unwrap().to_path_buf());
        }
    }
}

/// Every Rust file of `src/`, without its comments and its unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code.lines().map(|line| match line.trim_start().starts_with("//") {
            true => "",
            false => line.rsplit_once(" // ").map_or(line, |(code, _)| code),
        });
        (path, lines.collect::<Vec<_>>().join("\n"))
    };
    paths.into_iter().map(read).collect()
}

/// The module of `src/` that a file belongs to.
fn module(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

/// The names that follow `crate::`, those of a group among them.
fn used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => drop(names.insert(name(rest))),
            Some(group) => {
                let mut depth = 0;
                let mut begins = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if begins && !c.is_whitespace() => {
                            names.insert(name(&group[at..]));
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn modules_use_lower_layers_only() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let own = module(&path);
        if own == "lib" {
            continue;
        }
        let Some(own_layer) = layer(&own) else {
            wrong.push(format!("{}: {own} is in no layer", path.display()));
            continue;
        };
        // `super` that leads out of the module would be another way to name its neighbours.
        let depth = path.components().count() - 1 - usize::from(path.ends_with("mod.rs"));
        if code.contains(&["super"; 16][..depth.min(16)].join("::")) {
            wrong.push(format!("{}: `super` leads to the crate's root", path.display()));
        }
        for name in used(&code).into_iter().filter(|name| *name != own) {
            let lower = layer(&name).is_some_and(|layer| layer < own_layer);
            let allowed = own != "model" || BELOW_MODEL.contains(&name.as_str());
            if !lower || !allowed {
                wrong.push(format!("{}: {own} uses crate::{name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_after_crate_are_found() {
    let code =
        "use crate::ops::{a, b};\nuse crate::{chat::{Delta, x}, model,\n    weights::y};\ncrate::show::one_line()";
    let names: Vec<_> = used(code).into_iter().collect();
    assert_eq!(names, ["chat", "model", "ops", "show", "weights"]);
    assert!(layer("model") > layer("ops") && layer("elsewhere").is_none());
}

/// What only the formats write: the bar of control tokens and of DSML, the blank of control tokens, think marks.
const MARKS: [&str; 5] = ["\u{ff5c}", "\u{2581}", "<think", "</think", "DSML"];

#[test]
fn markup_stands_in_one_file() {
    let mut wrong = Vec::new();
    for (path, code) in sources().into_iter().filter(|(path, _)| path != Path::new(MARKUP)) {
        for (number, line) in code.lines().enumerate() {
            if MARKS.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "markup outside {MARKUP}:\n{}", wrong.join("\n"));
    let format = std::fs::read_to_string(root().join(MARKUP)).unwrap();
    assert!(MARKS.iter().all(|mark| format.contains(mark)), "a mark that no format has");
}
