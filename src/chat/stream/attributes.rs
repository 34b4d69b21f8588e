//! The attributes of a tag, as a model may write them.

/// The longest stretch that is read as attributes.
const LONGEST: usize = 4096;

/// Reads ` key="value" key='value'` with any blanks. `None` if the text is not that from end to end.
pub(super) fn attributes(text: &str) -> Option<Vec<(&str, &str)>> {
    if text.len() > LONGEST {
        return None;
    }
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let next = rest.trim_start();
        if next.is_empty() {
            return Some(found);
        }
        if next.len() == rest.len() {
            return None;
        }
        let length = next.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-').count();
        let value = next[length..].trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = value[1..].split_once(quote)?;
        if length == 0 {
            return None;
        }
        found.push((&next[..length], value));
        rest = after;
    }
}

/// The value of an attribute.
pub(super) fn attribute<'a>(attributes: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| *value)
}
