//! Which format, and the table of texts that each is made of.

use std::fmt;
use std::str::FromStr;

use super::error::ChatError;
use super::format::{self, Calls, Format, NameMarks};
use super::template::ChatTemplate;

/// A chat format of the DeepSeek-V3 family, or of a model on its architecture.
///
/// [`KimiK2`](Self::KimiK2), [`Glm`](Self::Glm) and [`Template`](Self::Template) only say how answers are read: their
/// prompts are those of the checkpoint's own [`ChatTemplate`].
///
/// V3.2-Exp still has V3.1's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Version {
    /// DeepSeek-V3 of December 2024, with its template's peculiarities: a single call is not closed, and calls beside
    /// content are not written.
    V3Dec2024,
    /// DeepSeek-R1 and V3-0324.
    V3,
    /// DeepSeek-V3.1, V3.1-Terminus and V3.2-Exp.
    V31,
    /// DeepSeek-V3.2: calls as DSML.
    #[default]
    V32,
    /// Kimi-K2 and Moonlight.
    KimiK2,
    /// GLM-5.
    Glm,
    /// Any other model with a template. Its calls are not read.
    Template,
}

impl Version {
    /// Every version whose prompts the crate writes itself.
    pub const ALL: [Self; 4] = [Self::V3Dec2024, Self::V3, Self::V31, Self::V32];

    /// The name, as [`FromStr`] reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V3Dec2024 => "v3-dec2024",
            Self::V3 => "v3",
            Self::V31 => "v3.1",
            Self::V32 => "v3.2",
            Self::KimiK2 => format::KIMI_K2.name,
            Self::Glm => format::GLM.name,
            Self::Template => format::OTHER.name,
        }
    }

    /// Returns the version that reads the answers to a template's prompts, by the control tokens that the template
    /// writes.
    pub fn for_template(template: &ChatTemplate) -> Self {
        if template.contains(format::KIMI_MIDDLE) {
            Self::KimiK2
        } else if template.contains(format::GLM_BEGIN) {
            Self::Glm
        } else {
            Self::Template
        }
    }

    /// Whether calls are read in answers of this format.
    pub fn reads_calls(self) -> bool {
        self != Self::Template
    }

    /// The token that ends an assistant's turn.
    pub fn eos(self) -> &'static str {
        self.format().eos
    }

    /// The token that ends the reasoning.
    pub fn think_end(self) -> &'static str {
        self.format().think_end
    }

    /// The version whose calls a chat template writes; `None` if it writes none of them. V3 and V3.1 differ in what
    /// stands before the arguments.
    pub(crate) fn of_template(template: &str) -> Option<Self> {
        let Calls::Tokens(tokens) = &format::V3.calls else { return None };
        let bare = |mark: &'static str| mark.trim_matches(['<', '>', format::BAR]);
        if template.contains(bare(format::TAGS.mark)) {
            Some(Self::V32)
        } else if template.contains(bare(tokens.separator)) {
            let fenced = template.contains(tokens.before_arguments.trim());
            Some(if fenced { Self::V3 } else { Self::V31 })
        } else {
            None
        }
    }

    /// A token of V3.1's vocabulary that V3's has not.
    pub(crate) const NEW_IN_V31: &str = format::SEARCH;

    /// The tokens that begin a turn, which no answer holds.
    pub(crate) fn turn_tokens(self) -> [&'static str; 3] {
        let format = self.format();
        [format.bos, format.user, format.assistant]
    }

    /// What stands around the names in calls.
    pub(crate) fn name_marks(self) -> NameMarks {
        self.format().calls.name_marks()
    }

    /// The texts.
    pub(crate) fn format(self) -> &'static Format {
        match self {
            Self::V3Dec2024 => &format::V3_DEC2024,
            Self::V3 => &format::V3,
            Self::V31 => &format::V31,
            Self::V32 => &format::V32,
            Self::KimiK2 => &format::KIMI_K2,
            Self::Glm => &format::GLM,
            Self::Template => &format::OTHER,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Version {
    type Err = ChatError;

    /// Reads `v3`, `v3-dec2024`, `v3.1` or `v3.2`.
    fn from_str(name: &str) -> Result<Self, ChatError> {
        Self::ALL
            .into_iter()
            .find(|version| version.name() == name)
            .ok_or_else(|| ChatError::UnknownVersion(name.to_string()))
    }
}
