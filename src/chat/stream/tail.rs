//! The end of a text that is written piece by piece.

use crate::chat::format::BAR;

/// No control token is as long.
const LONGEST: usize = 64;

/// The last characters of a text.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(String);

impl Tail {
    /// More of the text.
    pub fn push(&mut self, text: &str) {
        self.0.push_str(&text[text.floor_char_boundary(text.len().saturating_sub(LONGEST))..]);
        let start = self.0.floor_char_boundary(self.0.len().saturating_sub(LONGEST));
        self.0.drain(..start);
    }

    /// Whether the text ends in what may go on as a control token: `<｜…` of any, a part of one of these `words`.
    ///
    /// What this finds are all of the vocabulary's, not those of one format: a text that holds one is a trap for
    /// whoever tokenizes it next.
    pub fn opens_token(&self, words: &[&str]) -> bool {
        let open = self.0.rfind('<').is_some_and(|at| {
            let rest = &self.0[at + 1..];
            rest.starts_with([BAR, '|']) && !rest.contains(|c: char| c == '>' || c.is_whitespace())
        });
        open || words.iter().any(|word| word.char_indices().skip(1).any(|(end, _)| self.0.ends_with(&word[..end])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens() {
        let words = ["｜DSML｜", "<think>", "</think>"];
        let opens = |text: &str| {
            let mut whole = Tail::default();
            whole.push(text);
            let mut pieces = Tail::default();
            text.chars().for_each(|c| pieces.push(c.encode_utf8(&mut [0; 4])));
            assert_eq!(whole.opens_token(&words), pieces.opens_token(&words), "{text}");
            whole.opens_token(&words)
        };
        let long = format!("{}<｜end▁of▁sentenc", "x".repeat(100));
        for text in [
            "<",
            "a<｜",
            "<｜Use",
            long.as_str(),
            "<｜User｜",
            "</",
            "</thin",
            "<think",
            "<<",
            "a｜",
            "｜DSML",
            "<|EOT|",
        ] {
            assert!(opens(text), "{text}");
        }
        for text in ["", "a", "<｜User｜>", "<｜ a", "<｜\n", "<thin>", "a < b", "<a", "HTML", "</tool"] {
            assert!(!opens(text), "{text}");
        }
    }
}
