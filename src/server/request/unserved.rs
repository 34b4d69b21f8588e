//! Fields of OpenAI's protocol and of other servers' extensions that would change an answer and are not served.
//!
//! Such a field is refused by name unless its value asks for nothing. Fields that change no answer (`user`,
//! `metadata`, `priority`, `cache_salt` and the like) are ignored, as unknown fields are.
//!
//! # Source
//! The fields are those of the request types of vLLM (`entrypoints/openai/*/protocol.py`), SGLang 0.5.23
//! (`srt/entrypoints/openai/protocol.py`) and llama.cpp's server.

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::fields::{Fields, text_of};

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
const TEXT_ONLY: &str = "is not served: the model only reads and writes text";
const SAMPLING: &str = "is not served: tokens are chosen by temperature, top_k, top_p, min_p, penalties and logit_bias";
const STOPS: &str = "is not served: `stop` takes strings";
const IDS: &str = "is not served: an answer has no such field";
const PROMPT: &str = "is not served: the prompt is written by the server";
pub const BUDGET: &str = "is not served: reasoning has no limit of its own, `max_tokens` covers the whole answer";
const ADAPTERS: &str = "is not served: there are no adapters";
const REPETITION: &str = "is not served: repetitions do not end an answer";

/// Fields that no endpoint serves.
const FIELDS: &[(&str, Neutral, &str)] = &[
    // The form of the answer.
    ("structured_outputs", Empty, FORM),
    ("guided_json", Null, FORM),
    ("guided_regex", Empty, FORM),
    ("guided_choice", Empty, FORM),
    ("guided_grammar", Empty, FORM),
    ("guided_decoding", Empty, FORM),
    ("structural_tag", Empty, FORM),
    ("json_schema", Null, FORM),
    ("regex", Empty, FORM),
    ("ebnf", Empty, FORM),
    ("grammar", Empty, FORM),
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
    ("typical_p", Numbers(&[1.0]), SAMPLING),
    ("tfs_z", Numbers(&[1.0]), SAMPLING),
    ("top_a", Empty, SAMPLING),
    ("top_n_sigma", Numbers(&[-1.0, 0.0]), SAMPLING),
    ("mirostat", Empty, SAMPLING),
    ("mirostat_mode", Empty, SAMPLING),
    ("dry_multiplier", Empty, SAMPLING),
    ("xtc_probability", Empty, SAMPLING),
    ("dynatemp_range", Empty, SAMPLING),
    ("smoothing_factor", Empty, SAMPLING),
    ("no_repeat_ngram_size", Empty, SAMPLING),
    ("repeat_penalty", Numbers(&[1.0]), "is called `repetition_penalty` here"),
    ("watermark", Empty, SAMPLING),
    // Where the answer ends.
    ("stop_regex", Empty, STOPS),
    ("no_stop_trim", Empty, STOPS),
    ("include_stop_str_in_output", Empty, STOPS),
    ("max_new_tokens", Null, "is called `max_tokens` here"),
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
    ("return_token_ids", Empty, IDS),
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
    ("suffix", Empty, "the model cannot fill in"),
    ("tools", Empty, "belongs to /v1/chat/completions: a completion is plain text"),
    ("messages", Null, "belongs to /v1/chat/completions: a completion has a `prompt`"),
    ("max_completion_tokens", Null, "belongs to /v1/chat/completions: a completion has `max_tokens`"),
    ("top_logprobs", Empty, "belongs to /v1/chat/completions: a completion has the number in `logprobs`"),
    ("enable_thinking", Empty, "belongs to /v1/chat/completions: a completion is plain text"),
];

/// Refuses what a chat does not serve.
pub fn check_chat(fields: &Fields<'_>) -> Result<(), ApiError> {
    check(fields, FIELDS)?;
    check(fields, CHAT)
}

/// Refuses what a completion does not serve.
pub fn check_completion(fields: &Fields<'_>) -> Result<(), ApiError> {
    check(fields, FIELDS)?;
    check(fields, COMPLETION)
}

fn check(fields: &Fields<'_>, names: &[(&str, Neutral, &str)]) -> Result<(), ApiError> {
    let asks =
        |(name, neutral, _): &&(&str, Neutral, &str)| fields.raw(name).is_some_and(|value| !neutral.holds(value));
    match names.iter().find(asks) {
        Some((name, _, why)) => Err(ApiError::field(name, why)),
        None => Ok(()),
    }
}
