//! The Jinja environment, as Hugging Face sets it up.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::super::encode::Start;
use super::super::format::THINK;
use super::error::TemplateError;
use super::guard::Find;
use super::python::{Dumps, to_json, write_str};
use super::time::strftime;
use super::values::Values;
use super::{TemplateInput, TemplatePrompt};

/// What a template may take: one step or 64 bytes each.
const FUEL: u64 = 4_000_000;
/// The longest prompt in bytes.
const MAX_OUTPUT: usize = 64 << 20;

/// The names of the templates in the environment.
const DEFAULT: &str = "chat_template";
const TOOL_USE: &str = "tool_use";
/// The variable that holds the guard's mark; no template can name it.
const MARK: &str = " mark";

/// Compiled templates.
#[derive(Debug)]
pub(super) struct Program {
    environment: Environment<'static>,
}

/// What `raise_exception` was called with.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

impl Program {
    pub fn new(source: &str, tool_use: Option<&str>) -> Result<Self, TemplateError> {
        let syntax = |error: Error| TemplateError::Syntax { line: error.line().unwrap_or(0), problem: problem(&error) };
        let mut environment = Environment::new();
        let blocks = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(syntax)?;
        environment.set_syntax(blocks);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_formatter(|out, _, value| {
            let mut text = String::new();
            write_str(value, &mut text);
            out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
        });
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
            let message = message.to_string();
            Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
        });
        environment.add_template_owned(DEFAULT, without_generation(source)).map_err(syntax)?;
        if let Some(source) = tool_use {
            environment.add_template_owned(TOOL_USE, without_generation(source)).map_err(syntax)?;
        }
        Ok(Self { environment })
    }

    pub fn render(
        &self,
        tool_use: bool,
        input: &TemplateInput<'_>,
        tokens: &[(String, String)],
        find: Find<'_>,
    ) -> Result<TemplatePrompt, TemplateError> {
        let values = Values::new(input, find)?;
        let now = input.now;
        let strftime_now = Value::from_function(move |format: &str| {
            strftime(now, format).map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))
        });
        let mut context = vec![
            ("messages", values.messages),
            ("tools", values.tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(input.add_generation_prompt)),
            ("enable_thinking", Value::from(input.thinking)),
            ("thinking", Value::from(input.thinking)),
            ("strftime_now", strftime_now),
            (MARK, Value::from(values.guard.mark.to_string())),
        ];
        context.extend(tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        let template = self.environment.get_template(if tool_use { TOOL_USE } else { DEFAULT }).map_err(failed)?;
        let marked = template.render(Value::from_pairs(context)).map_err(failed)?;
        if marked.len() > MAX_OUTPUT {
            return Err(TemplateError::TooMuch);
        }
        let (text, outside) = values.guard.take(&marked);
        let start = if text.trim_end().ends_with(THINK) { Start::Reasoning } else { Start::Content };
        Ok(TemplatePrompt { text, outside, start })
    }
}

/// Hugging Face's `tojson`: `json.dumps` with `ensure_ascii` off.
fn tojson(state: &State, value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<Value, Error> {
    let invalid = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    let named: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<Value> = options.get("indent")?;
    let separators: Option<Value> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) if indent.kind() == ValueKind::String => indent.as_str().map(str::to_string),
        Some(indent) => {
            let width = indent.as_usize().filter(|width| *width <= 64);
            Some(" ".repeat(width.ok_or_else(|| invalid(format!("tojson: indent is {indent}, expected 0 to 64")))?))
        }
    };
    let (item_separator, key_separator) = match separators.filter(|separators| !separators.is_none()) {
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some(pair) => {
            let part = |at: usize| pair.get_item_by_index(at).ok().and_then(|part| part.as_str().map(str::to_string));
            part(0).zip(part(1)).ok_or_else(|| invalid("tojson: separators are not two texts".to_string()))?
        }
    };
    let mark = state.lookup(MARK).and_then(|mark| mark.as_str().and_then(|mark| mark.chars().next()));
    let dumps = Dumps {
        ensure_ascii: ensure_ascii.or(named).unwrap_or(false),
        indent,
        item_separator,
        key_separator,
        sort_keys: sort_keys.unwrap_or(false),
        mark: mark.unwrap_or('\0'),
    };
    let json = to_json(value).ok_or_else(|| invalid(format!("tojson: {} is not JSON serializable", value.kind())))?;
    let mut out = String::new();
    dumps.write(&json, 0, &mut out);
    Ok(Value::from(out))
}

/// A template without Hugging Face's `generation` blocks, which mark what an assistant writes and print nothing.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        let (sign, word) = match tag.strip_prefix(['-', '+']) {
            Some(word) => (&tag[..1], word),
            None => ("", tag),
        };
        let blank = word.len() - word.trim_start().len();
        let name: String = word[blank..].chars().take_while(char::is_ascii_alphanumeric).collect();
        let other = match name.as_str() {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        out.push_str(before);
        match other {
            Some(other) => {
                out.push_str(sign);
                out.push_str(&word[..blank]);
                out.push_str(other);
                rest = &word[blank + name.len()..];
            }
            None => rest = tag,
        }
    }
    out.push_str(rest);
    out
}

fn problem(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

fn failed(error: Error) -> TemplateError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        cause = current.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::TooMuch;
    }
    TemplateError::Render { line: error.line().unwrap_or(0), problem: problem(&error) }
}
