//! What chat and raw completions have in common.

use std::collections::BTreeMap;

use super::super::error::ApiError;
use super::super::options::ServerOptions;
use super::fields::{Fields, as_bool, as_list, as_number};
use crate::chat::Json;
use crate::generation::SamplingParams;

/// Most stop strings of a request.
const MAX_STOPS: usize = 16;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 1024;
/// Most tokens in `logit_bias`.
const MAX_BIASES: usize = 4096;

/// Fields that both endpoints have.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    /// The model asked for.
    pub model: Option<String>,
    /// Whether the answer comes as a stream of events.
    pub stream: bool,
    /// Whether the stream ends with the counts of tokens.
    pub include_usage: bool,
    /// Answers to each prompt.
    pub n: usize,
    /// How tokens are chosen.
    pub params: SamplingParams,
    /// Strings that end an answer.
    pub stop: Vec<String>,
}

impl Common {
    pub fn read(fields: &Fields<'_>, options: &ServerOptions) -> Result<Self, ApiError> {
        let stream = fields.bool("stream")?.unwrap_or(false);
        let include_usage = fields.read("stream_options", "{\"include_usage\": true or false}", |json| match json {
            Json::Object(_) => {
                json.get("include_usage").filter(|json| **json != Json::Null).map_or(Some(false), as_bool)
            }
            _ => None,
        })?;
        let n = fields.whole("n", 1, options.max_choices)?.unwrap_or(1);
        if fields.whole("best_of", 1, usize::MAX)?.is_some_and(|best| best != n) {
            return Err(ApiError::field("best_of", "every answer is given: expected the same as `n`"));
        }
        Ok(Self {
            model: fields.text("model")?,
            stream,
            include_usage: include_usage.unwrap_or(false),
            n,
            params: params(fields, &options.params)?,
            stop: stop(fields)?,
        })
    }

    /// The parameters of one of several answers: with a seed, each has its own.
    pub fn params_of(&self, choice: usize) -> SamplingParams {
        let seed = self.params.seed.map(|seed| seed.wrapping_add(choice as u64));
        SamplingParams { seed, ..self.params.clone() }
    }
}

fn params(fields: &Fields<'_>, defaults: &SamplingParams) -> Result<SamplingParams, ApiError> {
    let mut params = defaults.clone();
    let between = |name: &str, range: std::ops::RangeInclusive<f64>, expected: &str| {
        fields.read(name, expected, |json| as_number(json).filter(|number| range.contains(number)))
    };
    let set = |place: &mut f64, value: Option<f64>| *place = value.unwrap_or(*place);
    set(&mut params.temperature, between("temperature", 0.0..=100.0, "a number from 0 to 100")?);
    set(&mut params.top_p, between("top_p", f64::MIN_POSITIVE..=1.0, "a number above 0 and at most 1")?);
    set(&mut params.min_p, between("min_p", 0.0..=1.0, "a number from 0 to 1")?);
    set(&mut params.presence_penalty, between("presence_penalty", -2.0..=2.0, "a number from -2 to 2")?);
    set(&mut params.frequency_penalty, between("frequency_penalty", -2.0..=2.0, "a number from -2 to 2")?);
    set(&mut params.repetition_penalty, between("repetition_penalty", 1e-3..=1e3, "a number from 0.001 to 1000")?);
    // Zero and -1 are other servers' ways to say "all".
    let top_k = fields.read("top_k", "a whole number, at least -1", |json| match json {
        Json::Number(text) => text.parse::<i64>().ok().filter(|&k| k >= -1),
        _ => None,
    })?;
    if let Some(k) = top_k {
        params.top_k = usize::try_from(k).ok().filter(|&k| k > 0);
    }
    let seed = fields.read("seed", "a whole number of 64 bits", |json| match json {
        Json::Number(text) => text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|seed| seed as u64)),
        _ => None,
    })?;
    params.seed = seed.or(params.seed);
    let expected = "an object of token ids and numbers from -100 to 100";
    if let Some(biases) = fields.read("logit_bias", expected, biases)? {
        params.logit_bias = biases;
    }
    Ok(params)
}

fn biases(json: &Json) -> Option<BTreeMap<u32, f32>> {
    let Json::Object(entries) = json else { return None };
    if entries.len() > MAX_BIASES {
        return None;
    }
    let bias = |(id, bias): &(String, Json)| {
        let bias = as_number(bias).filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((id.parse().ok()?, bias as f32))
    };
    entries.iter().map(bias).collect()
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected = format!("a string or a list of at most {MAX_STOPS}, each of 1 to {MAX_STOP_BYTES} bytes");
    let one = |json: &Json| {
        let text = json.as_str().filter(|text| !text.is_empty() && text.len() <= MAX_STOP_BYTES);
        text.map(str::to_string)
    };
    let read = |json: &Json| match as_list(json) {
        Some(items) if items.len() > MAX_STOPS => None,
        Some(items) => items.iter().map(one).collect(),
        None => one(json).map(|text| vec![text]),
    };
    Ok(fields.read("stop", &expected, read)?.unwrap_or_default())
}
