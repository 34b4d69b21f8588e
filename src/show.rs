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

/// `text` on one line, without its middle if it has more than `longest` characters: a message's beginning says what is
/// wrong, its end what was expected.
#[cfg(feature = "server")]
pub(crate) fn ends(text: &str, longest: usize) -> String {
    let whole = shown(text, longest);
    if text.chars().nth(longest).is_none() && whole.chars().count() <= longest {
        return whole;
    }
    let half = longest / 2;
    let head: String = whole.chars().take(half).collect();
    let tail: String = text.chars().rev().take(half).collect::<Vec<_>>().into_iter().rev().collect();
    let tail: Vec<char> = shown(&tail, half).chars().collect();
    let tail: String = tail[tail.len().saturating_sub(half)..].iter().collect();
    format!("{head} ... {tail}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_keep_both_ends() {
        assert_eq!(ends("a\nb", 10), "a\\nb");
        assert_eq!(ends(&"x".repeat(10), 10), "x".repeat(10));
        assert_eq!(ends(&format!("{}{}", "a".repeat(50), "z".repeat(50)), 10), "aaaaa ... zzzzz");
        // Escapes count, too.
        let escaped = ends(&"\u{1}".repeat(1_000), 100);
        assert!(escaped.len() <= 105 && escaped.contains(" ... "), "{escaped}");
    }
}
