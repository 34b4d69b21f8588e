//! Calls that are cut off or cannot be read, and markup that is none, in whole and streamed answers.
#![cfg(feature = "server")]

use crate::echo_support::echo;
use crate::server_support::http::{events, gather, metric, open, post};
use crate::server_support::{Running, tool};
use deepseek_v32::chat::Version;
use deepseek_v32::server::ServerOptions;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn field(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/data/field/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A request that the echo answers with `text`.
fn body(text: &str, tools: &[Value], fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": text}]});
    if !tools.is_empty() {
        body["tools"] = tools.into();
    }
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// Content, calls without their ids, end, and what is told of a call: of the whole answer, which is also the stream's.
fn answer(server: &Running, body: &Value) -> Value {
    let whole = post(server.address, CHAT, body);
    assert_eq!(whole.status, 200, "{}", whole.body);
    let whole = whole.json()["choices"][0].clone();
    let mut stream_body = body.clone();
    stream_body["stream"] = true.into();
    let pieces = events(server.address, CHAT, &stream_body);
    let mut streamed = gather(&pieces)[0].clone();
    let last = pieces.iter().flat_map(|piece| piece["choices"].as_array().unwrap()).last().unwrap();
    for key in ["tool_call_error", "dropped"] {
        streamed[key] = last[key].clone();
    }
    let told = |choice: &Value| {
        let message = &choice["message"];
        let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
        let calls: Vec<_> = calls.iter().map(|call| call["function"].clone()).collect();
        json!({"content": message["content"].as_str().unwrap_or_default(), "calls": calls,
            "reasoning": message["reasoning_content"].as_str().unwrap_or_default(), "end": choice["finish_reason"],
            "tool_call_error": choice["tool_call_error"], "dropped": choice["dropped"]})
    };
    assert_eq!(told(&streamed), told(&whole), "{body}");
    told(&whole)
}

/// A tool that is open to other parameters, so that the engine holds no names of them.
fn open_tool(name: &str) -> Value {
    let mut tool = tool(name, "", &["a"]);
    tool["function"]["parameters"]["additionalProperties"] = json!(true);
    tool
}

const CALL: &str = "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"ping\">\n<｜DSML｜parameter name=\"a\" \
                    string=\"true\">Zü < 🔧 x\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";

#[test]
fn a_call_that_cannot_be_read_is_told() {
    let server = Running::start(echo(Version::V32), ServerOptions::default());
    let malformed = field("malformed_call/malformed.txt");
    let unclosed = CALL.replace("\n</｜DSML｜parameter>", "");
    let before = metric(server.address, "malformed_total");
    for text in [
        malformed.as_str(),
        unclosed.as_str(),
        &format!("Let me see.{malformed}"),
        &CALL[..CALL.floor_char_boundary(CALL.len() / 2)],
        "\n\n</｜DSML｜function_calls>\n\n",
        "<｜DSML｜function_calls>",
        "｜DSML｜",
    ] {
        let told = answer(&server, &body(text, &[open_tool("ping")], json!({})));
        assert_eq!((told["content"].as_str(), &told["calls"], &told["end"]), (Some(text), &json!([]), &json!("stop")));
        assert!(!told["tool_call_error"].as_str().unwrap().is_empty(), "{told}");
        assert!(!told["dropped"].as_array().unwrap().is_empty(), "{told}");
    }
    let counted = metric(server.address, "malformed_total") - before;
    assert_eq!(counted, 14.0);
    // One that was cut is none.
    let told = answer(&server, &body(&unclosed, &[open_tool("ping")], json!({"max_tokens": 40})));
    assert_eq!((&told["end"], told["tool_call_error"].is_string()), (&json!("length"), true), "{told}");
    assert_eq!(metric(server.address, "malformed_total") - before, counted);
    // A call that can be read goes without such a word.
    let told = answer(&server, &body(CALL, &[open_tool("ping")], json!({})));
    assert_eq!((&told["tool_call_error"], &told["dropped"]), (&Value::Null, &Value::Null));
    assert_eq!((&told["content"], &told["end"]), (&json!(""), &json!("tool_calls")));
    assert_eq!(told["calls"][0]["arguments"], json!("{\"a\": \"Zü < 🔧 x\\n\"}"));
}

#[test]
fn markup_without_tools_is_text() {
    let quote = field("quoted_markup/quote.txt");
    let v31 = "Such: <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜> ends.";
    for (version, text) in [(Version::V32, quote.as_str()), (Version::V32, CALL), (Version::V31, v31)] {
        let server = Running::start(echo(version), ServerOptions::default());
        for (tools, fields) in [(vec![], json!({})), (vec![open_tool("ping")], json!({"tool_choice": "none"}))] {
            let told = answer(&server, &body(text, &tools, fields));
            let expected = json!({"content": text, "calls": [], "reasoning": "", "end": "stop",
                "tool_call_error": null, "dropped": null});
            assert_eq!(told, expected);
        }
    }
}

/// Wherever an answer is cut, the stream is the whole answer, a call is there once it is complete, and the text only
/// grows.
#[test]
fn every_cut() {
    let v31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{\"a\": \"Zü < 🔧 x\"}<｜tool▁call▁end｜>\
               <｜tool▁calls▁end｜>";
    for (version, call) in [(Version::V32, CALL), (Version::V31, v31)] {
        let server = Running::start(echo(version), ServerOptions::default());
        let text = format!("See 🔧 a < b:\n{call}");
        let whole = post(server.address, CHAT, &body(&text, &[open_tool("ping")], json!({}))).json();
        // The token that ends the answer is one of them.
        let tokens = whole["usage"]["completion_tokens"].as_u64().unwrap();
        let mut last = (String::new(), 0);
        for max_tokens in 1..=tokens {
            let told = answer(&server, &body(&text, &[open_tool("ping")], json!({"max_tokens": max_tokens})));
            let now = (told["content"].as_str().unwrap().to_string(), told["calls"].as_array().unwrap().len());
            assert!(now.0.starts_with(&last.0) && now.1 >= last.1, "{last:?} became {now:?} at {max_tokens}");
            let end = if max_tokens < tokens { "length" } else { "tool_calls" };
            assert_eq!(told["end"], end, "{max_tokens}");
            for call in told["calls"].as_array().unwrap() {
                let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
                assert!(arguments["a"].as_str().unwrap().starts_with("Zü < 🔧 x"), "{call}");
            }
            last = now;
        }
        assert_eq!(last, ("See 🔧 a < b:\n".to_string(), 1));
    }
}

/// Whoever asks for it sees the arguments while they are written, also of a call that comes to no end.
#[test]
fn arguments_stream_where_that_is_wanted() {
    let server = Running::start(echo(Version::V32), ServerOptions::default());
    let unclosed = CALL.replace("</｜DSML｜parameter>\n", "");
    let pieces = |text: &str, fields: Value| {
        let events = events(server.address, CHAT, &body(text, &[open_tool("ping")], fields));
        let calls = gather(&events)[0]["message"]["tool_calls"].clone();
        let first = events.iter().position(|event| event["choices"][0]["delta"]["tool_calls"].is_array());
        (calls[0]["function"]["arguments"].as_str().unwrap_or_default().to_string(), first, events.len())
    };
    let (whole, late, count) = pieces(CALL, json!({"stream": true}));
    let (streamed, early, same_count) = pieces(CALL, json!({"stream": true, "tool_stream": true}));
    assert_eq!((streamed.as_str(), count), (whole.as_str(), same_count));
    assert_eq!(late, early, "the same pieces in the same order");
    assert_eq!(pieces(&unclosed, json!({"stream": true})).0, "");
    let begun = pieces(&unclosed, json!({"stream": true, "tool_stream": true})).0;
    assert_eq!(begun, "{\"a\": \"Zü < 🔧 x\\n");
}

#[test]
fn v3_and_r1_are_offered_tools() {
    let call = "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{\"a\": \"b\"}\n```\
                <｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    for version in [Version::V3, Version::V3Dec2024] {
        let server = Running::start(echo(version), ServerOptions::default());
        let request = body(call, &[open_tool("ping")], json!({}));
        let tokens = post(server.address, "/tokenize", &request).json()["count"].as_u64().unwrap();
        let without = post(server.address, "/tokenize", &body(call, &[], json!({}))).json()["count"].as_u64().unwrap();
        assert!(tokens > without + 50, "{tokens} {without}");
        let told = post(server.address, CHAT, &request);
        assert_eq!(told.status, 200, "{}", told.body);
        let choice = &told.json()["choices"][0];
        assert_eq!(
            choice["message"]["tool_calls"][0]["function"],
            json!({"name": "ping", "arguments": "{\"a\": \"b\"}"})
        );
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}

#[test]
fn a_byte_order_mark_before_a_body_is_none() {
    let server = Running::start(echo(Version::V32), ServerOptions::default());
    let plain = body("Hello.", &[], json!({})).to_string();
    let headers = [("content-type", "application/json")];
    let marked = open(server.address, "POST", CHAT, &headers, format!("\u{feff}{plain}").as_bytes()).whole();
    assert_eq!(marked.status, 200, "{}", marked.body);
    assert_eq!(marked.json()["choices"][0]["message"]["content"], "Hello.");
}

/// Histories as clients send them: see `tests/data/field`.
#[test]
fn calls_without_arguments_in_a_history() {
    let server = Running::start(echo(Version::V32), ServerOptions::default());
    let tokens = |name: &str| {
        let body: Value = serde_json::from_str(&field(&format!("empty_arguments/{name}.json"))).unwrap();
        let answer = post(server.address, "/tokenize", &body);
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        answer.json()["tokens"].clone()
    };
    for name in ["empty", "blanks", "null", "missing"] {
        assert_eq!(tokens(name), tokens("works"), "{name}");
    }
    let mut body: Value = serde_json::from_str(&field("reasoning_name/reasoning.json")).unwrap();
    let mut text = |name: &str| {
        body["messages"][1].as_object_mut().unwrap().insert(name.to_string(), json!("MARK"));
        let answer = post(server.address, "/tokenize", &body);
        body["messages"][1].as_object_mut().unwrap().remove(name);
        answer.json()
    };
    let (reasoning, content) = (text("reasoning"), text("reasoning_content"));
    assert_eq!(reasoning["tokens"], content["tokens"]);
}
