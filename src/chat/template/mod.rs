//! Prompts by a checkpoint's own chat template, for models whose format the crate does not have itself.
//!
//! A template is a Jinja program in `chat_template.jinja`, `chat_template.json` or `tokenizer_config.json`. It is
//! rendered as Hugging Face's `apply_chat_template` does it: blocks are trimmed, `tojson` writes Python's JSON, Python's
//! methods of texts and objects are there, `raise_exception` and `strftime_now` too. A template sees the conversation and
//! nothing else: it cannot read files or include other templates, and its steps, its memory and its output are bounded.
//!
//! The answers of such a model are read by the format's [`Version`](super::Version): reasoning between think marks, and
//! calls where it is known how the model writes them.

mod error;
#[cfg(feature = "template")]
mod guard;
#[cfg(feature = "template")]
mod python;
#[cfg(feature = "template")]
mod render;
#[cfg(feature = "template")]
mod time;
#[cfg(feature = "template")]
mod values;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

pub use error::TemplateError;

use super::encode::Start;
use super::json::Json;
use super::message::{Message, Tool};
use crate::foreign::ForeignFile;

/// The largest file that is read for a template; the longest templates take some 20 kB.
const MAX_BYTES: u64 = 4 << 20;

/// The tokens of `tokenizer_config.json` that templates know by name.
const TOKEN_NAMES: [&str; 6] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token"];

/// A checkpoint's chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    /// The template for conversations with tools, if there is another one for those.
    tool_use: Option<String>,
    /// The texts of named tokens.
    #[cfg_attr(not(feature = "template"), expect(dead_code))]
    tokens: Vec<(String, String)>,
    #[cfg(feature = "template")]
    program: std::sync::Arc<render::Program>,
}

/// What of a conversation is rendered.
#[derive(Debug, Clone, Copy)]
pub struct TemplateInput<'a> {
    /// The messages. Results stand behind the message with their calls, in the order of the calls
    /// ([`order_results`](super::order_results)).
    pub messages: &'a [Message],
    /// The tools that the model is told about.
    pub tools: &'a [Tool],
    /// Whether the model is to think: the variables `enable_thinking` and `thinking`.
    pub thinking: bool,
    /// Whether the prompt ends with the opener of an answer.
    pub add_generation_prompt: bool,
    /// Whether calls have Kimi's ids, `functions.NAME:INDEX`, in place of their own.
    pub kimi_ids: bool,
    /// The time that `strftime_now` writes, in UTC.
    pub now: SystemTime,
}

impl<'a> TemplateInput<'a> {
    /// The messages, without tools and thinking, and with an opener.
    pub fn new(messages: &'a [Message]) -> Self {
        Self {
            messages,
            tools: &[],
            thinking: false,
            add_generation_prompt: true,
            kimi_ids: false,
            now: SystemTime::now(),
        }
    }
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplatePrompt {
    /// The text.
    pub text: String,
    /// The ranges of the text, in bytes, where a control token stands in text from outside: as
    /// [`Tokenizer::encode_guarded`](crate::generation::Tokenizer::encode_guarded) takes them.
    pub outside: Vec<Range<usize>>,
    /// In what state the completion begins: in the reasoning if the text ends with `<think>`.
    pub start: Start,
}

impl ChatTemplate {
    /// Reads the template of a checkpoint folder; `None` if it has none.
    ///
    /// `chat_template.jinja` comes first, then `chat_template.json`, then `tokenizer_config.json`, whose
    /// `chat_template` may also be a list of named templates: `default`, and `tool_use` for conversations with tools.
    ///
    /// # Errors
    /// - [`TemplateError::File`] if a file cannot be read or is malformed.
    /// - [`TemplateError::Syntax`] if the template is not one.
    /// - [`TemplateError::FeatureMissing`] if there is a template, but the feature `template` is off.
    pub fn load(dir: impl AsRef<Path>) -> Result<Option<Self>, TemplateError> {
        let dir = dir.as_ref();
        let config = read_json(dir, "tokenizer_config.json")?;
        let tokens = TOKEN_NAMES.iter().filter_map(|name| {
            let token = config.as_ref()?.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.to_string(), text.to_string()))
        });
        let tokens = tokens.collect();
        if let Some(source) = read(dir, "chat_template.jinja")?.filter(|source| !source.trim().is_empty()) {
            return Self::new(source, None, tokens).map(Some);
        }
        let json = read_json(dir, "chat_template.json")?;
        let file =
            |name: &str, problem: &str| TemplateError::File { path: dir.join(name), problem: problem.to_string() };
        for (name, config) in [("chat_template.json", &json), ("tokenizer_config.json", &config)] {
            match config.as_ref().and_then(|config| config.get("chat_template")) {
                None | Some(Json::Null) => {}
                Some(Json::String(source)) if source.trim().is_empty() => {}
                Some(Json::String(source)) => return Self::new(source.clone(), None, tokens).map(Some),
                Some(Json::Array(list)) => {
                    let of = |name: &str| {
                        let entry = list.iter().find(|entry| entry.get("name").and_then(Json::as_str) == Some(name));
                        entry.and_then(|entry| entry.get("template")).and_then(Json::as_str).map(str::to_string)
                    };
                    let default = of("default")
                        .ok_or_else(|| file(name, "chat_template: expected a template named `default` in the list"))?;
                    return Self::new(default, of("tool_use"), tokens).map(Some);
                }
                Some(_) => return Err(file(name, "chat_template: expected a text or a list of named templates")),
            }
        }
        Ok(None)
    }

    /// A template from its text.
    ///
    /// - `tool_use`: another template for conversations with tools.
    /// - `tokens`: names and texts of tokens, such as `bos_token`, which the template sees as variables.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] if a text is not a template; [`TemplateError::FeatureMissing`] without the feature
    /// `template`.
    #[cfg(feature = "template")]
    pub fn new(source: String, tool_use: Option<String>, tokens: Vec<(String, String)>) -> Result<Self, TemplateError> {
        let program = std::sync::Arc::new(render::Program::new(&source, tool_use.as_deref())?);
        Ok(Self { source, tool_use, tokens, program })
    }

    /// Without the feature `template`, always fails.
    ///
    /// # Errors
    /// [`TemplateError::FeatureMissing`].
    #[cfg(not(feature = "template"))]
    pub fn new(
        _source: String,
        _tool_use: Option<String>,
        _tokens: Vec<(String, String)>,
    ) -> Result<Self, TemplateError> {
        Err(TemplateError::FeatureMissing)
    }

    /// Returns the text of the template, without that for tools.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template writes tools.
    pub fn has_tools(&self) -> bool {
        self.tool_use.is_some() || self.source.contains("tools")
    }

    /// Whether the text of the template, or of that for tools, contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        self.source.contains(text) || self.tool_use.as_ref().is_some_and(|source| source.contains(text))
    }

    /// Renders a conversation.
    ///
    /// Call arguments are objects for the template. A result knows the name of the tool that it answers. Where a text
    /// from outside contains a control token, the token's range is among [`TemplatePrompt::outside`]; think marks in an
    /// assistant's content are left to the template, which may take them for reasoning.
    ///
    /// - `control_token`: returns the first control token in a text, as a part of it.
    ///
    /// # Errors
    /// - [`TemplateError::Refused`] if the template calls `raise_exception`.
    /// - [`TemplateError::Render`] and [`TemplateError::TooMuch`] if it fails.
    /// - [`TemplateError::Arguments`] if the arguments of a call are not the text of a JSON object.
    #[cfg(feature = "template")]
    pub fn render(
        &self,
        input: &TemplateInput<'_>,
        control_token: &dyn for<'t> Fn(&'t str) -> Option<&'t str>,
    ) -> Result<TemplatePrompt, TemplateError> {
        let use_tools = self.tool_use.is_some() && !input.tools.is_empty();
        self.program.render(use_tools, input, &self.tokens, control_token)
    }

    /// Without the feature `template`, always fails.
    ///
    /// # Errors
    /// [`TemplateError::FeatureMissing`].
    #[cfg(not(feature = "template"))]
    pub fn render(
        &self,
        _input: &TemplateInput<'_>,
        _control_token: &dyn for<'t> Fn(&'t str) -> Option<&'t str>,
    ) -> Result<TemplatePrompt, TemplateError> {
        Err(TemplateError::FeatureMissing)
    }
}

/// Reads a file; `None` if there is none.
fn read(dir: &Path, name: &str) -> Result<Option<String>, TemplateError> {
    let path = dir.join(name);
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let problem = |problem: String| TemplateError::File { path: path.clone(), problem };
    let io = |error: std::io::Error| problem(error.to_string());
    if !std::fs::metadata(&path).map_err(io)?.is_file() {
        return Err(problem("not a file".to_string()));
    }
    let mut bytes = Vec::new();
    File::open(&path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(problem(format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    if let Some(found) = ForeignFile::of(&bytes) {
        return Err(problem(format!("is {found}")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| problem("not UTF-8".to_string()))
}

fn read_json(dir: &Path, name: &str) -> Result<Option<Json>, TemplateError> {
    let Some(text) = read(dir, name)? else { return Ok(None) };
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let problem = |error: serde_json::Error| format!("invalid JSON: {error}");
    let json = Json::parse(text).map_err(|error| TemplateError::File { path: dir.join(name), problem: problem(error) });
    json.map(Some)
}
