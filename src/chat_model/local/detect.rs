//! Which chat format a checkpoint has, and how that is known.

use std::fmt;
use std::path::Path;

use crate::chat::{Json, Version};
use crate::foreign::ForeignFile;
use crate::generation::Tokenizer;
use crate::show::one_line;

/// The chat format of a checkpoint, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The format.
    pub version: Version,
    /// Which part of the checkpoint says so, as text.
    pub reason: String,
}

impl fmt::Display for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chat format {}: {}", self.version, self.reason)
    }
}

/// Returns the chat format of a checkpoint folder.
///
/// What its chat template writes counts first: DSML is V3.2's alone, and the tokens of calls are written in one way by
/// V3 and R1 and in another by V3.1, whose template V3.2-Exp has too. A template without such calls, or none
/// (V3.2 ships none; `null` is none), leaves it to `model_type`, and where that is `deepseek_v3` to the tokens: V3.1 has
/// some for search that V3 has not.
///
/// The template is `chat_template.jinja`, else `chat_template.json`, else the one in `tokenizer_config.json`. A file
/// that cannot be read, is of another kind (a Git LFS pointer) or is no JSON counts as absent, and the reason says so.
pub fn detect_version(dir: &Path, tokenizer: &Tokenizer) -> Detected {
    let mut problems = Vec::new();
    let config = object(dir, "config.json", &mut problems);
    let template = template(dir, &mut problems);
    let has_search = tokenizer.token_to_id(Version::NEW_IN_V31).is_some();
    let mut detected = decide(config.as_ref(), template.as_deref(), has_search);
    for problem in problems {
        detected.reason.push_str(&format!("; {problem}"));
    }
    detected
}

/// The format by what is known of a checkpoint.
fn decide(config: Option<&Json>, template: Option<&str>, has_search: bool) -> Detected {
    let field = |key: &str| config.and_then(|config| config.get(key));
    let model_type = field("model_type").and_then(Json::as_str).unwrap_or_default();
    let kind = match model_type {
        "" => "its config.json names no model_type".to_string(),
        model_type => format!("its model_type is {}", one_line(model_type)),
    };
    let is_sparse = match model_type {
        "deepseek_v32" => true,
        "" => matches!(field("index_topk"), Some(Json::Number(_))),
        _ => false,
    };
    let found = |version, reason: String| Detected { version, reason };
    if let Some(version) = template.and_then(Version::of_template) {
        return found(version, format!("its chat template writes calls as {version} does"));
    }
    let template = match template {
        Some(_) => "its chat template writes calls in no format that is known here",
        None => "it has no chat template",
    };
    if is_sparse {
        let kind = if model_type.is_empty() { format!("{kind}, but has index_topk") } else { kind };
        found(Version::V32, format!("{kind}, and {template}"))
    } else if has_search {
        found(Version::V31, format!("{kind}, {template}, and its tokenizer has V3.1's tokens for search"))
    } else {
        found(Version::V3, format!("{kind}, {template}, and its tokenizer has no tokens for search, unlike V3.1's"))
    }
}

/// A file of the folder, if it is there; what keeps it from being read is a problem.
fn text(dir: &Path, name: &str, problems: &mut Vec<String>) -> Option<String> {
    match std::fs::read_to_string(dir.join(name)) {
        Ok(text) => match ForeignFile::of(text.as_bytes()) {
            Some(found) => {
                problems.push(format!("{name} is {found}"));
                None
            }
            None => Some(text),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            problems.push(format!("{name} cannot be read: {error}"));
            None
        }
    }
}

fn object(dir: &Path, name: &str, problems: &mut Vec<String>) -> Option<Json> {
    let text = text(dir, name, problems)?;
    match Json::parse(&text) {
        Ok(json) => Some(json),
        Err(error) => {
            problems.push(format!("{name} is no JSON: {}", one_line(&error.to_string())));
            None
        }
    }
}

/// The text of the chat template, if there is one.
fn template(dir: &Path, problems: &mut Vec<String>) -> Option<String> {
    let whole = text(dir, "chat_template.jinja", problems).filter(|text| !text.trim().is_empty());
    whole.or_else(|| {
        ["chat_template.json", "tokenizer_config.json"].into_iter().find_map(|name| {
            let config = object(dir, name, problems)?;
            template_text(config.get("chat_template")?)
        })
    })
}

/// A template as configurations have it: a text, or a list of texts with names, which count together.
fn template_text(value: &Json) -> Option<String> {
    let text = match value {
        Json::String(text) => text.clone(),
        Json::Array(entries) => entries
            .iter()
            .filter_map(|entry| entry.get("template").and_then(Json::as_str))
            .collect::<Vec<_>>()
            .join("\n"),
        _ => return None,
    };
    Some(text).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        const V31: &str = "{{'<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' + arguments}}";
        const R1: &str = "{{type + '<｜tool▁sep｜>' + name + '\\n' + '```json' + '\\n'}}";
        let v32 = r#"{"model_type": "deepseek_v32", "index_topk": 2048}"#;
        let v3 = r#"{"model_type": "deepseek_v3"}"#;
        for (config, template, has_search, version) in [
            (v32, None, true, Version::V32),
            (v32, Some("{{ messages }}"), true, Version::V32),
            (v32, Some("{{ messages }}"), false, Version::V32),
            (v32, Some("<｜DSML｜function_calls>"), true, Version::V32),
            (v32, Some(V31), true, Version::V31), // V3.2-Exp
            (v3, Some("{{dsml}} ｜DSML｜"), true, Version::V32),
            (v3, None, true, Version::V31),
            (v3, None, false, Version::V3),
            (v3, Some(V31), false, Version::V31),
            (v3, Some(R1), true, Version::V3),
            (v3, Some("{{ messages }}"), true, Version::V31),
            (r#"{"index_topk": 64}"#, None, true, Version::V32),
            (r#"{"note": "\"index_topk\""}"#, None, false, Version::V3),
            (r#"{"model_type": "deepseek_v3", "note": "no \"index_topk\" here"}"#, None, false, Version::V3),
        ] {
            let found = decide(Json::parse(config).ok().as_ref(), template, has_search);
            assert_eq!(found.version, version, "{config} {template:?} {has_search}: {found}");
            assert!(!found.reason.is_empty());
        }
    }

    #[test]
    fn templates_of_a_configuration() {
        let of = |text: &str| template_text(&Json::parse(text).unwrap());
        assert_eq!(of("null"), None);
        assert_eq!(of("\"\""), None);
        assert_eq!(of("\"a\"").as_deref(), Some("a"));
        assert_eq!(
            of(r#"[{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]"#).unwrap(),
            "a\nb"
        );
    }
}
