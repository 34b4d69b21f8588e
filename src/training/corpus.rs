//! Text to examples.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::batch::Example;
use super::error::{Result, TrainingError};
use super::lines;
use crate::generation::Tokenizer;

/// What stands around each document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorpusOptions {
    /// The id before each document.
    pub bos: Option<u32>,
    /// The id behind each document, which is learnt.
    pub eos: Option<u32>,
}

/// Returns a document as an example of which every token is learnt. Control tokens that are written out in the text are
/// tokenized as any other text.
///
/// # Errors
/// If the tokenizer fails.
pub fn document(text: &str, tokenizer: &Tokenizer, options: &CorpusOptions) -> Result<Example> {
    let outside = 0..text.len();
    let text = tokenizer.encode_guarded(text, if text.is_empty() { &[] } else { std::slice::from_ref(&outside) })?;
    Ok(Example::whole(options.bos.into_iter().chain(text).chain(options.eos).collect()))
}

/// Reads the documents of a file: of a file named `*.jsonl` the field `text` of each line, of any other the whole file as
/// one document. Empty documents are left out.
///
/// # Errors
/// [`TrainingError::Read`] if the file cannot be read; [`TrainingError::Line`] for a line without a `text`; if the
/// tokenizer fails.
pub fn read_corpus(path: impl AsRef<Path>, tokenizer: &Tokenizer, options: &CorpusOptions) -> Result<Vec<Example>> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    let path = path.as_ref();
    let mut examples = Vec::new();
    let mut add = |text: &str| -> Result<()> {
        if !text.is_empty() {
            examples.push(document(text, tokenizer, options)?);
        }
        Ok(())
    };
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        lines::read(path, |line: Line| add(&line.text).map_err(|error| error.to_string()))?;
    } else {
        let text =
            std::fs::read_to_string(path).map_err(|source| TrainingError::Read { path: path.to_path_buf(), source })?;
        add(&text)?;
    }
    Ok(examples)
}
