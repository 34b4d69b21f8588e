//! What a server's answer can record for training.

use serde_json::Value;

use super::options::{OpenAiOptions, ServerLogprobs};
use crate::chat_model::error::{ChatModelError, Result};
use crate::chat_model::request::ChatRequest;
use crate::generation::{RECORD_VERSION, Record, SamplingParams};
use crate::show::shown;

/// How much of a value that should be another is quoted, in characters.
const QUOTED: usize = 60;

/// The tokens of an answer, as a server tells them.
#[derive(Debug, Default)]
pub(super) struct Told {
    prompt_ids: Option<Vec<u32>>,
    ids: Option<Vec<u32>>,
    logprobs: Option<Vec<f32>>,
}

/// Refuses records that no server can give, by the name of what needs them.
pub(super) fn check(request: &ChatRequest, options: &OpenAiOptions) -> Result<()> {
    let refuse = |field: &str, what: &str, needs| {
        let field = Some(format!("record.{field}"));
        Err(ChatModelError::Unsupported { what: what.to_string(), field, needs })
    };
    let (record, params) = (request.record, &request.params);
    if record.routes {
        return refuse("routes", "a record of experts, for keep routing,", "the crate's own engine");
    }
    if record.kept && is_truncated(params) {
        let what = "a record of kept sets, for the sampling mask, of a choice with top_k, top_p, min_p or a bias";
        return refuse("kept", what, "the crate's own engine");
    }
    if record.logprobs && options.logprobs == ServerLogprobs::Model && !is_plain(params) {
        let what = "a record of log-probabilities of a choice that is not the model's own";
        let needs = "temperature 1 without truncation, penalty and bias, or a server with ServerLogprobs::Choice";
        return refuse("logprobs", what, needs);
    }
    Ok(())
}

/// Whether tokens are not chosen among all.
fn is_truncated(params: &SamplingParams) -> bool {
    let forbids = params.logit_bias.values().any(|bias| *bias <= -100.0);
    params.top_k.is_some() || params.top_p < 1.0 || params.min_p > 0.0 || forbids
}

/// Whether tokens are drawn from the model's own distribution.
fn is_plain(params: &SamplingParams) -> bool {
    !is_truncated(params)
        && params.temperature == 1.0
        && params.logit_bias.is_empty()
        && (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.0, 0.0, 0.0)
}

impl Told {
    /// Takes what a whole answer tells. vLLM has the prompt's ids beside the choices, SGLang in each.
    pub fn read(&mut self, answer: &Value, choice: &Value) -> std::result::Result<(), String> {
        let prompt = answer.get("prompt_token_ids").filter(|ids| !ids.is_null());
        self.prompt_ids = ids("prompt_token_ids", prompt.or(choice.get("prompt_token_ids")))?;
        self.ids = ids("choices[0].token_ids", choice.get("token_ids"))?;
        let Some(lists) = choice.get("logprobs").filter(|lists| lists.is_object()) else { return Ok(()) };
        let mut logprobs = Vec::new();
        // The crate's own server has those of the reasoning apart; other servers have all in one list.
        for name in ["reasoning_content", "content"] {
            for (at, token) in lists.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
                let value = token.get("logprob").unwrap_or(&Value::Null);
                let logprob = value.as_f64().map(|logprob| logprob as f32).filter(|logprob| logprob.is_finite());
                let logprob = logprob.ok_or_else(|| {
                    let value = shown(&value.to_string(), QUOTED);
                    format!("choices[0].logprobs.{name}[{at}].logprob is {value}, expected a number")
                })?;
                logprobs.push(logprob);
            }
        }
        self.logprobs = Some(logprobs);
        Ok(())
    }

    /// The record that a request asks for.
    pub fn record(self, request: &ChatRequest, options: &OpenAiOptions) -> std::result::Result<Record, String> {
        let lacks =
            |field: &str| format!("it has no {field}, which a record needs: the server does not return token ids");
        let prompt_ids = self.prompt_ids.ok_or_else(|| lacks("prompt_token_ids"))?;
        let generated_ids = self.ids.ok_or_else(|| lacks("choices[0].token_ids"))?;
        let generated = generated_ids.len();
        let logprobs = match request.record.logprobs {
            true => {
                let logprobs = self.logprobs.ok_or_else(|| lacks("choices[0].logprobs"))?;
                if logprobs.len() != generated {
                    let found = logprobs.len();
                    return Err(format!("choices[0].logprobs has {found} entries, expected {generated} as token_ids"));
                }
                Some(logprobs)
            }
            false => None,
        };
        Ok(Record {
            schema_version: RECORD_VERSION,
            weights_version: options.weights_version,
            temperature: request.params.temperature,
            prompt_ids,
            generated_ids,
            logprobs: logprobs.clone().filter(|_| options.logprobs == ServerLogprobs::Model),
            sampled_logprobs: logprobs,
            // Any other choice was refused: each token was chosen among all.
            kept: request.record.kept.then(|| vec![None; generated]),
            routes: None,
        })
    }
}

/// A list of ids, if there is one.
fn ids(field: &str, value: Option<&Value>) -> std::result::Result<Option<Vec<u32>>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = value.as_array().and_then(|list| list.iter().map(id).collect::<Option<Vec<u32>>>());
    match ids {
        Some(ids) => Ok(Some(ids)),
        None => Err(format!("{field} is {}, expected a list of token ids", shown(&value.to_string(), QUOTED))),
    }
}
