//! Tags, right and misspelt.

use crate::chat::format::{BAR, BLANK};

/// The longest whitespace that is looked through to see what follows a tag.
pub(super) const LOOKAHEAD: usize = 256;
/// The longest name of a tag.
const LONGEST_TAG: usize = 64;

/// The tag that begins with `prefix`, where `rest` begins.
pub(super) enum Tag<'a> {
    /// Another text.
    No,
    /// What has arrived does not tell.
    Hold,
    /// A tag of this name; prefix and name have so many bytes.
    Is(&'a str, usize),
}

pub(super) fn tag<'a>(rest: &'a str, prefix: &str, last: bool) -> Tag<'a> {
    let Some(after) = rest.strip_prefix(prefix) else {
        return if !last && prefix.starts_with(rest) { Tag::Hold } else { Tag::No };
    };
    let length = after.bytes().take(LONGEST_TAG).take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if length == after.len() && !last {
        return Tag::Hold;
    }
    Tag::Is(&after[..length], prefix.len() + length)
}

/// The text behind a tag's `>`, if it has one, and whitespace; `None` if more text is needed to tell.
pub(super) fn behind_tag(rest: &str, last: bool) -> Option<&str> {
    if rest.is_empty() && !last {
        return None;
    }
    let rest = rest.strip_prefix('>').unwrap_or(rest);
    let after = rest.trim_start();
    let blank = rest.len() - after.len();
    if after.is_empty() && !last && blank < LOOKAHEAD {
        return None;
    }
    // Longer whitespace is text.
    Some(if blank < LOOKAHEAD { after } else { rest })
}

/// Whether a misspelt tag around calls begins somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// Another text.
    No,
    /// What has arrived does not tell.
    Hold,
    /// One of so many bytes.
    Is(usize),
}

/// Whether `rest`, which begins with a `<` or a bar, begins with a tag that a model may write in place of a block's: one
/// word about calls, functions or tools, between bars of any kind, with or without its `>`.
pub(super) fn wrapper(rest: &str, last: bool) -> Wrapper {
    const WORDS: [&str; 5] = ["call", "func", "tool", "invo", "dsml"];
    let (mut letters, mut before) = (String::new(), '<');
    for (at, c) in rest.char_indices().skip(1) {
        let end = match c {
            '>' => at + 1,
            // Behind a bar, a blank may stand before the word.
            ' ' if matches!(before, '|' | BAR) => continue,
            '\n' | '\r' | '\t' | ' ' | '<' => at,
            _ if at > LONGEST_TAG => return Wrapper::No,
            c if c.is_ascii_alphanumeric() => {
                letters.push(c.to_ascii_lowercase());
                before = c;
                continue;
            }
            '_' | BLANK | '-' | '/' | ':' | '|' | BAR => {
                before = c;
                continue;
            }
            _ => return Wrapper::No,
        };
        let is_one = WORDS.iter().any(|word| letters.contains(word));
        return if is_one { Wrapper::Is(end) } else { Wrapper::No };
    }
    if last { Wrapper::No } else { Wrapper::Hold }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers() {
        for tag in [
            "<function_calls>",
            "<tool_calls>",
            "<｜DSML｜function_call>",
            "<|DSML|function_calls>",
            "<DSML｜function_calls>",
            "<｜DSML｜ calls>",
            "｜DSML｜function_calls>",
            "<｜tool_calls_begin｜>",
            "</function_calls>",
        ] {
            assert_eq!(wrapper(tag, false), Wrapper::Is(tag.len()), "{tag}");
            let open = tag.strip_suffix('>').unwrap_or(tag);
            assert_eq!(wrapper(open, false), Wrapper::Hold, "{open}");
            assert_eq!(wrapper(open, true), Wrapper::No, "{open}");
            assert_eq!(wrapper(&format!("{open}\n"), false), Wrapper::Is(open.len()), "{open}");
        }
        for text in ["<b>", "< call>", "<a call>", "<div class=\"call\">", "<5.", &format!("<{}", "call".repeat(20))] {
            assert_eq!(wrapper(text, false), Wrapper::No, "{text}");
        }
    }
}
