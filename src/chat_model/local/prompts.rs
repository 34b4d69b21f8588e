//! Who writes the prompts of a checkpoint: the crate, or the checkpoint's own template.

use std::path::Path;

use super::super::error::{ChatModelError, Result};
use super::super::request::ChatRequest;
use super::detect::{Detected, detect_version};
use super::prompt::ChatPrompt;
use crate::chat::{ChatTemplate, TemplateInput, Version, order_results};
use crate::generation::Tokenizer;

/// Who writes prompts.
#[derive(Debug, Clone)]
pub(super) enum Prompts {
    /// The crate, in the chat's version.
    Own,
    /// The checkpoint's template.
    Template(Box<ChatTemplate>),
    /// There is no chat format, for this reason: only plain text is completed.
    Nobody(String),
}

/// The version and who writes prompts, for the checkpoint in a folder; and what says so.
///
/// A tokenizer with the tokens of DeepSeek's formats decides for those. Otherwise the checkpoint's template is rendered.
pub(super) fn of_checkpoint(dir: &Path, tokenizer: &Tokenizer) -> (Detected, Prompts) {
    let detected = detect_version(dir, tokenizer);
    if tokenizer.token_to_id(detected.version.eos()).is_some() {
        return (detected, Prompts::Own);
    }
    let of = |version, reason: &str, prompts| (Detected { version, reason: reason.to_string() }, prompts);
    match ChatTemplate::load(dir) {
        Ok(Some(template)) => {
            let version = Version::for_template(&template);
            of(
                version,
                "its tokenizer is not DeepSeek's, and it has a chat template",
                Prompts::Template(template.into()),
            )
        }
        Ok(None) => {
            let reason = "its tokenizer is not DeepSeek's, and it has no chat template";
            of(Version::Template, reason, Prompts::Nobody(reason.to_string()))
        }
        Err(error) => of(Version::Template, "its tokenizer is not DeepSeek's", Prompts::Nobody(error.to_string())),
    }
}

/// The prompt of a request by the checkpoint's template. What the model wrote itself is encoded anew, as the template may
/// change it.
pub(super) fn by_template(
    request: &ChatRequest,
    version: Version,
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    max_context: usize,
) -> Result<ChatPrompt> {
    let mut messages = request.messages.clone();
    order_results(&mut messages)?;
    let tools = request.shown_tools();
    let unsupported = |what: &str, needs| ChatModelError::Unsupported {
        what: what.to_string(),
        field: Some(what.to_string()),
        needs,
    };
    if !tools.is_empty() && !template.has_tools() {
        return Err(unsupported("tools", "a chat template with a place for tools, and this checkpoint's has none"));
    }
    if !tools.is_empty() && !version.reads_calls() {
        return Err(unsupported("tools", "a chat format whose calls are read: v3, v3.1, v3.2, kimi-k2 or glm"));
    }
    if request.response_format.is_some() || messages.iter().any(|message| message.response_format.is_some()) {
        return Err(unsupported("response_format", "the chat format v3.2"));
    }
    let input = TemplateInput {
        tools: &tools,
        thinking: request.thinking,
        kimi_ids: version == Version::KimiK2,
        ..TemplateInput::new(&messages)
    };
    let prompt = template.render(&input, &|text| tokenizer.find_control_token(text))?;
    tokenizer.check_size(&prompt.text, max_context)?;
    let ids = tokenizer.encode_guarded(&prompt.text, &prompt.outside)?;
    Ok(ChatPrompt { text: prompt.text, ids, start: prompt.start })
}

/// The name of the model in a folder: `owner/name` in the hub's cache, whose folders are named by commits; otherwise the
/// folder's name.
pub(super) fn model_name(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of_hub = || {
        let snapshots = dir.parent().filter(|parent| parent.ends_with("snapshots"))?;
        let (owner, model) = name(snapshots.parent()?)
            .strip_prefix("models--")?
            .split_once("--")
            .map(|(owner, model)| (owner.to_string(), model.to_string()))?;
        Some(format!("{owner}/{model}"))
    };
    of_hub().unwrap_or_else(|| name(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        let root = std::env::temp_dir().join(format!("model-names-{}", std::process::id()));
        for (path, expected) in [
            ("deepseek-v32", "deepseek-v32"),
            ("models--zai-org--GLM-5/snapshots/0123456789abcdef", "zai-org/GLM-5"),
            ("models--a--b--c/snapshots/0123", "a/b--c"),
            ("models--alone/snapshots/0123", "0123"),
            ("other/snapshots/0123", "0123"),
        ] {
            let dir = root.join(path);
            std::fs::create_dir_all(&dir).unwrap();
            assert_eq!(model_name(&dir), expected);
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
