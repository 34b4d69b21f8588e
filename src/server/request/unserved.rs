//! Fields of OpenAI's protocol and of other servers' extensions that would change an answer and are not served.
//!
//! Such a field is refused by name unless its value asks for nothing. Fields that change no answer (`user`,
//! `metadata`, `priority`, `cache_salt` and the like) are ignored, as unknown fields are.
//!
//! # Source
//! The fields are those of the request types of vLLM (`entrypoints/openai/*/protocol.py`, commit 002032ee) and SGLang
//! (`srt/entrypoints/openai/protocol.py`, commit 004c82e0), and of llama.cpp's and TGI's servers.

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::fields::{Fields, text_of};
use crate::chat::Json;
use crate::show::one_line;

/// Which values of a field ask for nothing. `null` always does.
#[derive(Debug, Clone, Copy)]
enum Neutral {
    /// Only `null`.
    Null,
    /// `false`, zero, and empty texts, lists and objects.
    Empty,
    /// Only these numbers.
    Numbers(&'static [f64]),
    /// Only `true`.
    True,
    /// Only these texts.
    Texts(&'static [&'static str]),
}

impl Neutral {
    fn holds(self, value: &RawValue) -> bool {
        let text = value.get();
        let number: Option<f64> = text.parse().ok();
        let blank = |text: &str| text.bytes().all(|byte| byte.is_ascii_whitespace());
        let inner = |open, close| text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
        let empty = text == "false"
            || text == "\"\""
            || number == Some(0.0)
            || inner('[', ']').or_else(|| inner('{', '}')).is_some_and(blank);
        match self {
            Self::Null => false,
            Self::Empty => empty,
            Self::Numbers(neutral) => number.is_some_and(|number| neutral.contains(&number)),
            Self::True => text == "true",
            Self::Texts(neutral) => text_of(value).is_some_and(|text| neutral.contains(&text.as_ref())),
        }
    }
}

use Neutral::{Empty, Null, Numbers, Texts, True};

const FORM: &str = "is not served: `response_format` of type json_schema holds the content to a schema";
const NO_FORM: &str = "is not served: a completion is plain text, and /v1/chat/completions holds one to a schema";
const TEXT_ONLY: &str = "is not served: the model only reads and writes text";
const SAMPLING: &str = "is not served: tokens are chosen by temperature, top_k, top_p, min_p, penalties and logit_bias";
const STOPS: &str = "is not served: `stop` takes strings";
const IDS: &str = "is not served: an answer has no such field";
const PROMPT: &str = "is not served: the prompt is written by the server";
pub const BUDGET: &str = "is not served: reasoning has no limit of its own, `max_tokens` covers the whole answer";
const ADAPTERS: &str = "is not served: there are no adapters";
const REPETITION: &str = "is not served: repetitions do not end an answer";

/// Fields that hold the answer to a form, which no endpoint serves.
const FORMS: &[(&str, Neutral)] = &[
    ("structured_outputs", Empty),
    ("guided_json", Null),
    ("guided_regex", Empty),
    ("guided_choice", Empty),
    ("guided_grammar", Empty),
    ("guided_decoding", Empty),
    ("structural_tag", Empty),
    ("json_schema", Null),
    ("regex", Empty),
    ("ebnf", Empty),
    ("grammar", Empty),
];

/// The fields of a `response_format` that hold a form.
const SCHEMAS: [&str; 4] = ["schema", "json_schema", "grammar", "structures"];

/// Fields that no endpoint serves.
const FIELDS: &[(&str, Neutral, &str)] = &[
    ("verbosity", Texts(&["medium"]), "is not served: ask for it in a message"),
    // How tokens are chosen.
    ("use_beam_search", Empty, SAMPLING),
    ("length_penalty", Numbers(&[0.0, 1.0]), SAMPLING),
    ("early_stopping", Empty, SAMPLING),
    ("allowed_token_ids", Empty, SAMPLING),
    ("bad_words", Empty, SAMPLING),
    ("logits_processors", Empty, SAMPLING),
    ("custom_logit_processor", Empty, SAMPLING),
    ("vllm_xargs", Empty, SAMPLING),
    ("custom_params", Empty, SAMPLING),
    ("samplers", Empty, SAMPLING),
    ("sampler_seq", Empty, SAMPLING),
    ("do_sample", True, "is not served: temperature 0 chooses the most probable token"),
    ("num_beams", Numbers(&[1.0]), SAMPLING),
    ("penalty_alpha", Empty, SAMPLING),
    ("repeat_last_n", Numbers(&[-1.0]), SAMPLING),
    ("typical_p", Numbers(&[1.0]), SAMPLING),
    ("tfs_z", Numbers(&[1.0]), SAMPLING),
    ("tfs", Numbers(&[1.0]), SAMPLING),
    ("top_a", Empty, SAMPLING),
    ("top_n_sigma", Numbers(&[-1.0, 0.0]), SAMPLING),
    ("adaptive_target", Numbers(&[-1.0]), SAMPLING),
    ("mirostat", Empty, SAMPLING),
    ("mirostat_mode", Empty, SAMPLING),
    ("dry_multiplier", Empty, SAMPLING),
    ("xtc_probability", Empty, SAMPLING),
    ("dynatemp_range", Empty, SAMPLING),
    ("smoothing_factor", Empty, SAMPLING),
    ("no_repeat_ngram_size", Empty, SAMPLING),
    ("repeat_penalty", Numbers(&[1.0]), "is called `repetition_penalty` here"),
    ("watermark", Empty, SAMPLING),
    ("watermarking", Empty, SAMPLING),
    // Where the answer ends.
    ("stop_regex", Empty, STOPS),
    ("stop_sequences", Empty, "is called `stop` here"),
    ("max_output_tokens", Null, "is called `max_tokens` here"),
    ("max_thinking_tokens", Null, BUDGET),
    ("no_stop_trim", Empty, STOPS),
    ("include_stop_str_in_output", Empty, STOPS),
    ("max_new_tokens", Null, "is called `max_tokens` here"),
    ("min_new_tokens", Empty, "is called `min_tokens` in completions"),
    ("t_max_predict_ms", Empty, "is not served: `max_tokens` ends an answer, time does not"),
    ("n_indent", Empty, "is not served: indentation does not end an answer"),
    ("n_predict", Numbers(&[-1.0]), "is called `max_tokens` here"),
    ("repetition_detection", Empty, REPETITION),
    ("max_repetition_pattern_size", Empty, REPETITION),
    ("repetition_min_count", Empty, REPETITION),
    // What the model reads.
    ("chat_template", Null, PROMPT),
    ("documents", Empty, PROMPT),
    ("input_ids", Null, PROMPT),
    ("input_embeds", Null, PROMPT),
    ("prompt_embeds", Null, PROMPT),
    ("image_data", Empty, TEXT_ONLY),
    ("video_data", Empty, TEXT_ONLY),
    ("audio_data", Empty, TEXT_ONLY),
    ("truncate_prompt_tokens", Null, "is not served: a prompt is never cut"),
    ("truncation", Texts(&["disabled"]), "is not served: a prompt is never cut"),
    ("lora_path", Empty, ADAPTERS),
    ("lora", Empty, ADAPTERS),
    ("session_params", Empty, "is not served: a request holds its whole conversation"),
    ("previous_response_id", Null, "is not served: a request holds its whole conversation"),
    ("task", Null, "is not served: ask for it in a message"),
    ("ec_transfer_params", Empty, "is not served: the cache stays with the server"),
    ("kv_transfer_params", Empty, "is not served: the cache stays with the server"),
    // How much it thinks.
    ("thinking_token_budget", Numbers(&[-1.0]), BUDGET),
    ("thinking_budget", Numbers(&[-1.0]), BUDGET),
    ("reasoning_budget", Numbers(&[-1.0]), BUDGET),
    ("include_reasoning", True, "is not served: reasoning is always told"),
    ("separate_reasoning", True, "is not served: reasoning is always apart from the content"),
    ("stream_reasoning", True, "is not served: reasoning is streamed as it comes"),
    ("reasoning_format", Texts(&["auto", "deepseek"]), "is not served: reasoning is always apart from the content"),
    // What the answer tells.
    ("skip_special_tokens", True, "is not served: special tokens have no text"),
    ("prompt_logprobs", Null, "is not served: log-probabilities are those of the answer"),
    ("return_tokens_as_token_ids", Empty, IDS),
    ("return_tokens", Empty, IDS),
    ("return_prompt_text", Empty, IDS),
    ("return_cached_tokens_details", Empty, IDS),
    ("logprob_token_ids", Empty, "is not served: log-probabilities are those of the most probable tokens"),
    ("return_prompt_token_ids", Empty, IDS),
    ("return_hidden_states", Empty, IDS),
    ("return_routed_experts", Empty, IDS),
    ("return_meta_info", Empty, IDS),
    ("return_sampling_mask", Empty, IDS),
    ("sampling_logprobs_mode", Null, IDS),
    ("return_input_ids_in_sglext", Empty, IDS),
    ("return_output_ids_in_sglext", Empty, IDS),
    ("return_flat_raw_output_top_logprobs", Empty, IDS),
    ("n_probs", Empty, "is called `logprobs` here"),
];

/// Fields that chats do not serve.
const CHAT: &[(&str, Neutral, &str)] = &[
    ("echo", Empty, "belongs to /v1/completions: a chat's answer begins after its messages"),
    ("add_generation_prompt", True, "is not served: an answer follows the messages"),
    ("add_special_tokens", Empty, PROMPT),
    ("ignore_eos", Empty, "belongs to /v1/completions: a chat's answer ends where the model ends it"),
    ("min_tokens", Empty, "belongs to /v1/completions: a chat's answer ends where the model ends it"),
    ("stop_token_ids", Empty, "belongs to /v1/completions: a chat takes `stop`"),
];

/// Fields that completions do not serve.
const COMPLETION: &[(&str, Neutral, &str)] = &[
    ("return_token_ids", Empty, "belongs to /v1/chat/completions"),
    ("suffix", Empty, "the model cannot fill in"),
    ("tools", Empty, "belongs to /v1/chat/completions: a completion is plain text"),
    ("messages", Null, "belongs to /v1/chat/completions: a completion has a `prompt`"),
    ("max_completion_tokens", Null, "belongs to /v1/chat/completions: a completion has `max_tokens`"),
    ("top_logprobs", Empty, "belongs to /v1/chat/completions: a completion has the number in `logprobs`"),
    ("enable_thinking", Empty, "belongs to /v1/chat/completions: a completion is plain text"),
];

/// Refuses what a chat does not serve.
pub fn check_chat(fields: &Fields<'_>) -> Result<(), ApiError> {
    check_forms(fields, FORM)?;
    check(fields, FIELDS)?;
    check(fields, CHAT)
}

/// Refuses what a completion does not serve.
pub fn check_completion(fields: &Fields<'_>) -> Result<(), ApiError> {
    check_forms(fields, NO_FORM)?;
    check(fields, FIELDS)?;
    check(fields, COMPLETION)
}

/// Refuses schemas in a `response_format` whose type does not read them.
///
/// - `read`: the fields beside `type` that the type reads.
pub fn check_format(format: &Json, read: &[&str]) -> Result<(), ApiError> {
    let asks = |name: &&&str| format.get(name).is_some_and(|value| *value != Json::Null);
    match SCHEMAS.iter().filter(|name| !read.contains(name)).find(asks) {
        None => Ok(()),
        Some(name) => {
            let kind = format.get("type").and_then(Json::as_str).unwrap_or_default();
            let problem = format!("is not read with the type {}", one_line(kind));
            Err(ApiError::field(format!("response_format.{name}"), problem))
        }
    }
}

fn check_forms(fields: &Fields<'_>, why: &str) -> Result<(), ApiError> {
    FORMS.iter().try_for_each(|&(name, neutral)| refuse(fields, name, neutral, why))
}

fn check(fields: &Fields<'_>, names: &[(&str, Neutral, &str)]) -> Result<(), ApiError> {
    names.iter().try_for_each(|&(name, neutral, why)| refuse(fields, name, neutral, why))
}

fn refuse(fields: &Fields<'_>, name: &str, neutral: Neutral, why: &str) -> Result<(), ApiError> {
    match fields.raw(name) {
        Some(value) if !neutral.holds(value) => Err(ApiError::field(name, why)),
        _ => Ok(()),
    }
}
