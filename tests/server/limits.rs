//! Errors, limits, keys, cancellation and the end of a server, with a mock behind it.
#![cfg(feature = "server")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use crate::generation_support::Mock;
use crate::server_support::http::{Open, begin, get, metric, open, post};
use crate::server_support::{Running, mock};
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::server::ServerOptions;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn server(options: ServerOptions) -> Running {
    mock(Mock::new(2560, 4096), EngineOptions::default(), options)
}

/// A body of an answer that does not end by itself.
fn endless() -> Value {
    json!({"prompt": [5, 6, 7], "max_tokens": 1_000_000, "logit_bias": {"1": -100}, "stream": true})
}

/// Waits until a metric has a value.
fn wait(server: &Running, name: &str, value: f64) {
    let began = Instant::now();
    while metric(server.address, name) != value {
        assert!(began.elapsed() < Duration::from_secs(60), "{name} is not {value}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn first_event(stream: &mut Open) -> Value {
    serde_json::from_str(&stream.event().unwrap()).unwrap()
}

#[test]
fn wrong_values_are_refused_by_name() {
    let server = server(ServerOptions::default());
    let user = json!([{"role": "user", "content": "hi"}]);
    let tool = json!({"type": "function", "function": {"name": "f"}});
    for (fields, param) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"top_k": -5}), "top_k"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": "a"}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1": 200}}), "logit_bias"),
        (json!({"logit_bias": {"2560": 1}}), "logit_bias"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": 5}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": true}), "stream_options"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"role": "king", "content": "hi"}]}), "messages[0]"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0]"),
        (json!({"messages": [["user", "hi", null, null, null, null, null, null, null]]}), "messages[0]"),
        (json!({"tools": [["function", {"name": "f"}]]}), "tools[0]"),
        (
            json!({"messages": [{"role": "system", "content": "", "tools": [{"function": {"name": "a\"b"}}]}, user[0]]}),
            "messages[0].tools[0].function.name",
        ),
        (
            json!({"messages": [{"role": "system", "content": "", "tools": [tool]}, user[0]], "tools": [tool]}),
            "messages[0].tools[0].function.name",
        ),
        (
            json!({"messages": [user[0], {"role": "assistant", "content": "{", "prefix": true}],
                   "response_format": {"type": "json_object"}}),
            "response_format",
        ),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}), "messages[0]"),
        (json!({"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}), "messages[0].role"),
        (json!({"tools": [tool, tool]}), "tools[1].function.name"),
        (json!({"tools": [{"type": "retrieval"}]}), "tools[0]"),
        (json!({"tools": [{"type": "function", "function": {"name": "a\"b"}}]}), "tools[0].function.name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]}),
            "tools[0].function.parameters",
        ),
        (json!({"tools": "f"}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "g"}}}), "tool_choice"),
        (json!({"tools": [tool], "tool_choice": "maybe"}), "tool_choice"),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
        (json!({"response_format": {"type": "xml"}}), "response_format"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema.schema"),
        (json!({"thinking": {"type": "maybe"}}), "thinking"),
        (json!({"chat_template_kwargs": {"thinking": "yes"}}), "chat_template_kwargs"),
        (json!({"chat_template_kwargs": {"clear_thinking": false}}), "chat_template_kwargs.clear_thinking"),
        (json!({"reasoning_effort": 3}), "reasoning_effort"),
        (json!({"reasoning_effort": "banana"}), "reasoning_effort"),
        (json!({"functions": []}), "functions"),
        (json!({"stop_sequences": ["x"]}), "stop_sequences"),
        (json!({"max_output_tokens": 5}), "max_output_tokens"),
        (json!({"tfs": 0.5}), "tfs"),
        (json!({"modalities": ["audio"]}), "modalities"),
        (json!({"continue_final_message": true}), "continue_final_message"),
    ] {
        let mut body = json!({"messages": user, "max_tokens": 1});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, message, found, _) = post(server.address, CHAT, &body).error();
        assert_eq!((status, found.as_str()), (400, Some(param)), "{fields}: {message}");
        assert!(message.starts_with(param) && !message.contains('\n'), "{message}");
        assert!(message.len() < 300, "{message}");
    }
    // Bad arguments in a history, counted as the client counts, tools or not.
    let call = json!({"type": "function", "id": "a", "function": {"name": "f", "arguments": "{broken"}});
    let history = json!([user[0], {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "x"}]);
    for tools in [json!([]), json!([tool])] {
        let body = json!({"messages": history, "tools": tools});
        let (status, _, param, _) = post(server.address, CHAT, &body).error();
        assert_eq!((status, param), (400, json!("messages[1].tool_calls")));
    }
    for (fields, param) in [
        (json!({"suffix": "x"}), "suffix"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tools": [tool]}), "tools"),
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, "a"]}), "prompt"),
        (json!({"prompt": [9999]}), "prompt"),
        (json!({"prompt": [1, -1]}), "prompt"),
        (json!({"prompt": vec!["a"; 17]}), "prompt"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"echo": true, "logprobs": 1}), "logprobs"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"messages": []}), "messages"),
    ] {
        let mut body = json!({"prompt": "hi", "max_tokens": 1});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, message, found, _) = post(server.address, TEXT, &body).error();
        assert_eq!((status, found.as_str()), (400, Some(param)), "{fields}: {message}");
    }
}

/// What cannot fit is not even tokenized.
#[test]
fn huge_prompts_are_refused_by_their_size() {
    let server = server(ServerOptions::default());
    let huge = "a ".repeat(3_000_000);
    for (path, body, param) in [
        (CHAT, json!({"messages": [{"role": "user", "content": huge}]}), Value::Null),
        (TEXT, json!({"prompt": huge}), json!("prompt")),
    ] {
        let (status, message, found, code) = post(server.address, path, &body).error();
        assert_eq!((status, found, code), (400, param, json!("context_length_exceeded")), "{message}");
        assert!(message.contains("6000") && message.contains("bytes at most"), "{message}");
    }
}

#[test]
fn broken_requests_get_the_protocols_errors() {
    let server = server(ServerOptions::default());
    let raw = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        open(server.address, "POST", path, headers, body).whole().error()
    };
    let (status, message, _, code) = raw(CHAT, &[JSON], b"{\"messages\": [\n  {\"role\": }]}");
    assert_eq!((status, code), (400, json!("invalid_json")));
    assert!(message.contains("line 2 column"), "{message}");
    for body in [&b""[..], b"[]", b"3", b"\xff\xfe", b"{\"a\": 1} x"] {
        assert_eq!(raw(CHAT, &[JSON], body).0, 400);
    }
    let deep = format!("{{\"messages\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(raw(CHAT, &[JSON], deep.as_bytes()).0, 400);
    assert_eq!(raw(CHAT, &[], b"{}").0, 415);
    assert_eq!(raw(CHAT, &[("Content-Type", "text/plain")], b"{}").0, 415);
    let zipped = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    assert_eq!(raw(CHAT, &zipped, b"{}").0, 415);
    assert_eq!(raw(CHAT, &[("Content-Type", "application/json; charset=utf-8")], b"{}").0, 400);
    let (status, message, ..) = raw("/v1/embeddings", &[JSON], b"{}");
    assert_eq!((status, message.as_str()), (404, "there is no /v1/embeddings"));
    let (status, message, ..) = get(server.address, CHAT).error();
    assert_eq!((status, message.as_str()), (405, "/v1/chat/completions does not answer GET"));
    let body = json!({"model": "gpt-9", "messages": [{"role": "user", "content": "hi"}]});
    let (status, message, param, code) = post(server.address, CHAT, &body).error();
    assert_eq!((status, param, code), (404, json!("model"), json!("model_not_found")));
    assert!(message.contains("gpt-9") && message.contains("mock"), "{message}");
    assert_eq!(get(server.address, "/v1/models/gpt-9").status, 404);
    let malformed = get(server.address, "/v1/models/%ff");
    assert_eq!((malformed.status, malformed.json()["error"]["type"].as_str()), (400, Some("invalid_request_error")));
    let long = json!({"prompt": vec![5; 4096]});
    let (status, message, param, code) = post(server.address, TEXT, &long).error();
    assert_eq!((status, param, code), (400, json!("prompt"), json!("context_length_exceeded")));
    assert!(message.contains("4096"), "{message}");
}

#[test]
fn large_and_slow_bodies_are_refused() {
    let options =
        ServerOptions { max_body: 1000, read_timeout: Duration::from_millis(200), ..ServerOptions::default() };
    let server = server(options);
    for size in [1001, 3000, 100_000] {
        let body = json!({"prompt": "x".repeat(size)}).to_string();
        let answer = open(server.address, "POST", TEXT, &[JSON], body.as_bytes()).whole();
        assert_eq!(answer.error().0, 413);
    }
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head =
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// Writes a piece again and again, until the server has closed the connection; what it said.
fn drip(address: SocketAddr, head: &str, piece: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (began, mut said, mut bytes) = (Instant::now(), Vec::new(), [0; 1024]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&bytes[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the connection is held");
        let _ = stream.write_all(piece.as_bytes());
    }
    String::from_utf8(said).unwrap()
}

fn impatient() -> ServerOptions {
    ServerOptions {
        read_timeout: Duration::from_secs(20),
        body_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(400),
        keep_alive: Duration::from_millis(50),
        ..ServerOptions::default()
    }
}

#[test]
fn nobody_holds_a_connection_by_being_slow() {
    let server = server(impatient());
    let head =
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n";
    let said = drip(server.address, head, " ");
    assert!(said.starts_with("HTTP/1.1 408") && said.contains("the body took more than 0.4 s"), "{said}");
    assert_eq!(drip(server.address, "", ""), "");
    assert_eq!(drip(server.address, "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ", "a"), "");
    // A request is answered; the connection that is kept for the next one ends.
    let said = drip(server.address, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[test]
fn a_kept_connection_ends_a_time_limit_after_its_answer() {
    let limit = Duration::from_secs(5);
    let server = server(ServerOptions { idle_timeout: limit, ..impatient() });
    let began = Instant::now();
    let said = drip(server.address, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let held = began.elapsed();
    assert!(held > limit.mul_f64(0.9) && held < limit.mul_f64(1.8), "{held:?}");
}

#[test]
fn a_stream_that_nobody_reads_ends() {
    let server = mock(Mock::new(2560, 1 << 20), EngineOptions::default(), impatient());
    let unread = begin(server.address, TEXT, &endless());
    wait(&server, "cancelled_total", 1.0);
    wait(&server, "requests_running", 0.0);
    drop(unread);
}

#[test]
fn who_waits_and_reads_is_not_cut_off() {
    let engine = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let server = mock(Mock::new(2560, 1 << 20), engine, impatient());
    let mut running = begin(server.address, TEXT, &endless());
    first_event(&mut running);
    // It waits for the one that runs, without a word from the server.
    let waiting = std::thread::spawn({
        let address = server.address;
        move || post(address, TEXT, &json!({"prompt": [5], "max_tokens": 2}))
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        first_event(&mut running);
    }
    drop(running);
    assert_eq!(waiting.join().unwrap().status, 200);
}

#[test]
fn a_key_is_asked_for_where_it_must_be() {
    let server = server(ServerOptions { api_key: Some("secret".to_string()), ..ServerOptions::default() });
    let ask = |key: Option<&str>| {
        let headers: Vec<_> = key.map(|key| ("Authorization", key)).into_iter().collect();
        open(server.address, "GET", "/v1/models", &headers, b"").whole()
    };
    for key in
        [None, Some("secret"), Some("Bearer secre"), Some("Bearer secrets"), Some("Bearer"), Some("Basic secret")]
    {
        let answer = ask(key);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{key:?}");
        assert_eq!(answer.json()["error"]["type"], "authentication_error");
    }
    assert_eq!(ask(Some("Bearer secret")).status, 200);
    assert_eq!(ask(Some("bearer secret")).status, 200);
    for path in ["/", "/health", "/metrics"] {
        assert_eq!(get(server.address, path).status, 200);
    }
    for path in [CHAT, TEXT, "/tokenize", "/detokenize"] {
        assert_eq!(post(server.address, path, &json!({})).status, 401);
    }
}

#[test]
fn other_origins_only_where_allowed() {
    let preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "POST")];
    let plain = server(ServerOptions::default());
    assert_eq!(open(plain.address, "OPTIONS", CHAT, &preflight, b"").whole().status, 405);
    assert!(get(plain.address, "/v1/models").header("access-control-allow-origin").is_none());
    let options = ServerOptions {
        cors: Some("https://a.example".to_string()),
        api_key: Some("secret".to_string()),
        ..ServerOptions::default()
    };
    let server = server(options);
    let answer = open(server.address, "OPTIONS", CHAT, &preflight, b"").whole();
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("https://a.example")));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert!(get(server.address, "/v1/models").header("access-control-allow-origin").is_some());
}

#[test]
fn a_full_queue_says_so_and_those_who_leave_make_room() {
    let engine = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let server = mock(Mock::new(2560, 1 << 20), engine, ServerOptions { max_queue: 1, ..ServerOptions::default() });
    let mut running = begin(server.address, TEXT, &endless());
    first_event(&mut running);
    let waiting = begin(server.address, TEXT, &endless());
    wait(&server, "requests_waiting", 1.0);
    let refused = post(server.address, TEXT, &endless());
    assert_eq!((refused.error().0, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "queue_full");
    assert_eq!(metric(server.address, "refused_total"), 1.0);
    drop(waiting);
    wait(&server, "requests_waiting", 0.0);
    drop(running);
    wait(&server, "requests_running", 0.0);
    assert_eq!(metric(server.address, "cancelled_total"), 2.0);
    let generated = metric(server.address, "engine_generated_tokens_total");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(metric(server.address, "engine_generated_tokens_total"), generated, "the engine goes on");
    // A client that waits for a whole answer and leaves.
    let body = json!({"prompt": [5], "max_tokens": 1000000, "logit_bias": {"1": -100}}).to_string();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    wait(&server, "requests_running", 1.0);
    drop(stream);
    wait(&server, "requests_running", 0.0);
    assert_eq!(post(server.address, TEXT, &json!({"prompt": [5], "max_tokens": 2})).status, 200);
}

#[test]
fn a_failing_engine_is_a_server_error_also_within_a_stream() {
    let failing = |calls| {
        let mut model = Mock::new(2560, 4096);
        model.fail_in = Some(Arc::new(AtomicUsize::new(calls)));
        mock(model, EngineOptions::default(), ServerOptions::default())
    };
    let server = failing(8);
    let body = json!({"prompt": [5, 6, 7], "max_tokens": 100, "logit_bias": {"1": -100}});
    let answer = post(server.address, TEXT, &body);
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (500, &json!("server_error")));
    assert_eq!(post(server.address, TEXT, &body).status, 200, "the next request is answered");
    let server = failing(8);
    let mut body = endless();
    body["max_tokens"] = 4000.into();
    let mut stream = begin(server.address, TEXT, &body);
    assert_eq!(stream.status, 200);
    let mut events = Vec::new();
    while let Some(event) = stream.event() {
        events.push(event);
    }
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let error: Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
    assert_eq!(error["error"]["type"], "server_error");
    assert!(events.len() > 2);
    // Refused by the engine before the first token: a plain error, also for a stream.
    let server = mock(
        Mock::new(2560, 4096),
        EngineOptions { max_cached_tokens: Some(64), ..EngineOptions::default() },
        ServerOptions::default(),
    );
    let (status, message, _, code) = post(server.address, TEXT, &body).error();
    assert_eq!((status, code), (400, json!("context_length_exceeded")));
    assert!(message.starts_with("This model's maximum context length is 64 tokens. However, "), "{message}");
}

#[test]
fn the_end_lets_short_answers_finish_and_gives_up_long_ones() {
    let end = |max_tokens: usize, grace: Duration| -> (Vec<String>, Duration) {
        let options = ServerOptions { grace, ..ServerOptions::default() };
        let mut server = mock(Mock::new(2560, 1 << 20), EngineOptions::default(), options);
        let mut body = endless();
        body["max_tokens"] = max_tokens.into();
        let mut stream = begin(server.address, TEXT, &body);
        first_event(&mut stream);
        server.signal();
        let began = Instant::now();
        let reader = std::thread::spawn(move || {
            let mut events = Vec::new();
            while let Some(event) = stream.event() {
                events.push(event);
            }
            events
        });
        server.wait();
        assert!(TcpStream::connect(server.address).is_err(), "the server still listens");
        (reader.join().unwrap(), began.elapsed())
    };
    let (events, _) = end(300, Duration::from_secs(60));
    assert!(events[events.len() - 2].contains("\"finish_reason\":\"length\""));
    let (events, time) = end(1_000_000, Duration::from_millis(200));
    assert!(events[events.len() - 2].contains("shutting_down"), "{:?}", events.last());
    assert!(time < Duration::from_secs(30));
}

#[test]
fn silence_is_filled_with_comments() {
    let engine = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let options = ServerOptions { keep_alive: Duration::from_millis(50), ..ServerOptions::default() };
    let server = mock(Mock::new(2560, 1 << 20), engine, options);
    let mut running = begin(server.address, TEXT, &endless());
    first_event(&mut running);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let body = endless().to_string();
    let head = format!(
        "POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut text = String::new();
    let mut bytes = [0; 512];
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while !text.contains("keep-alive\n\n") {
        let count = stream.read(&mut bytes).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        assert!(count > 0);
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}
