//! `generation_config.json`: a checkpoint's recommended sampling.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::{Result, WeightsError};
use super::{MAX_CONFIG_BYTES, load_config, read_text};
use crate::config::ConfigError;
use crate::config::json;

/// The keys of `generation_config.json`; one that is absent or null is `None` (or empty).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// First token of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// Whether to sample; otherwise the most probable token is taken.
    pub do_sample: Option<bool>,
    /// Divides the logits; >= 0.
    pub temperature: Option<f64>,
    /// Probability mass to sample from; in (0, 1].
    pub top_p: Option<f64>,
    /// Tokens to sample from; 0 means all.
    pub top_k: Option<usize>,
    /// Least probability, as a part of the best token's; in [0, 1].
    pub min_p: Option<f64>,
    /// Divides the positive logits of tokens that were there before; > 0, 1 means none.
    pub repetition_penalty: Option<f64>,
    /// Most tokens to generate; > 0.
    pub max_new_tokens: Option<usize>,
    /// Keys that would change answers under `transformers` and that this crate does not apply, in the order of the file.
    pub not_applied: Vec<String>,
}

/// Keys that this crate does not apply, each with the value that changes nothing, as JSON; null never does.
const NOT_APPLIED: [(&str, &str); 20] = [
    ("min_length", "0"),
    ("min_new_tokens", "0"),
    ("typical_p", "1"),
    ("top_h", "null"),
    ("epsilon_cutoff", "0"),
    ("eta_cutoff", "0"),
    ("num_beams", "1"),
    ("penalty_alpha", "0"),
    ("dola_layers", "null"),
    ("guidance_scale", "1"),
    ("no_repeat_ngram_size", "0"),
    ("encoder_repetition_penalty", "1"),
    ("bad_words_ids", "[]"),
    ("sequence_bias", "{}"),
    ("suppress_tokens", "[]"),
    ("begin_suppress_tokens", "[]"),
    ("forced_bos_token_id", "null"),
    ("forced_eos_token_id", "null"),
    ("exponential_decay_length_penalty", "null"),
    ("stop_strings", "[]"),
];

impl GenerationConfig {
    /// The name of the file in a checkpoint's directory.
    pub const FILE: &str = "generation_config.json";

    /// Reads the file in the checkpoint directory `dir`; `None` if there is none.
    ///
    /// # Errors
    /// [`WeightsError::Io`] if it cannot be read, [`WeightsError::Config`] if it is refused or names a token id that is
    /// not below the `vocab_size` of the `config.json` beside it, and as [`load_config`].
    pub fn load(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = dir.as_ref().join(Self::FILE);
        match read_text(&path, MAX_CONFIG_BYTES) {
            Ok(text) => {
                let vocab_size = load_config(dir)?.vocab_size;
                let config = Self::from_json(&text).and_then(|config| config.within(vocab_size));
                config.map(Some).map_err(|source| WeightsError::Config { path, source })
            }
            Err(_) if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a token id that the vocabulary does not have.
    fn within(self, vocab_size: usize) -> std::result::Result<Self, ConfigError> {
        let ids = self.bos_token_id.iter().map(|id| ("bos_token_id", id));
        let mut ids = ids.chain(self.eos_token_id.iter().map(|id| ("eos_token_id", id)));
        match ids.find(|(_, id)| **id as usize >= vocab_size) {
            None => Ok(self),
            Some((key, id)) => Err(ConfigError::new(key, format!("{id} is not below vocab_size {vocab_size}"))),
        }
    }

    /// Reads the text of a `generation_config.json`. Keys that this crate does not apply are in
    /// [`GenerationConfig::not_applied`] where they would change answers; others are ignored.
    ///
    /// # Errors
    /// A [`ConfigError`] naming the key that is of the wrong type or out of range.
    pub fn from_json(text: &str) -> std::result::Result<Self, ConfigError> {
        let value =
            json::parse(json::without_bom(text)).map_err(|e| ConfigError::new("", format!("invalid JSON: {e}")))?;
        let Value::Object(map) = &value else {
            return Err(ConfigError::new("", format!("expected a JSON object, found {}", json::describe(&value))));
        };
        let config = Self {
            bos_token_id: typed(map, "bos_token_id", "a token id", token_id)?,
            eos_token_id: typed(map, "eos_token_id", "a token id or a list of them", |value| match value {
                Value::Array(list) => list.iter().map(token_id).collect(),
                value => token_id(value).map(|id| vec![id]),
            })?
            .unwrap_or_default(),
            do_sample: typed(map, "do_sample", "true or false", Value::as_bool)?,
            temperature: typed(map, "temperature", "a number that is not negative", |value| {
                value.as_f64().filter(|temperature| *temperature >= 0.0)
            })?,
            top_p: typed(map, "top_p", "a number above 0 and at most 1", |value| {
                value.as_f64().filter(|p| *p > 0.0 && *p <= 1.0)
            })?,
            top_k: typed(map, "top_k", "a whole number", whole)?,
            min_p: typed(map, "min_p", "a number from 0 to 1", |value| {
                value.as_f64().filter(|p| (0.0..=1.0).contains(p))
            })?,
            repetition_penalty: typed(map, "repetition_penalty", "a number above 0", |value| {
                value.as_f64().filter(|penalty| *penalty > 0.0)
            })?,
            max_new_tokens: typed(map, "max_new_tokens", "a whole number above 0", |value| {
                whole(value).filter(|count| *count > 0)
            })?,
            not_applied: map
                .iter()
                .filter(|(key, value)| changes_answers(key, value))
                .map(|(key, _)| key.clone())
                .collect(),
        };
        Ok(config)
    }
}

/// Whether `key` is one of [`NOT_APPLIED`] with a value that matters.
fn changes_answers(key: &str, value: &Value) -> bool {
    let neutral = |text: &str| match (text.parse::<f64>(), value) {
        (Ok(number), value) => value.as_f64() == Some(number),
        (Err(_), Value::Array(list)) => text == "[]" && list.is_empty(),
        (Err(_), Value::Object(map)) => text == "{}" && map.is_empty(),
        _ => false,
    };
    !value.is_null() && NOT_APPLIED.iter().any(|(name, text)| *name == key && !neutral(text))
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn typed<T>(
    map: &Map<String, Value>,
    key: &str,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> std::result::Result<Option<T>, ConfigError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value)
            .map(Some)
            .ok_or_else(|| ConfigError::new(key, format!("expected {expected}, found {}", json::describe(value)))),
    }
}
