//! A request to the protocol's JSON.

use super::options::{OpenAiOptions, ThinkingField};
use crate::chat::{Json, Message, Role, Tool, ToolCall, ToolChoice};
use crate::chat_model::request::ChatRequest;

/// The body of a request.
pub(super) fn body(request: &ChatRequest, model: &str, options: &OpenAiOptions) -> Json {
    let mut fields =
        vec![("model".to_string(), text(model)), ("messages".to_string(), messages(&request.messages, options))];
    let mut add = |name: &str, value: Json| match fields.iter_mut().find(|(field, _)| field == name) {
        Some((_, field)) => *field = value,
        None => fields.push((name.to_string(), value)),
    };
    // Tools of messages are the crate's own way; the protocol has them beside the messages.
    let tools = request.shown_tools();
    if !tools.is_empty() {
        let tool = |tool: &Tool| object([("type", text("function")), ("function", tool.function().clone())]);
        let tools = tools.iter().map(tool).collect();
        add("tools", Json::Array(tools));
        if request.tool_choice != ToolChoice::Auto {
            add("tool_choice", json(&request.tool_choice));
        }
        if !request.parallel_tool_calls {
            add("parallel_tool_calls", Json::Bool(false));
        }
    }
    let format = request.messages.iter().filter_map(|message| message.response_format.as_ref()).next_back();
    if let Some(format) = request.response_format.as_ref().or(format) {
        add("response_format", format.clone());
    }
    let records = request.record.any();
    if records {
        add("logprobs", Json::Bool(true));
        add("return_token_ids", Json::Bool(true));
    }
    // Not every server that tells ids tells them in a stream.
    if options.stream && !records {
        add("stream", Json::Bool(true));
        add("stream_options", object([("include_usage", Json::Bool(true))]));
    }
    if let Some(most) = request.max_tokens {
        add("max_tokens", number(most));
    }
    if !request.stop.is_empty() {
        add("stop", Json::Array(request.stop.iter().map(|stop| text(stop)).collect()));
    }
    let params = &request.params;
    add("temperature", number(params.temperature));
    let neutral = [
        ("top_p", params.top_p, 1.0),
        ("min_p", params.min_p, 0.0),
        ("repetition_penalty", params.repetition_penalty, 1.0),
        ("presence_penalty", params.presence_penalty, 0.0),
        ("frequency_penalty", params.frequency_penalty, 0.0),
    ];
    neutral.iter().filter(|(_, value, neutral)| value != neutral).for_each(|(name, value, _)| add(name, number(value)));
    if let Some(top_k) = params.top_k {
        add("top_k", number(top_k));
    }
    if let Some(seed) = params.seed {
        // The protocol's seeds are signed.
        add("seed", number(seed & (u64::MAX >> 1)));
    }
    if !params.logit_bias.is_empty() {
        // The protocol's biases end at -100, which forbids a token.
        let bias = |(id, bias): (&u32, &f32)| (id.to_string(), number(bias.clamp(-100.0, 100.0)));
        add("logit_bias", Json::Object(params.logit_bias.iter().map(bias).collect()));
    }
    let field = options.thinking_field;
    if matches!(field, ThinkingField::TemplateKwargs | ThinkingField::Both) {
        add("chat_template_kwargs", object([("thinking", Json::Bool(request.thinking))]));
    }
    if matches!(field, ThinkingField::Type | ThinkingField::Both) {
        let kind = if request.thinking { "enabled" } else { "disabled" };
        add("thinking", object([("type", text(kind))]));
    }
    options.extra.iter().for_each(|(name, value)| add(name, value.clone()));
    Json::Object(fields)
}

/// The messages. Calls without ids get some, and their results the same: the protocol asks for them.
fn messages(messages: &[Message], options: &OpenAiOptions) -> Json {
    let mut rendered = Vec::with_capacity(messages.len());
    let mut ids: Vec<String> = Vec::new();
    let mut results = 0;
    for (at, message) in messages.iter().enumerate() {
        let mut fields = vec![("role", json(&message.role)), ("content", text(&message.content))];
        match message.role {
            Role::Assistant => {
                if let Some(reasoning) = message.reasoning_content.as_ref().filter(|_| options.send_reasoning) {
                    fields.push(("reasoning_content", text(reasoning)));
                }
                let id = |(i, call): (usize, &ToolCall)| call.id.clone().unwrap_or_else(|| format!("call_{at}_{i}"));
                ids = message.tool_calls.iter().enumerate().map(id).collect();
                results = 0;
                if !ids.is_empty() {
                    let calls = message.tool_calls.iter().zip(&ids).map(|(made, id)| call(made, id)).collect();
                    fields.push(("tool_calls", Json::Array(calls)));
                }
            }
            Role::Tool => {
                let id = message.tool_call_id.as_ref().or(ids.get(results));
                fields.push(("tool_call_id", text(id.map_or("", String::as_str))));
                results += 1;
            }
            _ => {}
        }
        rendered.push(object(fields));
    }
    Json::Array(rendered)
}

/// A call. Servers read its arguments as JSON; what is none is sent as a string in an object.
fn call(call: &ToolCall, id: &str) -> Json {
    let arguments = match Json::parse(&call.arguments) {
        Ok(Json::Object(_)) => call.arguments.clone(),
        _ if call.arguments.trim().is_empty() => "{}".to_string(),
        _ => object([("malformed_arguments", text(&call.arguments))]).to_string(),
    };
    let function = object([("name", text(&call.name)), ("arguments", Json::String(arguments))]);
    object([("id", text(id)), ("type", text("function")), ("function", function)])
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

fn text(text: &str) -> Json {
    Json::String(text.to_string())
}

fn number(number: impl std::fmt::Display) -> Json {
    Json::Number(number.to_string())
}

/// A value by its serde form, which can't fail for those used here.
fn json(value: &impl serde::Serialize) -> Json {
    serde_json::to_value(value).map_or(Json::Null, |value| Json::from(&value))
}
