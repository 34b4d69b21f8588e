//! Regular expressions of JSON Schema as those of a Lark terminal.

/// A text as a regular expression that matches just it.
pub(super) fn escape(text: impl AsRef<str>) -> String {
    let mut escaped = String::new();
    for c in text.as_ref().chars() {
        if r"\.+*?()|[]{}^$#&-~/".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// JSON Schema's `pattern`, which is found anywhere in a string, as an expression of whole strings. Digits and word
/// characters are ASCII, as in ECMAScript.
///
/// # Errors
/// What in it cannot be expressed.
pub(super) fn whole(pattern: &str) -> Result<String, &'static str> {
    if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| pattern.contains(look)) {
        return Err("it looks around");
    }
    let mut branches = Vec::new();
    for branch in split(pattern)? {
        let (start, branch) = match branch.strip_prefix('^') {
            Some(rest) => ("", rest),
            None => ("(?s:.*)", branch),
        };
        let (branch, end) = match branch.strip_suffix('$') {
            Some(rest) if !ends_in_escape(rest) => (rest, ""),
            _ => (branch, "(?s:.*)"),
        };
        branches.push(format!("{start}(?:{}){end}", body(branch)?));
    }
    Ok(branches.join("|"))
}

/// Whether a text ends with a backslash that escapes what follows.
fn ends_in_escape(text: &str) -> bool {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// What a scan of an expression sees at a character.
struct Scan {
    escaped: bool,
    class: bool,
    depth: usize,
}

impl Scan {
    fn new() -> Self {
        Self { escaped: false, class: false, depth: 0 }
    }

    /// Passes a character; says whether it means itself: escaped or in a class.
    fn pass(&mut self, c: char) -> Result<bool, &'static str> {
        if self.escaped {
            self.escaped = false;
            return Ok(true);
        }
        match c {
            '\\' => self.escaped = true,
            '[' if !self.class => self.class = true,
            ']' if self.class => self.class = false,
            _ if self.class => return Ok(true),
            '(' => self.depth += 1,
            ')' => self.depth = self.depth.checked_sub(1).ok_or("the parentheses are not balanced")?,
            _ => {}
        }
        Ok(false)
    }
}

/// The alternatives of the top level.
fn split(pattern: &str) -> Result<Vec<&str>, &'static str> {
    let mut scan = Scan::new();
    let mut branches = Vec::new();
    let mut start = 0;
    for (at, c) in pattern.char_indices() {
        if !scan.pass(c)? && c == '|' && scan.depth == 0 {
            branches.push(&pattern[start..at]);
            start = at + 1;
        }
    }
    if scan.depth > 0 || scan.class || scan.escaped {
        return Err("it is not complete");
    }
    branches.push(&pattern[start..]);
    Ok(branches)
}

/// An expression as it may stand between the slashes of a Lark terminal.
fn body(pattern: &str) -> Result<String, &'static str> {
    let mut scan = Scan::new();
    let mut text = String::new();
    for c in pattern.chars() {
        let escaped = scan.escaped;
        let itself = scan.pass(c)?;
        match c {
            '^' | '$' if !itself && !text.ends_with('[') => return Err("it has ^ or $ inside"),
            'd' if escaped => text.push_str("[0-9]"),
            'D' if escaped => text.push_str("[^0-9]"),
            'w' if escaped => text.push_str("[0-9a-zA-Z_]"),
            'W' if escaped => text.push_str("[^0-9a-zA-Z_]"),
            '/' => text.push_str("\\/"),
            // To the other dialect these would be ends of words.
            '<' | '>' if escaped => text.push(c),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\\' if !escaped => {}
            c if escaped => {
                text.push('\\');
                text.push(c);
            }
            c => text.push(c),
        }
    }
    Ok(text)
}

/// The expression of a `format` of JSON Schema; `None` for one that is unknown, which restricts nothing. Where the
/// standard leaves a choice, these are the usual spellings.
pub(super) fn format(name: &str) -> Option<String> {
    const DATE: &str = "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|\
                        02-(?:0[1-9]|1[0-9]|2[0-8]))|\
                        (?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";
    const TIME: &str =
        r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+\-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
    const LABEL: &str = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?";
    const BYTE: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    const PATH: &str = r"(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@\/?]|%[0-9a-fA-F]{2})*";
    const GROUP: &str = "[0-9a-fA-F]{1,4}";
    Some(match name {
        "date" => DATE.to_string(),
        "time" => TIME.to_string(),
        "date-time" => format!("{DATE}T{TIME}"),
        "duration" => "P(?:[0-9]+W|[0-9]+D(?:T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))?|\
             [0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|\
             T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))"
            .to_string(),
        "hostname" => format!(r"{LABEL}(?:\.{LABEL}){{0,8}}"),
        "email" => format!(r"[a-zA-Z0-9_+\-]{{1,32}}(?:\.[a-zA-Z0-9_+\-]{{1,31}})?@{LABEL}(?:\.{LABEL}){{1,4}}"),
        "ipv4" => format!(r"(?:{BYTE}\.){{3}}{BYTE}"),
        "ipv6" => format!(
            "(?:{GROUP}:){{7}}{GROUP}|{GROUP}(?::{GROUP}){{0,2}}::(?:{GROUP}(?::{GROUP}){{0,2}})?|\
             ::(?:{GROUP}(?::{GROUP}){{0,4}})?"
        ),
        "uuid" => "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}".to_string(),
        "uri" => format!(
            r"[a-zA-Z][a-zA-Z0-9+\-.]*:(?:\/\/{LABEL}(?:\.{LABEL}){{0,8}}(?::[0-9]{{1,4}})?(?:\/{PATH})?|[a-zA-Z0-9]{PATH})(?:#{PATH})?"
        ),
        _ => return None,
    })
}
