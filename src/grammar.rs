//! A grammar as data: what an answer must look like, apart from who asks for it and who enforces it.

use std::fmt;

/// The form of one answer: Lark text in [llguidance's dialect](https://github.com/guidance-ai/llguidance), and what
/// such text cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grammar {
    /// The text; control tokens are written as `<name>`. The rules of a schema follow a comment that
    /// names it as [`SchemaOf`] is written.
    pub lark: String,
    /// The schemas that are part of it.
    pub schemas: Vec<SchemaOf>,
    /// Content that is JSON.
    pub content: Option<JsonContent>,
    /// Parameters between tags.
    pub parameters: Option<Parameters>,
}

/// Whose schema it is that an answer is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaOf {
    /// The content's.
    ResponseFormat,
    /// The parameters' of the tool of this name.
    Tool(String),
}

impl fmt::Display for SchemaOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResponseFormat => f.write_str("response_format"),
            Self::Tool(name) => write!(f, "tool {name:?}: parameters"),
        }
    }
}

/// JSON as an answer's content: a grammar of JSON strings allows any text in them, a reader of the answer does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonContent {
    /// The content begins after this text; empty = at once.
    pub after: String,
    /// Texts that no string may hold.
    pub forbidden: Vec<String>,
}

/// Values between tags: `open name raw … close` holds plain text, `open name json … close` JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// What precedes a name.
    pub open: String,
    /// What follows the name of a value that is plain text. Its first character is in no name, its last ends the tag
    /// and occurs in it nowhere else.
    pub raw: String,
    /// What follows the name of a value that is JSON; begins and ends like `raw`.
    pub json: String,
    /// What ends a value that is plain text.
    pub close: String,
    /// What no string in a JSON value may hold, since it would be read as the end of the value.
    pub forbidden: String,
    /// What begins a new group of parameters.
    pub group: String,
    /// Whether names, which the grammar lets be anything, must differ within a group.
    pub distinct: bool,
}
