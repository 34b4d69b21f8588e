//! Whether the reasoning keeps to one script.

use super::Reward;
use crate::chat::Role;
use crate::rl::error::Result;
use crate::rl::rollout::Episode;

/// A script, by ranges of Unicode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Script {
    /// Latin letters: English and most European languages.
    Latin,
    /// Han characters: Chinese.
    Han,
    /// Cyrillic letters.
    Cyrillic,
}

impl Script {
    /// Whether a letter belongs to it.
    pub fn contains(self, letter: char) -> bool {
        match self {
            Self::Latin => matches!(letter, 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}'),
            Self::Han => {
                matches!(letter, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
            }
            Self::Cyrillic => matches!(letter, '\u{400}'..='\u{52f}'),
        }
    }
}

/// The share of the reasoning's letters that belong to a script, in `[0, 1]`; 1 if there is no letter.
///
/// # Source
/// DeepSeek-R1 (arXiv 2501.12948): the share of words of the target language in the chain of thought. Letters take the
/// place of words here, since not all scripts divide words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanguageConsistency {
    /// The script of the target language.
    pub script: Script,
}

impl LanguageConsistency {
    /// The share in a text.
    pub fn of(&self, text: &str) -> f64 {
        self.share(text.chars())
    }

    fn share(&self, text: impl Iterator<Item = char>) -> f64 {
        let (mut letters, mut own) = (0u64, 0u64);
        for letter in text.filter(|c| c.is_alphabetic()) {
            letters += 1;
            own += u64::from(self.script.contains(letter));
        }
        if letters == 0 { 1.0 } else { own as f64 / letters as f64 }
    }
}

impl Reward for LanguageConsistency {
    fn name(&self) -> &str {
        "language"
    }

    fn value(&self, episode: &Episode) -> Result<f64> {
        let answers = episode.messages.iter().filter(|message| message.role == Role::Assistant);
        Ok(self.share(answers.filter_map(|message| message.reasoning_content.as_deref()).flat_map(str::chars)))
    }
}
