//! The client of OpenAI-compatible servers, against a server that does whatever servers do.
#![cfg(feature = "client")]

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent_client_support::{
    Reply, STREAM_HEAD, Server, delta, end, quick, read_request, stream, whole, write_chunk,
};
use deepseek_v32::agent::{Agent, Stop};
use deepseek_v32::chat::{Accumulator, Delta, Json, Message, Tool, ToolChoice};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatUsage, Finish, OpenAiChat, OpenAiOptions, ThinkingField,
};
use deepseek_v32::generation::{Cancel, SamplingParams};
use serde_json::json;

fn ask(server: &Server, options: OpenAiOptions) -> Result<ChatResponse, ChatModelError> {
    server.chat(options).chat(ChatRequest::new([Message::user("Hello?")]), &mut |_| ())
}

fn remote(error: ChatModelError) -> (Option<u16>, String) {
    match error {
        ChatModelError::Remote { status, message, url } => {
            assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/v1/chat/completions"), "{url}");
            (status, message)
        }
        other => panic!("{other:?}"),
    }
}

/// What is wrong with a server's answer, which it is asked for once.
fn not_an_answer(server: &Server) -> String {
    let problem = match ask(server, quick()).unwrap_err() {
        ChatModelError::NotAnAnswer { url, problem } => {
            assert!(url.ends_with("/v1/chat/completions"), "{url}");
            problem
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(server.received().len(), 1);
    problem
}

fn hello() -> String {
    delta(r#"{"role":"assistant","content":"Hello."}"#) + &end("stop")
}

#[test]
fn an_answer_in_any_pieces() {
    let text = [
        ": keep-alive\n\nevent: message\nid: 3\nretry: 10\r\n".to_string(),
        delta(r#"{"role":"assistant","content":null,"reasoning_content":"Größe"}"#),
        delta(r#"{"reasoning":" matters. 思"}"#).replace('\n', "\r\n"),
        // One event, its data on two lines.
        "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"Hi\\n\"}}]}\r\r".to_string(),
        // Another answer of the same request.
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"no\"},\"finish_reason\":\"length\"}]}\n\n"
            .to_string(),
        delta(r#"{"content":"there 🙂","reasoning_content":null,"tool_calls":null}"#),
        end("stop"),
        "data: not read any more\n\n".to_string(),
    ]
    .concat();
    for size in [1, 2, 3, 7, 64, usize::MAX] {
        let server = Server::new(vec![stream(text.clone(), size)]);
        let mut deltas = Vec::new();
        let response = server
            .chat(quick())
            .chat(ChatRequest::new([Message::user("Hello?")]), &mut |event| match event {
                ChatEvent::Delta(delta) => deltas.push(delta),
                ChatEvent::Token { token, .. } => panic!("{token:?}"),
            })
            .unwrap();
        let mut expected = Message::assistant("Hi\nthere 🙂");
        expected.reasoning_content = Some("Größe matters. 思".to_string());
        assert_eq!(response.message, expected, "pieces of {size}");
        assert_eq!((response.finish, response.text.as_str()), (Finish::Stop, ""));
        let usage = ChatUsage { prompt_tokens: 11, cached_tokens: 4, completion_tokens: 7, reasoning_tokens: 3 };
        assert_eq!(response.usage, usage);
        let mut message = Accumulator::new();
        message.extend(deltas);
        assert_eq!(message.finish(), expected);
    }
}

#[test]
fn calls_in_any_pieces() {
    let parts = [
        r#"{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"look","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"at\": \"the "}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"call_b","function":{"arguments":"{\"x\""}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"sky"}},{"index":1,"function":{"name":"go","arguments":": 1}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":"look","arguments":"\"}"}},{"index":2,"function":{"name":"now"}}]}"#,
    ];
    let text = parts.iter().map(|part| delta(part)).collect::<String>() + &end("tool_calls");
    for size in [1, 5, usize::MAX] {
        let server = Server::new(vec![stream(text.clone(), size)]);
        let mut message = Accumulator::new();
        let request = ChatRequest::new([Message::user("Hello?")]);
        let response = server.chat(quick()).chat(request, &mut |event| {
            if let ChatEvent::Delta(delta) = event {
                message.push(delta);
            }
        });
        let response = response.unwrap();
        assert_eq!(response.finish, Finish::ToolCalls);
        let calls: Vec<_> =
            response.message.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("look", r#"{"at": "the sky"}"#), ("go", r#"{"x": 1}"#), ("now", "{}")]);
        let ids: Vec<_> = response.message.tool_calls.iter().map(|call| call.id.clone().unwrap()).collect();
        assert_eq!(ids[..2], ["call_a", "call_b"]);
        assert!(ids[2].starts_with("call_") && ids[2].len() == 29);
        let mut streamed = message.finish();
        streamed.tool_calls.iter_mut().zip(ids).for_each(|(call, id)| call.id = Some(id));
        assert_eq!(streamed, response.message);
    }
}

#[test]
fn calls_without_numbers_and_calls_cut_off() {
    let parts = [
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"id":"b","function":{"name":"g","arguments":"{\"x\":"}}]}"#,
        r#"{"tool_calls":[{"function":{"arguments":"1}"}}]}"#,
    ];
    let text = parts.iter().map(|part| delta(part)).collect::<String>();
    let server = Server::new(vec![stream(text.clone() + &end("stop"), usize::MAX)]);
    let response = ask(&server, quick()).unwrap();
    let calls: Vec<_> = response.message.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
    assert_eq!((calls, response.finish), (vec!["{}", r#"{"x":1}"#], Finish::ToolCalls));
    // Cut off, the last call counts as not made.
    let text = parts[..2].iter().map(|part| delta(part)).collect::<String>() + &end("length");
    let response = ask(&Server::new(vec![stream(text, usize::MAX)]), quick()).unwrap();
    assert_eq!((response.message.tool_calls.len(), response.finish), (1, Finish::Length));
}

/// An answer that calls `go`.
fn goes() -> String {
    let call = r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"go","arguments":"{}"}}]}"#;
    delta(call) + &end("tool_calls")
}

#[test]
fn calls_that_are_required() {
    let tools = vec![crate::agent_support::tool("go", "where"), crate::agent_support::tool("look", "at")];
    let named = |name: &str| ToolChoice::Named(name.to_string());
    let asked = |choice: ToolChoice, tools: &[Tool], answer: Vec<String>| {
        let server = Server::new(answer.into_iter().map(|text| stream(text, usize::MAX)).collect());
        let tools = tools.to_vec();
        let request = ChatRequest { tool_choice: choice, tools, ..ChatRequest::new([Message::user("Hello?")]) };
        (server.chat(quick()).chat(request, &mut |_| ()), server.received().len())
    };
    for (choice, tools, answer, problem) in [
        // Nothing is sent that can't be met.
        (ToolChoice::Required, &[][..], None, "a tool call is required, but there are no tools"),
        (named("stay"), &tools, None, "there is no tool \"stay\"; the tools are go, look"),
        (ToolChoice::Required, &tools, Some(hello()), "the answer calls none, expected at least one tool"),
        (named("look"), &tools, Some(goes()), "the answer calls go, expected look"),
    ] {
        let sent = usize::from(answer.is_some());
        let (answer, received) = asked(choice, tools, answer.into_iter().collect());
        let error = answer.unwrap_err();
        assert!(matches!(error, ChatModelError::Tool(_)), "{error:?}");
        assert_eq!((error.to_string().as_str(), received), (problem, sent));
    }
    for (choice, answer) in [
        (ToolChoice::Required, goes()),
        (named("go"), goes()),
        (ToolChoice::Auto, hello()),
        // Cut off before it came to the call.
        (ToolChoice::Required, delta(r#"{"content":"I"}"#) + &end("length")),
    ] {
        asked(choice, &tools, vec![answer]).0.unwrap();
    }
}

#[test]
fn what_is_sent() {
    let server = Server::new(vec![stream(goes(), usize::MAX), stream(hello(), usize::MAX)]);
    let mut assistant =
        crate::agent_support::calls("I look.", &[("c1", "look", r#"{"at": "sky"}"#), ("c2", "look", "{oops")]);
    assistant.written_ids = Some(vec![1, 2, 3]);
    assistant.tool_calls[1].id = None;
    let mut unnamed = Message::tool("", "none");
    unnamed.tool_call_id = None;
    let messages = [
        Message::system("Be brief.").with_tools([crate::agent_support::tool("look", "at")]),
        Message::user("Sky?"),
        assistant,
        Message::tool("c1", "blue"),
        unnamed,
    ];
    let mut request = ChatRequest::new(messages);
    request.tools = vec![crate::agent_support::tool("go", "where")];
    request.tool_choice = ToolChoice::Named("go".to_string());
    request.parallel_tool_calls = false;
    request.max_tokens = Some(50);
    request.stop = vec!["END".to_string()];
    request.params = SamplingParams { top_p: 0.9, top_k: Some(5), ..SamplingParams::sampled(0.6, u64::MAX) };
    request.params.logit_bias.insert(7, f32::NEG_INFINITY);
    let extra = vec![("user".to_string(), Json::String("me".to_string()))];
    let options = OpenAiOptions { api_key: Some("secret".to_string()), extra, ..quick() };
    let chat = server.chat(options);
    assert!(!format!("{chat:?}").contains("secret"));
    chat.chat(request.clone(), &mut |_| ()).unwrap();
    let tool = |name: &str, parameter: &str| {
        json!({"type": "function", "function": {"name": name, "description": "A tool.", "parameters":
            {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}}})
    };
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}});
    let received = server.received();
    let head = received[0].head.to_lowercase();
    assert!(head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\nauthorization: bearer secret\r\n")
            && head.contains("\r\ncontent-type: application/json\r\n")
    );
    assert_eq!(
        received[0].body,
        json!({
            "model": "test-model",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Sky?"},
                {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": [
                    call("c1", "{\"at\": \"sky\"}"), call("call_2_1", "{\"malformed_arguments\":\"{oops\"}")]},
                {"role": "tool", "content": "blue", "tool_call_id": "c1"},
                {"role": "tool", "content": "none", "tool_call_id": "call_2_1"},
            ],
            "tools": [tool("look", "at"), tool("go", "where")],
            "tool_choice": {"type": "function", "function": {"name": "go"}},
            "parallel_tool_calls": false,
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 50,
            "stop": ["END"],
            "temperature": 0.6,
            "top_p": 0.9,
            "top_k": 5,
            "seed": i64::MAX,
            "logit_bias": {"7": -100},
            "chat_template_kwargs": {"thinking": true},
            "thinking": {"type": "enabled"},
            "user": "me",
        })
    );
    // To a server that is strict.
    let options = OpenAiOptions { thinking_field: ThinkingField::Omit, send_reasoning: false, ..quick() };
    request = ChatRequest { thinking: false, tool_choice: ToolChoice::None, ..ChatRequest::new(request.messages) };
    server.chat(options).chat(request, &mut |_| ()).unwrap();
    let body = &server.received()[1].body;
    for absent in ["tools", "tool_choice", "thinking", "chat_template_kwargs", "max_tokens", "top_p"] {
        assert!(body.get(absent).is_none(), "{absent}");
    }
    assert!(body["messages"][2].get("reasoning_content").is_none());
}

#[test]
fn failures_that_pass() {
    let overloaded =
        || whole("429 Too Many Requests", "Retry-After: 0.05\r\n", r#"{"error": {"message": "slow down"}}"#);
    let reset: Reply = Box::new(|_| ());
    let ended: Reply = Box::new(|stream| stream.write_all(STREAM_HEAD.as_bytes()).unwrap());
    let server = Server::new(vec![overloaded(), reset, ended, stream(hello(), usize::MAX)]);
    let start = Instant::now();
    let response = ask(&server, OpenAiOptions { retries: 3, ..quick() }).unwrap();
    assert_eq!(response.message.content, "Hello.");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(server.received().len(), 4);
}

#[test]
fn failures_that_stay() {
    let broken = || whole("500 Internal Server Error", "", r#"{"error": {"message": "out of\nmemory", "code": 1}}"#);
    let server = Server::new(vec![broken(), broken(), broken()]);
    assert_eq!(remote(ask(&server, quick()).unwrap_err()), (Some(500), "status 500: out of memory".to_string()));
    assert_eq!(server.received().len(), 3);
    // What is wrong with the request stays wrong, and a server that wants to be left alone is.
    for (status, headers, body, expected) in [
        ("400 Bad Request", "", r#"{"message": "bad", "object": "error"}"#, "status 400: bad"),
        ("401 Unauthorized", "", r#"{"detail": "no key"}"#, "status 401: no key"),
        ("404 Not Found", "", "<html>\n no such page", "status 404: <html> no such page"),
        ("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", "", "status 307"),
        ("503 Service Unavailable", "Retry-After: 100000\r\n", r#"{"error": "busy"}"#, "status 503: busy"),
    ] {
        let server = Server::new(vec![whole(status, headers, body)]);
        let (code, message) = remote(ask(&server, quick()).unwrap_err());
        assert_eq!((code.unwrap().to_string().as_str(), message.as_str()), (&status[..3], expected));
    }
    // Nobody there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = OpenAiChat::new(&format!("http://{free}/v1"), "m", quick()).unwrap();
    let error = nobody.chat(ChatRequest::new([Message::user("Hello?")]), &mut |_| ()).unwrap_err();
    assert_eq!(remote(error).0, None);
    for url in ["", "localhost:8000", "ftp://there", "http://"] {
        assert!(
            matches!(OpenAiChat::new(url, "m", quick()), Err(ChatModelError::Option { name: "base_url", .. })),
            "{url}"
        );
    }
}

#[test]
fn a_context_that_is_full_is_known() {
    let body =
        r#"{"error": {"message": "This model's maximum context length is 128 tokens.", "type": "BadRequestError"}}"#;
    let server = Server::new(vec![whole("400 Bad Request", "", body)]);
    assert!(ask(&server, quick()).unwrap_err().is_context_full());
}

#[test]
fn a_connection_that_breaks_in_an_answer() {
    for text in [delta(r#"{"content":"Hel"}"#), delta(r#"{"content":"Hel"}"#) + "data: {\"choi"] {
        let reply: Reply = Box::new(move |stream| {
            stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            write_chunk(stream, text.as_bytes()).unwrap();
        });
        // The second reply is never asked for: the answer's beginning was told.
        let server = Server::new(vec![reply, stream(hello(), usize::MAX)]);
        let mut told = Vec::new();
        let error = server
            .chat(quick())
            .chat(ChatRequest::new([Message::user("Hello?")]), &mut |event| told.push(event))
            .unwrap_err();
        remote(error);
        assert_eq!(told, [ChatEvent::Delta(Delta::Content("Hel".to_string()))]);
        assert_eq!(server.received().len(), 1);
    }
}

#[test]
fn answers_that_are_none() {
    for (text, expected) in [
        ("data: {\"error\": {\"message\": \"CUDA out of memory\"}}\n\n", "CUDA out of memory"),
        (
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n",
            "ended with \"content_filter\"",
        ),
    ] {
        let server = Server::new(vec![stream(text, usize::MAX)]);
        let (status, message) = remote(ask(&server, quick()).unwrap_err());
        assert!(status == Some(200) && message.contains(expected), "{message}");
    }
    let bytes: Reply = Box::new(|stream| {
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        write_chunk(stream, b"data: \xff\xfe\n\n").unwrap();
    });
    assert!(not_an_answer(&Server::new(vec![bytes])).starts_with("no UTF-8"));
}

#[test]
fn a_server_that_falls_silent() {
    let options = || OpenAiOptions { idle_timeout: Duration::from_millis(200), retries: 0, ..quick() };
    let mute = |says: &'static str| -> Reply {
        Box::new(move |stream| {
            stream.write_all(says.as_bytes()).unwrap();
            thread::sleep(Duration::from_secs(20));
        })
    };
    for says in ["", STREAM_HEAD] {
        let start = Instant::now();
        let (_, message) = remote(ask(&Server::new(vec![mute(says)]), options()).unwrap_err());
        assert!(message.contains("timeout"), "{message}");
        assert!(start.elapsed() >= Duration::from_millis(150) && start.elapsed() < Duration::from_secs(10));
    }
    // One that never stops talking.
    let drip: Reply = Box::new(|stream| {
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        while write_chunk(stream, b": still here\n\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let options = OpenAiOptions { whole_timeout: Duration::from_millis(300), ..options() };
    let (_, message) = remote(ask(&Server::new(vec![drip]), options).unwrap_err());
    assert!(message.contains("timeout"), "{message}");
}

#[test]
fn lines_that_are_huge() {
    let long = "long ".repeat(800_000);
    let server = Server::new(vec![stream(delta(&format!("{{\"content\":\"{long}\"}}")) + &end("stop"), 100_000)]);
    assert_eq!(ask(&server, quick()).unwrap().message.content, long);
    let endless: Reply = Box::new(|stream| {
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        while write_chunk(stream, &piece).is_ok() {}
    });
    let message = not_an_answer(&Server::new(vec![endless]));
    assert!(message.contains("a line of more than"), "{message}");
}

#[test]
fn cancelled() {
    let (left, gone) = std::sync::mpsc::channel();
    let reply: Reply = Box::new(move |stream| {
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        while write_chunk(stream, delta(r#"{"content":"on "}"#).as_bytes()).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        left.send(()).unwrap();
    });
    let server = Server::new(vec![reply]);
    let cancel = Cancel::new();
    let mut request = ChatRequest::new([Message::user("Hello?")]);
    request.cancel = Some(cancel.clone());
    let response = server.chat(quick()).chat(request, &mut |_| cancel.cancel()).unwrap();
    assert_eq!(response.finish, Finish::Cancelled);
    assert!(response.message.content.starts_with("on "));
    gone.recv_timeout(Duration::from_secs(10)).expect("the server is left");

    // While it waits for its first word, and before another attempt.
    let mute: Reply = Box::new(|_| thread::sleep(Duration::from_secs(20)));
    let busy = whole("503 Service Unavailable", "Retry-After: 50\r\n", "");
    for reply in [mute, busy] {
        let cancel = Cancel::new();
        let mut request = ChatRequest::new([Message::user("Hello?")]);
        request.cancel = Some(cancel.clone());
        let server = Server::new(vec![reply]);
        let start = Instant::now();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        let response = server.chat(quick()).chat(request, &mut |_| ()).unwrap();
        assert_eq!((response.finish, response.message), (Finish::Cancelled, Message::assistant("")));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn so_many_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (running, most) = (running.clone(), most.clone());
            thread::spawn(move || {
                let mut connection = connection.unwrap();
                read_request(&mut connection);
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(30));
                running.fetch_sub(1, Ordering::SeqCst);
                stream(hello(), usize::MAX)(&mut connection);
            });
        }
    });
    let chat = OpenAiChat::new(&url, "m", OpenAiOptions { max_concurrent: 3, ..quick() }).unwrap();
    thread::scope(|scope| {
        for _ in 0..12 {
            let chat = chat.clone();
            scope.spawn(move || {
                let response = chat.chat(ChatRequest::new([Message::user("Hello?")]), &mut |_| ()).unwrap();
                assert_eq!(response.message.content, "Hello.");
            });
        }
    });
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[test]
fn without_a_stream() {
    let body = json!({
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null,
            "reasoning_content": "I look.", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"sky\"}"}},
                {"id": "b", "type": "function", "function": {"name": "look", "arguments": {"at": "sea"}}}]}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "prompt_cache_hit_tokens": 2},
    });
    let server = Server::new(vec![whole("200 OK", "Content-Type: application/json\r\n", body.to_string())]);
    let response = ask(&server, OpenAiOptions { stream: false, ..quick() }).unwrap();
    let expected = [("a", "look", r#"{"at": "sky"}"#), ("b", "look", r#"{"at":"sea"}"#)];
    assert_eq!(response.message, crate::agent_support::calls("I look.", &expected));
    assert_eq!((response.usage.total(), response.usage.cached_tokens), (11, 2));
    assert!(server.received()[0].body.get("stream").is_none());
}

#[test]
fn an_agent_on_a_server() {
    let call = delta(
        r#"{"reasoning_content":"I look.","tool_calls":[{"index":0,"id":"c1","function":{"name":"look","arguments":"{\"at\":\"sky\"}"}}]}"#,
    );
    let server = Server::new(vec![stream(call + &end("tool_calls"), 9), stream(hello(), 9)]);
    let agent = Agent::new(Arc::new(server.chat(quick())), crate::agent_support::looker());
    let outcome = agent.run([Message::user("Hello?")], &mut |_| ()).unwrap();
    assert_eq!((outcome.stop, outcome.steps, outcome.usage.total()), (Stop::Answer, 2, 36));
    let messages = &server.received()[1].body["messages"];
    assert_eq!(messages[1]["reasoning_content"], "I look.");
    assert_eq!(messages[2], json!({"role": "tool", "tool_call_id": "c1", "content": "sky is there, I see"}));
}
