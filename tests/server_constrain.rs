//! `/v1/chat/completions` where the answer must have a form, with the embedded checkpoint.
#![cfg(feature = "server")]

mod server_support;

use serde_json::{Value, json};
use server_support::http::post;
use server_support::{loaded, tiny, tool};

use deepseek_v32::chat::Version;
use deepseek_v32::server::ServerOptions;
use server_support::Running;

const CHAT: &str = "/v1/chat/completions";

/// A body with more fields.
fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn question(fields: Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": "weather in Lisbon"}], "max_tokens": 100}), fields)
}

fn schema_format(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})
}

fn strict(mut tool: Value) -> Value {
    tool["function"]["strict"] = true.into();
    tool
}

#[test]
fn what_no_answer_can_be_held_to_is_the_clients_error() {
    let plain = tool("get_weather", "Get the weather in a city.", &["city"]);
    let with_parameters = |parameters: Value| {
        let mut tool = tool("f", "", &[]);
        tool["function"]["parameters"] = parameters;
        tool
    };
    let unsupported =
        with_parameters(json!({"type": "object", "properties": {"x": {"not": {"type": "string"}}}, "required": ["x"]}));
    let empty = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 5, "maximum": 3}},
        "required": ["n"]});
    for (fields, param, says) in [
        (json!({"response_format": schema_format(json!({"not": {}}))}), "response_format", "not is not supported"),
        (json!({"response_format": schema_format(empty.clone())}), "response_format", "nsatisfiable"),
        (
            json!({"response_format": schema_format(json!({"properties": {"a\nb": {"$ref": "#/no"}}}))}),
            "response_format",
            "leads nowhere",
        ),
        (
            json!({"tools": [plain, strict(unsupported.clone())]}),
            "tools[1].function.parameters",
            "at /properties/x: not is not supported",
        ),
        (
            json!({"tools": [plain, unsupported], "tool_choice": "required"}),
            "tools[1].function.parameters",
            "not is not supported",
        ),
        (
            json!({"tools": [with_parameters(empty), plain], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            "tools[0].function.parameters",
            "nsatisfiable",
        ),
        (
            json!({"tools": [strict(with_parameters(json!({"type": "object", "properties": {"a\"b": {}}})))]}),
            "tools[0].function.parameters",
            "cannot be written",
        ),
        (
            json!({"tools": [tool("a｜DSML｜b", "", &[])], "tool_choice": "required"}),
            "tools[0].function.name",
            "cannot be written",
        ),
    ] {
        for stream in [false, true] {
            let body = question(with(fields.clone(), json!({"stream": stream})));
            let (status, message, found, _) = post(tiny(), CHAT, &body).error();
            assert_eq!((status, found.as_str()), (400, Some(param)), "{fields}: {message}");
            assert!(message.starts_with(param) && message.contains(says), "{message}");
            assert!(!message.contains('\n') && message.len() < 400, "{message}");
        }
    }
}

#[test]
fn formats_without_grammars_name_the_field_that_needs_one() {
    let server = Running::start(loaded().with_version(Version::V31).unwrap(), ServerOptions::default());
    let plain = tool("get_weather", "Get the weather in a city.", &["city"]);
    let needs = "needs the chat format v3.2";
    for (fields, param, says) in [
        (json!({"response_format": {"type": "json_object"}}), "response_format", "v3.1 has no place for it"),
        (json!({"tools": [plain, strict(tool("f", "", &["x"]))]}), "tools[1].function.strict", needs),
        (json!({"tools": [plain], "tool_choice": "required"}), "tool_choice", needs),
        (json!({"tools": [plain], "parallel_tool_calls": false}), "parallel_tool_calls", needs),
    ] {
        let (status, message, found, _) = post(server.address, CHAT, &question(fields)).error();
        assert_eq!((status, found.as_str()), (400, Some(param)), "{message}");
        assert!(message.starts_with(param) && message.contains(says), "{message}");
    }
}
