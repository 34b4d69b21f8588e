//! What a person's terminal gets: no control characters from outside, and codes of our own only where it takes them.

use std::io::Write;

/// Text from outside, fit for a terminal: what could steer it or reorder a line is escaped, but for those in `kept`.
pub fn escaped(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let steers =
            c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match steers && !kept.contains(&c) {
            true => shown.extend(c.escape_debug()),
            false => shown.push(c),
        }
    }
    shown
}

/// As [`escaped`], of a text of several lines.
pub fn escaped_lines(text: &str) -> String {
    escaped(text, &['\n', '\t'])
}

/// Whether a stream takes ANSI codes.
pub fn takes_codes(is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Writes a line to standard error; a closed standard error is no reason to panic.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", escaped(line, &[]));
}
