//! What is refused: values that are repeated at no length, fields that are not served, contexts that are exceeded.
#![cfg(feature = "server")]

use crate::generation_support::Mock;
use crate::server_support::http::{open, post};
use crate::server_support::{Running, mock, tiny, tool};
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::server::ServerOptions;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
/// The most bytes of an answer that is an error.
const FEW: usize = 4096;

fn server() -> Running {
    mock(Mock::new(2560, 4096), EngineOptions::default(), ServerOptions::default())
}

/// Every place of a value, as a JSON pointer.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_string());
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| places(value, &format!("{here}/{key}"), found))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| places(value, &format!("{here}/{at}"), found));
        }
        _ => {}
    }
}

#[test]
fn no_error_repeats_a_value_at_length() {
    let server = server();
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let mut named = tool("f", "d", &["x"]);
    named["function"]["strict"] = true.into();
    let chat = json!({
        "model": "mock",
        "messages": [
            {"role": "system", "content": "s", "tools": [tool("g", "d", &["y"])], "response_format": {"type": "text"}},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
            {"role": "assistant", "content": "c", "reasoning_content": "r", "tool_calls": [call], "refusal": "x"},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ],
        "tools": [named],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "thinking": {"type": "enabled"}, "chat_template_kwargs": {"thinking": true}, "enable_thinking": true,
        "reasoning_effort": "low", "reasoning": {"effort": "low"}, "modalities": ["text"],
        "stop": ["x"], "stream_options": {"include_usage": true}, "logit_bias": {"1": 1}, "user": "u",
        "temperature": 1, "top_p": 1, "top_k": 1, "min_p": 0, "seed": 1, "n": 1, "stream": false, "max_tokens": 1,
        "logprobs": true, "top_logprobs": 1, "parallel_tool_calls": true, "continue_final_message": false,
        "guided_regex": "", "verbosity": "medium", "functions": null, "grammar": "",
    });
    let text = json!({
        "model": "mock", "prompt": ["a"], "suffix": "", "echo": false, "best_of": 1, "logprobs": 1, "max_tokens": 1,
        "stop": ["x"], "stop_token_ids": [1], "min_tokens": 0, "ignore_eos": false, "add_special_tokens": true,
        "response_format": {"type": "text"}, "seed": 1, "stream": false, "logit_bias": {"1": 1}, "temperature": 1,
    });
    let prompt = json!({"prompt": "a", "add_special_tokens": true, "return_token_strs": false});
    let ids = json!({"tokens": [1]});
    let long = "\u{1}\"<é".repeat(10_000);
    let huge = "a".repeat(1_000_000);
    for (path, body) in [(CHAT, chat), (TEXT, text), ("/tokenize", prompt), ("/detokenize", ids)] {
        let mut found = Vec::new();
        places(&body, "", &mut found);
        for place in &found {
            // A value, and the name of a field.
            let mut bodies = vec![body.clone()];
            let deep = place.matches('/').count() > 3;
            *bodies[0].pointer_mut(place).unwrap() = if deep { &huge } else { &long }.as_str().into();
            if let Some(Value::Object(entries)) = body.pointer(place) {
                let mut entries = entries.clone();
                entries.insert(long.clone(), 1.into());
                bodies.push(body.clone());
                *bodies[1].pointer_mut(place).unwrap() = entries.into();
            }
            for body in bodies {
                let answer = open(
                    server.address,
                    "POST",
                    path,
                    &[("Content-Type", "application/json")],
                    body.to_string().as_bytes(),
                )
                .whole();
                let size = answer.body.len();
                assert!(size < FEW || (answer.status == 200 && path == "/tokenize"), "{path} {place}: {size} bytes");
                assert!(answer.status < 500, "{path} {place}: {}", answer.body);
            }
        }
    }
    // The parts of a request that are no body.
    for (path, headers) in [
        (format!("/{}", "a".repeat(60_000)), vec![]),
        (format!("/v1/models/{}", "a".repeat(60_000)), vec![]),
        (TEXT.to_string(), vec![("Content-Type", "a".repeat(60_000))]),
        (
            TEXT.to_string(),
            vec![("Content-Type", "application/json".to_string()), ("Content-Encoding", "a".repeat(60_000))],
        ),
    ] {
        let method = if path == TEXT { "POST" } else { "GET" };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = open(server.address, method, &path, &headers, b"{}").whole();
        assert!(answer.status >= 400 && answer.body.len() < FEW, "{}: {} bytes", answer.status, answer.body.len());
    }
}

#[test]
fn pictures_and_sounds_are_refused_as_what_they_are() {
    let server = server();
    let data = format!("data:image/png;base64,{}", "A".repeat(5_000_000));
    for (part, says) in [
        (json!({"type": "image_url", "image_url": {"url": data}}), "takes no images"),
        (json!({"type": "input_image", "image_url": data}), "takes no images"),
        (json!({"image_url": {"url": data}}), "takes no images"),
        (json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}), "takes no audio"),
        (json!({"type": "video_url", "video_url": {"url": "http://x/y"}}), "takes no videos"),
        (json!({"type": "file", "file": {"file_id": "f"}}), "takes no files"),
    ] {
        let messages = json!([{"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "what is this?"}, part]}]);
        let (status, message, param, _) = post(server.address, CHAT, &json!({"messages": messages})).error();
        assert_eq!((status, param), (400, json!("messages[1]")), "{message}");
        assert!(message.contains(says) && message.contains("content[1]") && message.len() < 200, "{message}");
    }
    let messages = json!([{"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "user", "content": "b"}]);
    let (status, message, param, _) = post(server.address, CHAT, &json!({"messages": messages})).error();
    assert_eq!((status, param), (400, json!("messages[1]")));
    assert!(message.contains("tool_calls"), "{message}");
}

#[test]
fn fields_that_would_change_an_answer_are_served_or_refused_by_name() {
    let server = server();
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    let text = json!({"prompt": "hi", "max_tokens": 1});
    let ask = |path: &str, name: &str, value: &Value| {
        let mut body = if path == CHAT { chat.clone() } else { text.clone() };
        body[name] = value.clone();
        post(server.address, path, &body)
    };
    for (name, asks, neutral) in [
        ("structured_outputs", json!({"regex": "a+"}), json!({})),
        ("guided_json", json!({"type": "object"}), Value::Null),
        ("guided_regex", json!("a+"), json!("")),
        ("guided_choice", json!(["a", "b"]), json!([])),
        ("guided_grammar", json!("root ::= \"a\""), Value::Null),
        ("structural_tag", json!("{}"), Value::Null),
        ("json_schema", json!("{}"), Value::Null),
        ("regex", json!("a+"), Value::Null),
        ("ebnf", json!("root ::= \"a\""), Value::Null),
        ("grammar", json!("root ::= \"a\""), json!("")),
        ("verbosity", json!("low"), json!("medium")),
        ("use_beam_search", json!(true), json!(false)),
        ("length_penalty", json!(2), json!(1.0)),
        ("allowed_token_ids", json!([1, 2]), json!([])),
        ("bad_words", json!(["a"]), json!([])),
        ("logits_processors", json!(["x"]), json!([])),
        ("custom_logit_processor", json!("x"), Value::Null),
        ("typical_p", json!(0.5), json!(1)),
        ("mirostat", json!(2), json!(0)),
        ("dry_multiplier", json!(0.8), json!(0.0)),
        ("xtc_probability", json!(0.5), json!(0)),
        ("repeat_penalty", json!(1.1), json!(1.0)),
        ("watermark", json!({"key": 1}), Value::Null),
        ("watermarking", json!(true), json!(false)),
        ("best_of", json!(2), json!(1)),
        ("samplers", json!(["top_k"]), json!([])),
        ("custom_params", json!({"a": 1}), json!({})),
        ("do_sample", json!(false), json!(true)),
        ("num_beams", json!(4), json!(1)),
        ("repeat_last_n", json!(64), json!(-1)),
        ("min_new_tokens", json!(3), json!(0)),
        ("t_max_predict_ms", json!(10), json!(0)),
        ("task", json!("title"), Value::Null),
        ("ec_transfer_params", json!({"a": 1}), json!({})),
        ("logprob_token_ids", json!([1]), Value::Null),
        ("return_prompt_text", json!(true), json!(false)),
        ("return_cached_tokens_details", json!(true), json!(false)),
        ("stop_regex", json!("a+"), Value::Null),
        ("no_stop_trim", json!(true), json!(false)),
        ("include_stop_str_in_output", json!(true), json!(false)),
        ("max_new_tokens", json!(5), Value::Null),
        ("n_predict", json!(5), json!(-1)),
        ("repetition_detection", json!({"min_count": 3}), Value::Null),
        ("chat_template", json!("{{ messages }}"), Value::Null),
        ("documents", json!([{"text": "a"}]), json!([])),
        ("input_ids", json!([1]), Value::Null),
        ("prompt_embeds", json!("AAAA"), Value::Null),
        ("truncate_prompt_tokens", json!(10), Value::Null),
        ("lora_path", json!("x"), Value::Null),
        ("kv_transfer_params", json!({"a": 1}), json!({})),
        ("thinking_token_budget", json!(10), json!(-1)),
        ("include_reasoning", json!(false), json!(true)),
        ("separate_reasoning", json!(false), json!(true)),
        ("stream_reasoning", json!(false), json!(true)),
        ("skip_special_tokens", json!(false), json!(true)),
        ("prompt_logprobs", json!(0), Value::Null),
        ("return_tokens_as_token_ids", json!(true), Value::Null),
        ("return_hidden_states", json!(true), json!(false)),
    ] {
        for path in [CHAT, TEXT] {
            let (status, message, param, _) = ask(path, name, &asks).error();
            assert_eq!((status, param), (400, json!(name)), "{path}: {message}");
            assert!(message.starts_with(name), "{message}");
            // What is advised is served there.
            assert!(path == CHAT || !message.contains("response_format"), "{message}");
            let answer = ask(path, name, &neutral);
            assert_eq!(answer.status, 200, "{path} {name}: {}", answer.body);
        }
    }
    for (path, name, asks, neutral) in [
        (CHAT, "echo", json!(true), json!(false)),
        (CHAT, "add_generation_prompt", json!(false), json!(true)),
        (CHAT, "ignore_eos", json!(true), json!(false)),
        (CHAT, "min_tokens", json!(5), json!(0)),
        (CHAT, "stop_token_ids", json!([5]), json!([])),
        (TEXT, "tools", json!([tool("f", "", &[])]), json!([])),
        (TEXT, "return_token_ids", json!(true), json!(false)),
        (TEXT, "suffix", json!("x"), json!("")),
        (TEXT, "enable_thinking", json!(true), json!(false)),
        (TEXT, "max_completion_tokens", json!(5), Value::Null),
        (TEXT, "response_format", json!({"type": "json_object"}), json!({"type": "text"})),
    ] {
        let (status, message, param, _) = ask(path, name, &asks).error();
        assert_eq!((status, param), (400, json!(name)), "{path}: {message}");
        let answer = ask(path, name, &neutral);
        assert_eq!(answer.status, 200, "{path} {name}: {}", answer.body);
    }
    // Schemas beside a type that does not read them.
    let schema = json!({"type": "object"});
    for (path, kind, part) in [
        (CHAT, "text", "schema"),
        (CHAT, "text", "json_schema"),
        (CHAT, "json_object", "json_schema"),
        (CHAT, "json_schema", "schema"),
        (TEXT, "text", "schema"),
    ] {
        let format = json!({"type": kind, part: schema});
        let (status, message, param, _) = ask(path, "response_format", &format).error();
        assert_eq!((status, param), (400, json!(format!("response_format.{part}"))), "{path} {kind}: {message}");
        assert_eq!(ask(path, "response_format", &json!({"type": "text", part: null})).status, 200);
    }
    for (name, asks) in [("thinking", "budget_tokens"), ("reasoning", "max_tokens")] {
        let (status, message, param, _) = ask(CHAT, name, &json!({ asks: 100 })).error();
        assert_eq!((status, param), (400, json!(format!("{name}.{asks}"))), "{message}");
    }
    // These change no answer; the last one is unknown.
    for (name, value) in [
        ("user", json!("u")),
        ("metadata", json!({"a": "b"})),
        ("store", json!(true)),
        ("service_tier", json!("auto")),
        ("priority", json!(5)),
        ("cache_salt", json!("x")),
        ("request_id", json!("x")),
        ("safety_identifier", json!("x")),
        ("prompt_cache_key", json!("x")),
        ("frobnicate", json!([1])),
    ] {
        for path in [CHAT, TEXT] {
            assert_eq!(ask(path, name, &value).status, 200, "{name}");
        }
    }
}

#[cfg(feature = "schema")]
#[test]
fn a_schema_beside_json_object_is_held() {
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Lisbon", "Oslo"]}},
        "required": ["city"], "additionalProperties": false});
    let ask = |format: Value| {
        let body = json!({"messages": [{"role": "user", "content": "weather in Lisbon"}], "max_tokens": 100,
            "response_format": format});
        post(tiny(), CHAT, &body)
    };
    let answer = ask(json!({"type": "json_object", "schema": schema}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let content = answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_string();
    let value: Value = serde_json::from_str(&content).unwrap_or_else(|error| panic!("{error}: {content}"));
    assert!(jsonschema::is_valid(&schema, &value), "{content}");
    let (status, message, param, _) = ask(json!({"type": "json_object", "schema": 3})).error();
    assert_eq!((status, param), (400, json!("response_format.schema")), "{message}");
}

#[test]
fn completions_end_where_the_request_says() {
    let text = |fields: Value| {
        let mut body = json!({"prompt": [5, 6, 7], "max_tokens": 40, "logprobs": 0});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = post(tiny(), TEXT, &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let json = answer.json();
        let tokens = json["usage"]["completion_tokens"].as_u64().unwrap();
        (tokens, json["choices"][0].clone())
    };
    // Forces the end token as soon as it is allowed.
    let eager = json!({"1": 100});
    let (tokens, choice) = text(json!({"logit_bias": eager}));
    assert_eq!((tokens, &choice["finish_reason"]), (1, &json!("stop")));
    let (tokens, choice) = text(json!({"logit_bias": eager, "min_tokens": 7}));
    assert_eq!((tokens, &choice["finish_reason"]), (8, &json!("stop")));
    let (tokens, choice) = text(json!({"logit_bias": eager, "ignore_eos": true}));
    assert_eq!((tokens, &choice["finish_reason"]), (40, &json!("length")));
    // Another token ends the answer and is no part of it.
    let other = json!({"100": 100});
    let (tokens, choice) = text(json!({"logit_bias": other}));
    assert_eq!(tokens, 40);
    assert!(!choice["text"].as_str().unwrap().is_empty());
    let (tokens, choice) = text(json!({"logit_bias": other, "stop_token_ids": [100]}));
    assert_eq!((tokens, &choice["finish_reason"], &choice["text"]), (1, &json!("stop"), &json!("")));
    assert_eq!(choice["logprobs"]["tokens"], json!([]));
    let (tokens, _) = text(json!({"logit_bias": other, "stop_token_ids": [100], "min_tokens": 3}));
    assert_eq!(tokens, 4);
    for (fields, param) in [
        (json!({"min_tokens": 41}), "min_tokens"),
        (json!({"min_tokens": 1, "stop": "x"}), "min_tokens"),
        (json!({"stop_token_ids": [2560]}), "stop_token_ids"),
        (json!({"stop_token_ids": (0..2560).collect::<Vec<_>>(), "min_tokens": 1}), "min_tokens"),
        (json!({"stop_token_ids": 5}), "stop_token_ids"),
        (json!({"ignore_eos": "yes"}), "ignore_eos"),
    ] {
        let mut body = json!({"prompt": [5], "max_tokens": 40});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, message, found, _) = post(tiny(), TEXT, &body).error();
        assert_eq!((status, found.as_str()), (400, Some(param)), "{message}");
    }
}

/// Clients look for these words, and for the numbers behind them.
#[test]
fn an_exceeded_context_is_told_in_the_protocols_words() {
    let server = server();
    let begins = "This model's maximum context length is 4096 tokens. However, you";
    let count = |body: &Value| post(server.address, "/tokenize", body).json()["count"].as_u64().unwrap();
    let chat = json!({"messages": [{"role": "user", "content": "hi ".repeat(2000)}]});
    let tokens = count(&chat);
    assert!(tokens < 4096);
    let with = |body: &Value, max: u64| {
        let mut body = body.clone();
        body["max_tokens"] = max.into();
        body
    };
    let text = json!({"prompt": vec![5; 4000]});
    for (path, body, tokens, field) in [(CHAT, &chat, tokens, "messages"), (TEXT, &text, 4000, "prompt")] {
        // More than the context holds beside the prompt is asked for by many clients: they get what it holds.
        let answer = post(server.address, path, &with(body, 1_000_000)).json();
        assert!(answer["usage"]["total_tokens"].as_u64().unwrap() <= 4096, "{answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], tokens);
        let mut long = body.clone();
        match path {
            CHAT => long["messages"][0]["content"] = "hi ".repeat(5000).into(),
            _ => long["prompt"] = vec![5; 4096].into(),
        }
        let tokens = if path == CHAT { count(&long) } else { 4096 };
        for long in [long.clone(), with(&long, 1)] {
            let (status, message, param, code) = post(server.address, path, &long).error();
            assert_eq!((status, param, code), (400, json!(field), json!("context_length_exceeded")), "{message}");
            assert!(message.starts_with(begins) && message.contains(&format!("{tokens} tokens")), "{message}");
        }
    }
    // What fills the context exactly is answered, and without a number the answer has what is left.
    let full = json!({"prompt": vec![5; 4093], "max_tokens": 3, "ignore_eos": true});
    assert_eq!(post(server.address, TEXT, &full).json()["usage"]["total_tokens"], 4096);
    let rest = json!({"prompt": vec![5; 4093], "ignore_eos": true});
    assert_eq!(post(server.address, TEXT, &rest).json()["usage"]["total_tokens"], 4096);
}

/// A value of few bytes takes many in memory: their number is bounded before any is built.
#[test]
fn what_takes_too_much_to_read_is_refused_before_it_is_read() {
    let server = server();
    let raw = |path: &str, body: String| {
        open(server.address, "POST", path, &[("Content-Type", "application/json")], body.as_bytes()).whole().error()
    };
    let chat = |parameters: String| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}], \"max_tokens\": 1, \"tools\": [{{\"function\": \
             {{\"name\": \"f\", \"parameters\": {{\"enum\": {parameters}}}}}}}]}}"
        )
    };
    let many = |value: &str, count: usize| format!("[{}]", vec![value; count].join(","));
    for value in ["[]", "1", "\"\"", "{}", "null"] {
        let (status, message, param, code) = raw(CHAT, chat(many(value, 140_000)));
        assert_eq!((status, param, code), (413, Value::Null, json!("too_large")), "{message}");
        assert!(message.contains("JSON values") && message.contains("131072"), "{message}");
    }
    let fields: String = (0..140_000).map(|at| format!("\"f{at}\": 1,")).collect();
    assert_eq!(raw(CHAT, format!("{{{fields} \"messages\": []}}")).0, 413);
    assert_eq!(raw(TEXT, format!("{{\"prompt\": {}}}", many("[]", 140_000))).0, 413);
    // Ids are no tree of values: too many of them are the context's affair.
    let (status, _, param, code) = raw(TEXT, format!("{{\"prompt\": {}}}", many("1", 1_000_000)));
    assert_eq!((status, param, code), (400, json!("prompt"), json!("context_length_exceeded")));
    // Few values that are long.
    let (status, message, param, code) = raw(CHAT, chat(format!("[\"{}\"]", "x".repeat(1_100_000))));
    assert_eq!((status, param, code), (413, json!("tools"), json!("too_large")), "{message}");
    assert!(message.contains("1048576"), "{message}");
    let format = format!("{{\"type\": \"json_schema\", \"x\": \"{}\"}}", "x".repeat(1_100_000));
    let body = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"\"}}], \"response_format\": {format}}}");
    assert_eq!(raw(CHAT, body).2, json!("response_format"));
    let body = format!(
        "{{\"messages\": [{{\"role\": \"system\", \"content\": \"\", \"tools\": [\"{}\"]}}]}}",
        "x".repeat(1_100_000)
    );
    assert_eq!(raw(CHAT, body).2, json!("messages[0].tools"));
}

/// Bodies wait for each other; small ones wait for none.
#[test]
fn large_bodies_at_once_are_all_answered() {
    let options = ServerOptions { max_body: 200_000, ..ServerOptions::default() };
    let server = mock(Mock::new(2560, 1 << 20), EngineOptions::default(), options);
    let body = json!({"prompt": "word ".repeat(20_000), "max_tokens": 1});
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| post(server.address, TEXT, &body).status)).collect();
        assert_eq!(post(server.address, TEXT, &json!({"prompt": "a", "max_tokens": 1})).status, 200);
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
    // Nothing is held any more: as much as at most can be is taken again.
    for _ in 0..3 {
        assert_eq!(post(server.address, TEXT, &body).status, 200);
    }
}
