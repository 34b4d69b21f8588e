//! `/v1/chat/completions` where the answer must have a form, with the embedded checkpoint.
#![cfg(all(feature = "server", feature = "schema"))]

use crate::server_support::http::{events, gather, post};
use crate::server_support::{loaded, said, tiny, tool};
use serde_json::{Value, json};

use crate::server_support::Running;
use deepseek_v32::chat::Version;
use deepseek_v32::server::ServerOptions;

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

/// The first choice's message and end, whole and streamed, which must agree.
fn both(fields: Value) -> (Value, String) {
    let body = question(fields);
    let answer = post(tiny(), CHAT, &body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    let choice = answer.json()["choices"][0].clone();
    let streamed = gather(&events(tiny(), CHAT, &with(body.clone(), json!({"stream": true}))));
    assert_eq!(said(&streamed[0]["message"]), said(&choice["message"]), "{body}");
    assert_eq!(streamed[0]["finish_reason"], choice["finish_reason"]);
    (choice["message"].clone(), choice["finish_reason"].as_str().unwrap().to_string())
}

/// JSON that follows a schema.
fn follows(schema: &Value, text: &str) -> Value {
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let validator = jsonschema::validator_for(schema).unwrap();
    let problems: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{text}: {problems:?}");
    value
}

#[test]
fn content_follows_its_schema() {
    let schemas = [
        json!({"type": "object", "properties": {"city": {"enum": ["Lisbon", "Oslo"]}, "days": {"type": "integer",
            "minimum": 1, "maximum": 9}}, "required": ["city", "days"], "additionalProperties": false}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}),
        json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/pair"}}, "required": ["a"],
            "additionalProperties": false, "$defs": {"pair": {"type": "array", "items": {"const": null},
            "minItems": 2, "maxItems": 2}}}),
    ];
    for schema in schemas {
        for thinking in ["disabled", "enabled"] {
            let fields = json!({"response_format": schema_format(schema.clone()), "thinking": {"type": thinking}});
            let (message, finish) = both(fields);
            assert_eq!(finish, "stop", "{message}");
            follows(&schema, message["content"].as_str().unwrap());
            assert_eq!(message["reasoning_content"].is_string(), thinking == "enabled");
            assert!(message.get("tool_calls").is_none());
        }
    }
}

#[test]
fn content_is_an_object() {
    // The token `"}` is made likely: the model knows little JSON and would go on for long.
    let format = json!({"type": "json_object"});
    let (message, finish) = both(json!({"response_format": format, "logit_bias": {"475": 20}}));
    assert_eq!(finish, "stop", "{message}");
    let value = follows(&json!({"type": "object"}), message["content"].as_str().unwrap());
    assert!(!value.as_object().unwrap().is_empty());
    // Nothing but JSON comes even where the answer is cut off.
    let (message, finish) = both(json!({"response_format": format, "max_tokens": 5}));
    assert_eq!((finish.as_str(), &message["content"].as_str().unwrap()[..1]), ("length", "{"));
}

/// What a call's arguments come to, of the only call.
fn call(message: &Value, finish: &str) -> (String, String) {
    let calls = message["tool_calls"].as_array().unwrap_or_else(|| panic!("{message}"));
    assert_eq!((calls.len(), finish), (1, "tool_calls"), "{message}");
    let text = |key: &str| calls[0]["function"][key].as_str().unwrap().to_string();
    (text("name"), text("arguments"))
}

#[test]
fn a_required_call_is_made() {
    let tools = [
        tool("get_weather", "Get the weather in a city.", &["city"]),
        tool("get_time", "Local clock time for a city.", &["city"]),
    ];
    let named = json!({"type": "function", "function": {"name": "get_time"}});
    for (question, freely, thinking) in
        [("Hello!", None, false), ("Hello!", None, true), ("weather in Lisbon", Some("get_weather"), false)]
    {
        let ask = |choice: &Value| {
            let thinking = if thinking { "enabled" } else { "disabled" };
            let (message, finish) = both(json!({"messages": [{"role": "user", "content": question}], "tools": tools,
                "tool_choice": choice, "thinking": {"type": thinking}}));
            (message, finish)
        };
        let (message, _) = ask(&json!("auto"));
        assert_eq!(message["tool_calls"][0]["function"]["name"].as_str(), freely, "{message}");
        let (message, finish) = ask(&json!("required"));
        let (name, arguments) = call(&message, &finish);
        assert!(freely.is_none_or(|freely| freely == name), "{message}");
        follows(&tools[0]["function"]["parameters"], &arguments);
        let (message, finish) = ask(&named);
        let (name, arguments) = call(&message, &finish);
        assert_eq!(name, "get_time");
        follows(&tools[1]["function"]["parameters"], &arguments);
    }
}

#[test]
fn tools_of_a_message_may_be_required() {
    let tools = json!([tool("get_weather", "Get the weather in a city.", &["city"])]);
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "get_weather"}})] {
        let messages =
            json!([{"role": "system", "content": "", "tools": tools}, {"role": "user", "content": "Hello!"}]);
        let (message, finish) = both(json!({"messages": messages, "tool_choice": choice}));
        assert_eq!(call(&message, &finish).0, "get_weather");
    }
}

#[test]
fn arguments_of_strict_tools_follow_their_schemas() {
    let parameters = json!({"type": "object", "properties": {
        "city": {"type": "string", "enum": ["Porto", "Faro"]},
        "days": {"type": "integer", "minimum": 3, "maximum": 5},
        "units": {"type": "array", "items": {"enum": ["c", "f"]}, "minItems": 1, "maxItems": 2}},
        "required": ["city", "days", "units"], "additionalProperties": false});
    let mut weather = tool("get_weather", "Get the weather in a city.", &[]);
    weather["function"]["parameters"] = parameters.clone();
    for thinking in ["disabled", "enabled"] {
        let ask = |tool: &Value| both(json!({"tools": [tool], "thinking": {"type": thinking}, "max_tokens": 200}));
        let (message, finish) = ask(&weather);
        assert_eq!(call(&message, &finish).1, "{\"city\": \"Lisbon\"}", "free, the model does as it likes");
        let (message, finish) = ask(&strict(weather.clone()));
        follows(&parameters, &call(&message, &finish).1);
    }
}
