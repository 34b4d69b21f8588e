//! JSON text as Python's `json` module reads and writes it: what the models were trained on.
//!
//! Python differs from other writers in its separators (`", "`, `": "`), in escaping nothing beyond what JSON demands
//! (`ensure_ascii=False`), and in numbers: a float is printed with the digits of `repr`, an integer of any size as it
//! is.

use std::collections::HashMap;

use super::json::{Json, MAX_DEPTH};

impl Json {
    /// The text that Python's `json.dumps(value, ensure_ascii=False)` gives after Python read this value.
    ///
    /// So `1e5` becomes `100000.0`, `1.10` becomes `1.1`, `1e-7` becomes `1e-07`, and a float beyond the range of `f64`
    /// `Infinity`, as Python writes it.
    pub fn to_python(&self) -> String {
        let mut out = String::new();
        write(self, &mut out);
        out
    }

    /// Whether Python takes the value for true; one that it does not counts as absent where it is optional.
    pub(crate) fn is_truthy(&self) -> bool {
        match self {
            Json::Null | Json::Bool(false) => false,
            Json::Bool(true) => true,
            Json::Number(text) => text.parse::<f64>().is_ok_and(|value| value != 0.0),
            Json::String(text) => !text.is_empty(),
            Json::Array(values) => !values.is_empty(),
            Json::Object(entries) => !entries.is_empty(),
        }
    }
}

fn write(value: &Json, out: &mut String) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(text) => write_number(text, out),
        Json::String(text) => write_string(text, out),
        Json::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write(value, out);
            }
            out.push(']');
        }
        Json::Object(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_string(key, out);
                out.push_str(": ");
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// A string with its quotes.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    escape(text, out);
    out.push('"');
}

/// The inside of a string: text escaped piece by piece is the text escaped as a whole.
pub(crate) fn escape(text: &str, out: &mut String) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0x00..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if short.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        } else {
            out.push_str(short);
        }
    }
    out.push_str(&text[plain..]);
}

fn write_number(text: &str, out: &mut String) {
    if text.contains(['.', 'e', 'E']) {
        match text.parse() {
            Ok(value) => write_float(value, out),
            Err(_) => out.push_str(text),
        }
    } else if text == "-0" {
        out.push('0');
    } else {
        out.push_str(text);
    }
}

/// Python's `repr` of a float: the shortest digits that read back the same, plain from 1e-4 to below 1e16.
fn write_float(value: f64, out: &mut String) {
    if value.is_infinite() {
        out.push_str(if value < 0.0 { "-Infinity" } else { "Infinity" });
        return;
    }
    let scientific = shortest(value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()));
        return;
    }
    if mantissa.starts_with('-') {
        out.push('-');
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
        out.push_str(&digits);
    } else {
        let whole = exponent.unsigned_abs() as usize + 1;
        let (before, after) = digits.split_at(whole.min(digits.len()));
        out.push_str(before);
        out.extend(std::iter::repeat_n('0', whole - before.len()));
        out.push('.');
        out.push_str(if after.is_empty() { "0" } else { after });
    }
}

/// The shortest digits that read back the same, in scientific notation.
///
/// Of two texts equally short and near, Python takes the one whose last digit is even, and so does rounding to a given
/// number of digits; printing the shortest digits alone need not.
fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let digits = text.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    if even.parse() == Ok(value) { even } else { text }
}

/// Reads JSON text as Python's `json.loads` does: `NaN`, `Infinity` and `-Infinity` are numbers too. They stay such
/// in the value, which is therefore not to be written as JSON, only with [`Json::to_python`].
pub(crate) fn loads(text: &str) -> Result<Json, String> {
    let mut reader = Reader { text, at: 0 };
    reader.space();
    let value = reader.value(MAX_DEPTH)?;
    reader.space();
    if reader.at < text.len() { Err(reader.wrong("the end")) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, expected: &str) -> String {
        format!("invalid JSON at byte {}, expected {expected}", self.at)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth == 0 {
            return Err(format!("nests deeper than {MAX_DEPTH} levels at byte {}", self.at));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') if !self.text[self.at..].starts_with("-I") => self.number(),
            _ => {
                for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
                    if self.eat(word) {
                        return Ok(value);
                    }
                }
                for word in ["NaN", "Infinity", "-Infinity"] {
                    if self.eat(word) {
                        return Ok(Json::Number(word.to_string()));
                    }
                }
                Err(self.wrong("a value"))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        self.at += 1;
        self.space();
        if self.eat("}") {
            return Ok(Json::Object(entries));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a key"));
            }
            let key = self.string()?;
            self.space();
            if !self.eat(":") {
                return Err(self.wrong("`:`"));
            }
            self.space();
            let value = self.value(depth - 1)?;
            match places.get(&key) {
                Some(&at) => entries[at].1 = value,
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
            self.space();
            if self.eat("}") {
                return Ok(Json::Object(entries));
            }
            if !self.eat(",") {
                return Err(self.wrong("`,` or `}`"));
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        let mut values = Vec::new();
        self.at += 1;
        self.space();
        if self.eat("]") {
            return Ok(Json::Array(values));
        }
        loop {
            values.push(self.value(depth - 1)?);
            self.space();
            if self.eat("]") {
                return Ok(Json::Array(values));
            }
            if !self.eat(",") {
                return Err(self.wrong("`,` or `]`"));
            }
            self.space();
        }
    }

    /// A string: its end is found here, its escapes are serde_json's matter.
    fn string(&mut self) -> Result<String, String> {
        let bytes = self.text.as_bytes();
        let mut end = self.at + 1;
        loop {
            match bytes.get(end) {
                None => return Err(self.wrong("a string that ends")),
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
        let literal = self.text.get(self.at..=end).ok_or_else(|| self.wrong("a string"))?;
        let text = serde_json::from_str(literal).map_err(|error| format!("string at byte {}: {error}", self.at))?;
        self.at = end + 1;
        Ok(text)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        self.eat("-");
        if !self.eat("0") && self.digits() == 0 {
            return Err(self.wrong("a digit"));
        }
        let whole = self.at;
        if !(self.eat(".") && self.digits() > 0) {
            self.at = whole;
        }
        let fraction = self.at;
        let exponent = self.eat("e") || self.eat("E");
        let _sign = exponent && (self.eat("+") || self.eat("-"));
        if !(exponent && self.digits() > 0) {
            self.at = fraction;
        }
        Ok(Json::Number(self.text[start..self.at].to_string()))
    }
}
