//! Values as Python writes them: `json.dumps` and `str`.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::super::json::Json;
use super::super::python;

/// How `tojson` writes.
#[derive(Debug, Clone)]
pub(super) struct Dumps {
    pub ensure_ascii: bool,
    /// What a level is indented by; `None` = all on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
    /// A character that is never escaped.
    pub mark: char,
}

impl Dumps {
    pub fn write(&self, value: &Json, level: usize, out: &mut String) {
        match value {
            Json::String(text) => self.string(text, out),
            Json::Array(values) => {
                let items = values.iter().map(|value| (None, value)).collect();
                self.items(items, ['[', ']'], level, out);
            }
            Json::Object(entries) => {
                let mut items: Vec<_> = entries.iter().map(|(key, value)| (Some(key), value)).collect();
                if self.sort_keys {
                    items.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.items(items, ['{', '}'], level, out);
            }
            other => out.push_str(&other.to_python()),
        }
    }

    fn items(&self, items: Vec<(Option<&String>, &Json)>, ends: [char; 2], level: usize, out: &mut String) {
        let line = |level: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(level));
            }
        };
        out.push(ends[0]);
        let is_empty = items.is_empty();
        for (at, (key, value)) in items.into_iter().enumerate() {
            if at > 0 {
                out.push_str(&self.item_separator);
            }
            line(level + 1, out);
            if let Some(key) = key {
                self.string(key, out);
                out.push_str(&self.key_separator);
            }
            self.write(value, level + 1, out);
        }
        if !is_empty {
            line(level, out);
        }
        out.push(ends[1]);
    }

    fn string(&self, text: &str, out: &mut String) {
        let mut escaped = String::new();
        python::write_string(text, &mut escaped);
        if !self.ensure_ascii {
            out.push_str(&escaped);
            return;
        }
        for c in escaped.chars() {
            if c == self.mark || c.is_ascii() {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}

/// A value of a template as JSON; `None` if Python's `json` has none for it.
pub(super) fn to_json(value: &Value) -> Option<Json> {
    Some(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => Json::Number(number(value)),
        ValueKind::String => Json::String(value.as_str()?.to_string()),
        ValueKind::Map => {
            let entry = |key: Value| {
                let text = match key.kind() {
                    ValueKind::String => key.as_str()?.to_string(),
                    ValueKind::Number | ValueKind::Bool | ValueKind::None => to_json(&key)?.to_python(),
                    _ => return None,
                };
                Some((text, to_json(&value.get_item(&key).ok()?)?))
            };
            Json::Object(value.try_iter().ok()?.map(entry).collect::<Option<_>>()?)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            Json::Array(value.try_iter().ok()?.map(|value| to_json(&value)).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    // Digits that read back the same, with a point or an exponent.
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), |float| format!("{float:?}"))
}

/// Writes a value as Python's `str` does.
pub(super) fn write_str(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::String => out.push_str(value.as_str().unwrap_or_default()),
        _ => write_repr(value, out),
    }
}

fn write_repr(value: &Value, out: &mut String) {
    let join = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    let repr = |value: &Value| {
        let mut text = String::new();
        write_repr(value, &mut text);
        text
    };
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&Json::Number(number(value)).to_python()),
        ValueKind::String => out.push_str(&quoted(value.as_str().unwrap_or_default())),
        ValueKind::Map => {
            let entry = |key: Value| format!("{}: {}", repr(&key), repr(&value.get_item(&key).unwrap_or_default()));
            let entries = join(&mut value.try_iter().into_iter().flatten().map(entry));
            out.push_str(&format!("{{{entries}}}"));
        }
        ValueKind::Seq => {
            let values = join(&mut value.try_iter().into_iter().flatten().map(|value| repr(&value)));
            let values = match (value.is_tuple(), value.len()) {
                (true, Some(1)) => format!("({values},)"),
                (true, _) => format!("({values})"),
                (false, _) => format!("[{values}]"),
            };
            out.push_str(&values);
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// A text as Python's `repr` writes it, but for characters that do not print, which stay.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
