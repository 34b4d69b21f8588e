//! Text from outside, fit for a message: on one line, and not at any length.

use std::fmt::{Display, LowerExp};
use std::path::Path;

/// The longest text that is shown whole, in characters.
const LONGEST: usize = 200;
/// The longest that a value quoted within a message may be, in characters.
const LONGEST_QUOTED: usize = 60;

/// `text` with line breaks and other characters that do not print escaped, cut after `longest` characters.
pub(crate) fn shown(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().take(longest) {
        match c {
            // These do no harm, and paths and quotations have them.
            '\\' | '\'' | '"' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(longest).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A name or a message from outside, on one line and not at any length.
pub fn one_line(text: &str) -> String {
    shown(text, LONGEST)
}

/// A path on one line, and whole if a system could know it.
pub fn one_line_path(path: &Path) -> String {
    const LONGEST: usize = 4096;
    shown(&path.display().to_string(), LONGEST)
}

/// A value in quotation marks.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTED) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}", format!("{}...", &text[..end])),
    }
}

/// A number, without the hundreds of zeros that a plain `1e300` comes with.
pub(crate) fn number<T: Copy + Into<f64> + Display + LowerExp>(value: T) -> String {
    let size: f64 = value.into().abs();
    if !size.is_finite() || size == 0.0 || (1e-5..1e16).contains(&size) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}
