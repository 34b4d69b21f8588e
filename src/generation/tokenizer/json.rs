//! What `tokenizer.json` must satisfy beyond what the `tokenizers` crate checks.

use std::collections::HashMap;

use serde_json::Value;

use crate::config::json;
use crate::show::one_line;

/// How many times longer than its text the normalizer, pre-tokenizer or decoder may make it. Real ones stay below 50;
/// a few dozen replacements of `a` by `aa` would take all memory.
const MAX_GROWTH: f64 = 1024.0;

/// A token that the file adds to the model's vocabulary.
pub(super) struct AddedToken {
    pub content: String,
    pub id: u64,
}

/// Refuses a key twice (the library takes the last), an id twice (which token it then decodes to is left to chance) and
/// steps that make text grow without bound. Returns the added tokens: the library numbers them itself, whatever
/// the file says.
pub(super) fn check(bytes: &[u8]) -> Result<Vec<AddedToken>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
    let file = json::parse(text).map_err(|error| format!("invalid JSON: {error}"))?;
    if !file.is_object() {
        return Err(format!("expected a JSON object, found {}", json::describe(&file)));
    }
    check_ids(&file["model"]["vocab"])?;
    for key in ["normalizer", "pre_tokenizer", "decoder"] {
        let growth = growth(&file[key]);
        if growth > MAX_GROWTH {
            return Err(format!("{key}: makes text up to {growth:.1e} times longer, at most {MAX_GROWTH} is accepted"));
        }
    }
    let added = file["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(added
        .iter()
        .filter_map(|token| {
            Some(AddedToken { content: token["content"].as_str()?.to_string(), id: token["id"].as_u64()? })
        })
        .collect())
}

fn check_ids(vocab: &Value) -> Result<(), String> {
    let Some(vocab) = vocab.as_object() else { return Ok(()) };
    let mut tokens = HashMap::with_capacity(vocab.len());
    for (token, id) in vocab {
        let Some(id) = id.as_u64() else { continue };
        if let Some(other) = tokens.insert(id, token) {
            return Err(format!("model.vocab: `{}` and `{}` both have id {id}", one_line(other), one_line(token)));
        }
    }
    Ok(())
}

/// How many times longer a text can become, at most; by the sizes that the steps name.
fn growth(step: &Value) -> f64 {
    for list in ["normalizers", "pretokenizers", "decoders"] {
        if let Some(steps) = step[list].as_array() {
            return steps.iter().map(growth).product();
        }
    }
    let length = |value: &Value| value.as_str().map_or(0.0, |text| text.len() as f64);
    match step["type"].as_str() {
        Some("Replace") => match &step["pattern"]["String"] {
            Value::String(pattern) if !pattern.is_empty() => (length(&step["content"]) / pattern.len() as f64).max(1.0),
            // An expression may match a single byte, or nothing at all, between any two.
            _ => 1.0 + length(&step["content"]),
        },
        Some("Prepend") => 1.0 + length(&step["prepend"]),
        // A byte outside ASCII becomes a character of two.
        Some("ByteLevel") => 2.0,
        Some("Metaspace") => 4.0,
        _ => 1.0,
    }
}
