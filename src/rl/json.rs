//! A call of the loss as JSON: its options and its batch.

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};

use super::batch::{Batch, KeptSets, Policy};
use super::config::{GrpoConfig, Kl};
use super::error::{Result, RlError};
use super::logprob::log_probs;
use crate::config::json;
use crate::show::quoted;

/// The arguments of one call of [`loss`](crate::rl::loss), as a file keeps them, so that the call can be repeated.
///
/// An object with `config`, which has every option of [`GrpoConfig`], and `batch`; other keys are not read. The batch has,
/// for `T` rows, `N` sequences and `V` ids:
///
/// | key | shape | holds |
/// |---|---|---|
/// | `vocab` | | `V` |
/// | `logits` | `[T][V]` | logits of the policy |
/// | `tokens`, `seq_id` | `[T]` | ids, `0..V`; sequences, `0..N` |
/// | `gen_mask` | `[T]` | 1 or true: the model generated the token |
/// | `old_logp`, `ref_logp` | `[T]` | as in [`Batch`] |
/// | `ref_logits` | `[T][V]` | in place of `ref_logp`: logits of the reference. Not read if `ref_logp` is there |
/// | `kept` | `[T]` | ascending ids of the kept set, or null for all; may be left out. Not read unless `keep_sampling_mask` |
/// | `rewards`, `group_id`, `beta` | `[N]` | as in [`Batch`] |
/// | `truncated` | `[N]` | 1 or true: the sequence was cut off |
#[derive(Debug, Clone)]
pub struct LossCall {
    /// The options.
    pub config: GrpoConfig,
    /// The batch. Its policy is [`Policy::Logits`].
    pub batch: Batch,
}

impl LossCall {
    /// Reads a call; the logits become a tensor `[T, V]` of `dtype` (f32 or f64) on `device`.
    ///
    /// # Errors
    /// [`RlError::Json`] if the text is not JSON, or has a key twice; [`RlError::Config`] and [`RlError::Batch`] with the
    /// key at fault; a failed tensor operation.
    pub fn from_json(text: &str, dtype: DType, device: &Device) -> Result<Self> {
        let json_error = |message| RlError::Json { message };
        let root = json::parse(json::without_bom(text)).map_err(json_error)?;
        let section = |key: &str| match root.get(key) {
            Some(Value::Object(section)) => Ok(section),
            Some(other) => Err(json_error(format!("`{key}` is {}, expected an object", shown(other)))),
            None => Err(json_error(format!("an object with `config` and `batch` was expected; `{key}` is missing"))),
        };
        let config = read_config(section("config")?)?;
        let batch = Fields(section("batch")?).batch(&config, dtype, device)?;
        Ok(Self { config, batch })
    }
}

fn read_config(found: &Map<String, Value>) -> Result<GrpoConfig> {
    let known =
        serde_json::to_value(GrpoConfig::v32()).map_err(|error| RlError::Json { message: error.to_string() })?;
    if let Some(key) = known.as_object().and_then(|known| known.keys().find(|key| !found.contains_key(*key))) {
        return Err(RlError::config(key, "missing"));
    }
    for (key, value) in found {
        // Alone, so that the error is this key's.
        let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
        serde_json::from_value::<GrpoConfig>(alone).map_err(|error| RlError::config(key, error.to_string()))?;
    }
    let config: GrpoConfig = serde_json::from_value(Value::Object(found.clone()))
        .map_err(|error| RlError::Json { message: format!("config: {error}") })?;
    config.validate()?;
    Ok(config)
}

/// A value in an error, not at any length.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(_) => "an object".to_string(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn flag(value: &Value) -> Option<bool> {
    match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => value.as_bool(),
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The keys of `batch`.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A key's value; `None` if it is missing or null.
    fn optional(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn required(&self, key: &str) -> Result<&'a Value> {
        self.0.get(key).ok_or_else(|| RlError::batch(key, "missing"))
    }

    fn list(&self, key: &str) -> Result<&'a [Value]> {
        elements(key, self.required(key)?)
    }

    fn values<T>(&self, key: &str, expected: &str, read: fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        values(key, self.list(key)?, expected, read)
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        self.values(key, "a number", number)
    }

    fn flags(&self, key: &str) -> Result<Vec<bool>> {
        self.values(key, "0 or 1", flag)
    }

    fn ids(&self, key: &str) -> Result<Vec<u32>> {
        self.values(key, "a whole number from 0 on", id)
    }

    /// Logits `[rows, vocab]`.
    fn logits(&self, key: &str, rows: usize, vocab: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let found = self.list(key)?;
        if found.len() != rows {
            return Err(RlError::batch(key, format!("{} rows, expected {rows} as `tokens` has", found.len())));
        }
        let mut logits = Vec::new();
        for (row, value) in found.iter().enumerate() {
            let key = format!("{key}[{row}]");
            let row = values(&key, elements(&key, value)?, "a number", number)?;
            if row.len() != vocab {
                return Err(RlError::batch(key, format!("{} logits, expected {vocab} (`vocab`)", row.len())));
            }
            logits.extend(row);
        }
        Ok(Tensor::from_vec(logits, (rows, vocab), device)?.to_dtype(dtype)?)
    }

    fn kept(&self, rows: usize) -> Result<KeptSets> {
        let Some(found) = self.optional("kept") else {
            return Ok(KeptSets::full(rows));
        };
        let set = |(row, value): (usize, &Value)| match value {
            Value::Null => Ok(None),
            value => {
                let key = format!("kept[{row}]");
                values(&key, elements(&key, value)?, "a whole number from 0 on", id).map(Some)
            }
        };
        let sets = elements("kept", found)?.iter().enumerate().map(set).collect::<Result<Vec<_>>>()?;
        KeptSets::from_rows(&sets)
    }

    fn batch(&self, config: &GrpoConfig, dtype: DType, device: &Device) -> Result<Batch> {
        let tokens = self.ids("tokens")?;
        let rows = tokens.len();
        if rows == 0 {
            return Err(RlError::batch("tokens", "no row, expected at least one"));
        }
        let vocab = self.required("vocab")?;
        let vocab = id(vocab)
            .filter(|&vocab| vocab > 0)
            .ok_or_else(|| RlError::batch("vocab", format!("{}, expected a whole number from 1 on", shown(vocab))))?;
        let vocab = vocab as usize;
        let mut batch = Batch {
            policy: Policy::Logits(self.logits("logits", rows, vocab, dtype, device)?),
            seq_id: self.ids("seq_id")?,
            gen_mask: self.flags("gen_mask")?,
            old_logp: self.numbers("old_logp")?,
            ref_logp: None,
            kept: if config.keep_sampling_mask { self.kept(rows)? } else { KeptSets::full(rows) },
            rewards: self.numbers("rewards")?,
            group_id: self.values("group_id", "a whole number", Value::as_i64)?,
            beta: self.numbers("beta")?,
            truncated: self.flags("truncated")?,
            tokens,
        };
        // Before the reference is computed from its logits.
        batch.generated()?;
        batch.ref_logp = if self.optional("ref_logp").is_some() {
            Some(self.numbers("ref_logp")?)
        } else if config.kl != Kl::None && self.optional("ref_logits").is_some() {
            let logits = self.logits("ref_logits", rows, vocab, dtype, device)?;
            let kept = (config.keep_sampling_mask && config.ref_renormalise).then_some(&batch.kept);
            let found = log_probs(&logits, &batch.tokens, &batch.gen_mask, kept, config.temperature)?;
            Some(found.logp.to_dtype(DType::F64)?.to_vec1()?)
        } else {
            None
        };
        Ok(batch)
    }
}

fn elements<'a>(key: &str, value: &'a Value) -> Result<&'a [Value]> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(RlError::batch(key, format!("{}, expected a list", shown(other)))),
    }
}

fn values<T>(key: &str, found: &[Value], expected: &str, read: fn(&Value) -> Option<T>) -> Result<Vec<T>> {
    let element = |(index, value): (usize, &Value)| {
        read(value)
            .ok_or_else(|| RlError::batch(format!("{key}[{index}]"), format!("{}, expected {expected}", shown(value))))
    };
    found.iter().enumerate().map(element).collect()
}
