//! A call as it is written, and the text of its arguments.

use std::collections::HashSet;

use crate::chat::json::Json;
use crate::chat::message::Tool;
use crate::chat::python;

/// Parameters that models wrap all arguments in.
const WRAPPERS: [&str; 2] = ["arguments", "input"];

/// A call in progress.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub index: usize,
    /// The tool's name, once it is known.
    pub name: String,
    /// All its text so far.
    pub raw: String,
    /// The parameters so far.
    keys: HashSet<String>,
    /// Which parameters would be wrappers.
    pub unwraps: Vec<&'static str>,
    /// The parameter that is being read.
    pub parameter: Option<Parameter>,
    /// A wrapper's key and value as JSON text, and the object in it: not yet written.
    wrapped: Option<(String, String)>,
    /// Whether the arguments have their opening brace.
    open: bool,
    /// V3 and V3.1: the arguments so far.
    pub arguments: String,
}

/// A parameter that is being read.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub key: String,
    /// What `string` says, if it says something.
    pub is_string: Option<bool>,
    /// The opening tag's attributes and `>`.
    pub header: String,
    /// Whether the value is written as it arrives.
    pub streams: bool,
}

/// Which parameters of a tool would be wrappers: those its schema does not have. None if the tool is not known.
pub(super) fn unwraps(tools: &[Tool], name: &str) -> Vec<&'static str> {
    let Some(tool) = tools.iter().find(|tool| tool.name() == name) else { return Vec::new() };
    let has = |key: &str| {
        let properties = tool.parameters().and_then(|schema| schema.get("properties"));
        properties.is_some_and(|properties| properties.get(key).is_some())
    };
    WRAPPERS.into_iter().filter(|key| !has(key)).collect()
}

impl Call {
    /// Whether no parameter has been read yet.
    pub fn is_bare(&self) -> bool {
        self.keys.is_empty()
    }

    /// Begins a parameter; returns what that adds to the arguments, or `None` if the call has it already.
    pub fn begin(&mut self, key: &str, is_string: Option<bool>, header: String) -> Option<String> {
        let first = self.keys.is_empty();
        if !self.keys.insert(key.to_string()) {
            return None;
        }
        let mut out = String::new();
        self.write_wrapped(&mut out);
        let may_wrap = first && self.unwraps.contains(&key);
        let streams = is_string == Some(true) && !may_wrap;
        if streams {
            self.write_key(key, &mut out);
            out.push('"');
        }
        self.parameter = Some(Parameter { key: key.to_string(), is_string, header, streams });
        Some(out)
    }

    /// Ends a parameter that streams; returns what that adds to the arguments.
    pub fn end_streamed(&mut self) -> String {
        self.parameter = None;
        "\"".to_string()
    }

    /// Ends a parameter with its whole value; returns what that adds to the arguments, or `None` if the call has a
    /// parameter of this name already.
    pub fn end_buffered(&mut self, value: &str) -> Option<String> {
        let parameter = self.parameter.take()?;
        let mut out = String::new();
        let (mut key, mut value, mut is_string) = (parameter.key, value.to_string(), parameter.is_string);
        if is_string.is_none() {
            // The tag ended at its first `">`. If its real end is later, the key has a `">` in it.
            let whole = format!("{}{value}", parameter.header);
            if let Some(rest) = whole.strip_prefix(" name=\"")
                && let Some((at, tag, kind)) = crate::chat::parse::first_kind(rest)
            {
                self.keys.remove(&key);
                key = rest[..at].to_string();
                value = rest[at + tag.len()..].to_string();
                is_string = Some(kind);
                if !self.keys.insert(key.clone()) {
                    return None;
                }
            }
        }
        let json = Json::parse_nested(&value).ok();
        let text = match (is_string, &json) {
            (Some(true), _) | (_, None) => {
                let mut text = String::new();
                python::write_string(&value, &mut text);
                text
            }
            (_, Some(_)) => value.clone(),
        };
        if self.keys.len() == 1 && self.unwraps.contains(&key.as_str()) && matches!(json, Some(Json::Object(_))) {
            let mut entry = String::new();
            python::write_string(&key, &mut entry);
            entry.push_str(": ");
            entry.push_str(&text);
            self.wrapped = Some((entry, value.trim().to_string()));
            return Some(out);
        }
        self.write_key(&key, &mut out);
        out.push_str(&text);
        Some(out)
    }

    /// Ends the call; returns what that adds to the arguments.
    pub fn close(&mut self) -> String {
        match (self.wrapped.take(), self.open) {
            (Some((_, object)), _) => object,
            (None, true) => "}".to_string(),
            (None, false) => "{}".to_string(),
        }
    }

    fn write_key(&mut self, key: &str, out: &mut String) {
        out.push_str(if self.open { ", " } else { "{" });
        self.open = true;
        python::write_string(key, out);
        out.push_str(": ");
    }

    /// A wrapper that is followed by another parameter was none.
    fn write_wrapped(&mut self, out: &mut String) {
        if let Some((entry, _)) = self.wrapped.take() {
            out.push_str(if self.open { ", " } else { "{" });
            self.open = true;
            out.push_str(&entry);
        }
    }
}
