//! The body of `/v1/chat/completions`.

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::super::options::ServerOptions;
use super::fields::{Fields, as_bool, as_list, entries, list, text_of, wrong};
use super::sampling::Common;
use super::unserved;
use crate::chat::{Json, Message, Role, ToolChoice};
use crate::chat_model::ChatRequest;
use crate::show::one_line;

/// Most alternatives that are reported beside a token.
pub const MAX_TOP_LOGPROBS: usize = 20;
/// Longest name of a tool, in bytes.
const MAX_NAME: usize = 256;

/// Most bytes of `tools`, and of `response_format`.
const MAX_SCHEMAS: usize = 1 << 20;

/// A chat that was asked for.
#[derive(Debug, Clone)]
pub struct ChatCall {
    /// What it shares with raw completions.
    pub(in super::super) common: Common,
    /// The conversation, for the first answer; the others differ in their seed.
    pub(in super::super) request: ChatRequest,
    /// Whether the last message is the beginning of the answer.
    pub(in super::super) continues: bool,
    /// Whether the answer has the ids of its tokens and of the prompt's.
    pub(in super::super) token_ids: bool,
    /// Which of the client's messages each message is; none if the client did not send it.
    pub(in super::super) places: Vec<Option<usize>>,
}

/// Fields for things that there are not.
const REFUSED: [(&str, &str); 5] = [
    ("functions", "is no longer spoken: use `tools`"),
    ("function_call", "is no longer spoken: use `tool_choice`"),
    ("audio", "the model only writes text"),
    ("web_search_options", "there is no search"),
    ("prompt", "belongs to /v1/completions: a chat has `messages`"),
];

impl ChatCall {
    /// Reads a body and checks all that can be checked without the model.
    ///
    /// # Errors
    /// An error of status 400 that names the field.
    pub fn from_json(body: &[u8], options: &ServerOptions) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        fields.refuse(&REFUSED)?;
        unserved::check_chat(&fields)?;
        for field in ["tools", "response_format"] {
            check_size(field, fields.raw(field))?;
        }
        fields.read("modalities", "[\"text\"]", |json| {
            as_list(json)?.iter().all(|kind| kind.as_str() == Some("text")).then_some(())
        })?;
        let common = Common::read(&fields, options)?;
        let (messages, continues) = messages(&fields, options)?;
        let mut request = ChatRequest::new(messages);
        tools(&fields, &mut request)?;
        request.response_format = response_format(&fields)?;
        request.thinking = thinking(&fields)?.unwrap_or(options.thinking);
        request.params = common.params_of(0);
        request.stop = common.stop.clone();
        let max_tokens = fields.whole("max_tokens", 1, usize::MAX)?;
        request.max_tokens = fields.whole("max_completion_tokens", 1, usize::MAX)?.or(max_tokens);
        request.logprobs = logprobs(&fields)?;
        let continues = fields.bool("continue_final_message")?.unwrap_or(continues);
        if continues && request.response_format.is_some() {
            return Err(ApiError::field("response_format", "can't be held in an answer that was begun"));
        }
        let token_ids = fields.bool("return_token_ids")?.unwrap_or(false);
        if token_ids && common.stream {
            return Err(ApiError::field("return_token_ids", "needs an answer that is not streamed"));
        }
        let places = make_renderable(&mut request, continues)?;
        Ok(Self { common, request, continues, token_ids, places })
    }
}

/// The messages, and whether the last one says that the answer begins with it.
fn messages(fields: &Fields<'_>, options: &ServerOptions) -> Result<(Vec<Message>, bool), ApiError> {
    let raw = fields.items("messages")?;
    for (at, message) in raw.iter().enumerate() {
        check_message(at, message)?;
    }
    let mut messages: Vec<Message> =
        fields.objects("messages")?.ok_or_else(|| ApiError::field("messages", "is missing"))?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "is empty: at least one message is needed"));
    }
    for message in &mut messages {
        if message.role == Role::Developer && !options.keep_developer {
            message.role = Role::System;
        }
        // Clients set neither ids nor how an answer is continued.
        message.written_ids = None;
        message.prefix = false;
    }
    let last = raw.last().and_then(|last| entries(last));
    let prefix = last.is_some_and(|last| last.get("prefix").is_some_and(|prefix| prefix.get() == "true"));
    Ok((messages, prefix))
}

/// Parts of a message that are no text, by the words that their `type` or a field of theirs has.
const MEDIA: [(&[&str], &str, &str); 4] = [
    (&["image_url", "input_image", "image"], "an image", "images"),
    (&["input_audio", "audio_url", "audio"], "audio", "audio"),
    (&["video_url", "input_video", "video"], "a video", "videos"),
    (&["file", "input_file", "file_url", "document"], "a file", "files"),
];

/// Refuses tools or a response format beyond any use: prompt and grammar take many times the memory of their text.
fn check_size(field: &str, value: Option<&RawValue>) -> Result<(), ApiError> {
    match value.map(|value| value.get().len()).filter(|&bytes| bytes > MAX_SCHEMAS) {
        None => Ok(()),
        Some(bytes) => Err(ApiError::large(field, format!("has {bytes} bytes, expected at most {MAX_SCHEMAS}"))),
    }
}

/// Refuses what a message asks for and no format renders.
fn check_message(at: usize, message: &RawValue) -> Result<(), ApiError> {
    let place = format!("messages[{at}]");
    let Some(message) = entries(message) else { return Ok(()) };
    check_size(&format!("{place}.tools"), message.get("tools").copied())?;
    check_size(&format!("{place}.response_format"), message.get("response_format").copied())?;
    let set = |name: &str| message.get(name).is_some_and(|value| value.get() != "null");
    if set("function_call") {
        return Err(ApiError::field(place, "function_call is no longer spoken: use `tool_calls`"));
    }
    if set("audio") {
        return Err(ApiError::field(place, "audio is not taken: the model only reads and writes text"));
    }
    let parts = message.get("content").and_then(|content| list(content)).unwrap_or_default();
    for (part, fields) in parts.into_iter().enumerate().filter_map(|(part, raw)| Some((part, entries(raw)?))) {
        let kind = fields.get("type").and_then(|kind| text_of(kind)).unwrap_or_default();
        let is = |name: &&str| kind == *name || (kind.is_empty() && fields.contains_key(*name));
        if let Some((_, one, many)) = MEDIA.iter().find(|(names, ..)| names.iter().any(is)) {
            let problem = format!("content[{part}] is {one}, and this model takes no {many}, only text");
            return Err(ApiError::field(place, problem));
        }
    }
    Ok(())
}

fn tools(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), ApiError> {
    request.tools = fields.objects("tools")?.unwrap_or_default();
    let of_request = request.tools.iter().enumerate().map(|(at, tool)| (format!("tools[{at}]"), tool));
    let of_messages = request.messages.iter().enumerate().flat_map(|(message, Message { tools, .. })| {
        tools.iter().enumerate().map(move |(at, tool)| (format!("messages[{message}].tools[{at}]"), tool))
    });
    let mut names: Vec<&str> = Vec::new();
    for (place, tool) in of_request.chain(of_messages) {
        let (field, name) = (format!("{place}.function.name"), tool.name());
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"\"'<>&".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            let expected = format!("expected a name of 1 to {MAX_NAME} bytes without blanks, quotes and brackets");
            return Err(ApiError::field(field, expected));
        }
        if names.contains(&name) {
            return Err(ApiError::field(field, format!("{name:?} is the name of two tools")));
        }
        if let Some(parameters) = tool.parameters()
            && !matches!(parameters, Json::Object(_) | Json::Null)
        {
            return Err(wrong(&format!("{place}.function.parameters"), "a JSON Schema object", parameters));
        }
        names.push(name);
    }
    let expected = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}}";
    if let Some(choice) = fields.read("tool_choice", expected, tool_choice)? {
        choice.check_tools(&request.shown_tools()).map_err(|error| ApiError::field("tool_choice", error))?;
        request.tool_choice = choice;
    }
    request.parallel_tool_calls = fields.bool("parallel_tool_calls")?.unwrap_or(true);
    request.stream_calls = fields.bool("tool_stream")?.unwrap_or(false);
    Ok(())
}

fn tool_choice(json: &Json) -> Option<ToolChoice> {
    match (json.as_str(), json) {
        (Some("none"), _) => Some(ToolChoice::None),
        (Some("auto"), _) => Some(ToolChoice::Auto),
        (Some("required"), _) => Some(ToolChoice::Required),
        (None, Json::Object(_)) => {
            let named = json.get("type").is_none_or(|kind| kind.as_str() == Some("function"));
            let name = json.get("function")?.get("name")?.as_str()?;
            named.then(|| ToolChoice::Named(name.to_string()))
        }
        _ => None,
    }
}

fn response_format(fields: &Fields<'_>) -> Result<Option<Json>, ApiError> {
    let Some(format) = fields.json("response_format")? else { return Ok(None) };
    let schema = |format: &Json| Some(matches!(format.get("json_schema")?.get("schema")?, Json::Object(_)));
    let kind = format.get("type").and_then(Json::as_str);
    match kind {
        Some("text") => unserved::check_format(&format, &[])?,
        Some("json_object") => unserved::check_format(&format, &["schema"])?,
        Some("json_schema") => unserved::check_format(&format, &["json_schema"])?,
        _ => {}
    }
    match kind {
        Some("text") => Ok(None),
        // With a schema, as llama.cpp and others take it, it is the next.
        Some("json_object") => match format.get("schema").filter(|schema| **schema != Json::Null) {
            None => Ok(Some(format)),
            Some(schema @ Json::Object(_)) => {
                let entry = |name: &str, value| (name.to_string(), value);
                let text = |text: &str| Json::String(text.to_string());
                let named = Json::Object(vec![entry("name", text("answer")), entry("schema", schema.clone())]);
                Ok(Some(Json::Object(vec![entry("type", text("json_schema")), entry("json_schema", named)])))
            }
            Some(schema) => Err(wrong("response_format.schema", "a JSON Schema object", schema)),
        },
        Some("json_schema") if schema(&format) == Some(true) => Ok(Some(format)),
        Some("json_schema") => {
            Err(ApiError::field("response_format.json_schema.schema", "expected a JSON Schema object"))
        }
        _ => Err(wrong("response_format", "{\"type\": \"text\", \"json_object\" or \"json_schema\", …}", &format)),
    }
}

/// Whether to think, in the words of DeepSeek's protocol, of other servers, or of OpenAI's. The first that says so
/// counts: `thinking`, `enable_thinking`, `chat_template_kwargs` (in it `thinking` before `enable_thinking`),
/// `reasoning_effort`, `reasoning` (in it `enabled` before `effort`).
fn thinking(fields: &Fields<'_>) -> Result<Option<bool>, ApiError> {
    let expected = "{\"type\": \"enabled\" or \"disabled\"}";
    let nested = [("thinking", "budget_tokens"), ("reasoning", "max_tokens")];
    for (name, part) in nested {
        let given = fields.raw(name).and_then(entries).is_some_and(|entries| entries.contains_key(part));
        if given {
            return Err(ApiError::field(format!("{name}.{part}"), unserved::BUDGET));
        }
    }
    let own = fields.read("thinking", expected, |json| match json.get("type").unwrap_or(json) {
        Json::Bool(on) => Some(Some(*on)),
        kind => match kind.as_str()? {
            "enabled" => Some(Some(true)),
            "disabled" => Some(Some(false)),
            "auto" | "adaptive" => Some(None),
            _ => None,
        },
    })?;
    let enable = fields.bool("enable_thinking")?;
    let expected = "an object in which `thinking` or `enable_thinking` is true or false";
    let mut others = Vec::new();
    let serves = |key: &str, value: &Json| match key {
        "thinking" | "enable_thinking" => true,
        "add_generation_prompt" => *value == Json::Bool(true),
        _ => *value == Json::Null,
    };
    let template = fields.read("chat_template_kwargs", expected, |json| {
        let Json::Object(entries) = json else { return None };
        others.extend(entries.iter().filter(|(key, value)| !serves(key, value)).map(|(key, _)| key.clone()));
        match json.get("thinking").or_else(|| json.get("enable_thinking")) {
            None | Some(Json::Null) => Some(None),
            Some(value) => as_bool(value).map(Some),
        }
    })?;
    if let Some(key) = others.first() {
        let field = format!("chat_template_kwargs.{}", one_line(key));
        return Err(ApiError::field(field, "is not served: only `thinking` and `enable_thinking` are"));
    }
    let expected = "\"none\", \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\" or \"max\"";
    let effort = fields.read("reasoning_effort", expected, effort_of)?;
    let expected = "an object in which `effort` is a text and `enabled` is true or false";
    let reasoning = fields.read("reasoning", expected, |json| {
        let Json::Object(_) = json else { return None };
        let given = |name| json.get(name).filter(|value| **value != Json::Null);
        match (given("enabled"), given("effort")) {
            (Some(enabled), _) => as_bool(enabled).map(Some),
            (None, Some(named)) => effort_of(named).map(Some),
            (None, None) => Some(None),
        }
    })?;
    Ok(own.flatten().or(enable).or(template.flatten()).or(effort).or(reasoning.flatten()))
}

/// Whether an effort is any.
fn effort_of(json: &Json) -> Option<bool> {
    match json.as_str()? {
        "none" => Some(false),
        "minimal" | "low" | "medium" | "high" | "xhigh" | "max" => Some(true),
        _ => None,
    }
}

fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let wanted = fields.bool("logprobs")?.unwrap_or(false);
    let top = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS)?;
    match (wanted, top) {
        (false, Some(1..)) => Err(ApiError::field("top_logprobs", "needs `logprobs`: true")),
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, _) => Ok(None),
    }
}

/// Brings a conversation into a shape that the formats can render, where clients mean the same by another one.
/// Returns which of the client's messages each message is.
fn make_renderable(request: &mut ChatRequest, continues: bool) -> Result<Vec<Option<usize>>, ApiError> {
    let messages = &mut request.messages;
    let mut places: Vec<Option<usize>> = (0..messages.len()).map(Some).collect();
    if let Some(last) = messages.last().filter(|last| last.role == Role::Assistant) {
        let at = messages.len() - 1;
        if !last.tool_calls.is_empty() {
            return Err(ApiError::field(format!("messages[{at}]"), "its tool calls have no results yet"));
        }
        if !continues {
            let problem = "is the assistant's, and nothing asks for an answer: let a user's or a tool's message \
                           follow, or set `continue_final_message` to go on with it";
            return Err(ApiError::field(format!("messages[{at}]"), problem));
        }
        // Without its reasoning it is an answer that was begun without thinking.
        request.thinking &= last.reasoning_content.as_deref().is_some_and(|reasoning| !reasoning.is_empty());
    } else if continues {
        return Err(ApiError::field("continue_final_message", "the last message is not the assistant's"));
    }
    // Clients that drop the reasoning of a step leave a message that thinking has no text for: it joins the next.
    let mut at = messages.iter().rposition(|message| message.role == Role::User).map_or(0, |user| user + 1);
    while request.thinking && at + 1 < messages.len() {
        let mute = |message: &Message| {
            message.role == Role::Assistant
                && message.tool_calls.is_empty()
                && message.reasoning_content.as_deref().unwrap_or_default().is_empty()
        };
        if mute(&messages[at]) && messages[at + 1].role == Role::Assistant {
            let content = messages.remove(at).content;
            places.remove(at);
            messages[at].content.insert_str(0, &content);
        } else {
            at += 1;
        }
    }
    // Text behind the opener of the answer would be read as its beginning: late instructions go before the question.
    let late = messages.iter().rev().take_while(|message| message.role == Role::System).count();
    if late > 0 {
        match messages.iter().rposition(|message| message.role == Role::User) {
            Some(user) => {
                messages[user..].rotate_right(late);
                places[user..].rotate_right(late);
            }
            None => {
                messages.push(Message::user(""));
                places.push(None);
            }
        }
    }
    let needs_system = !request.tools.is_empty() || request.response_format.is_some();
    if needs_system && !messages.iter().any(|message| message.role == Role::System) {
        messages.insert(0, Message::system(""));
        places.insert(0, None);
    }
    Ok(places)
}
