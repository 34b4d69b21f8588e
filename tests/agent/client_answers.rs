//! What a client of OpenAI-compatible servers takes for no answer, and how it shows what came from outside.
#![cfg(feature = "client")]

use std::io::Write;

use crate::agent_client_support::{Reply, STREAM_HEAD, Server, delta, end, quick, stream, whole};
use deepseek_v32::chat::Message;
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatModel, ChatRequest, ChatResponse, OpenAiChat};

fn ask(server: &Server) -> Result<ChatResponse, ChatModelError> {
    server.chat(quick()).chat(ChatRequest::new([Message::user("Hello?")]), &mut |_| ())
}

fn hello() -> String {
    delta(r#"{"role":"assistant","content":"Hello."}"#) + &end("stop")
}

/// What is wrong with a server's answer, which it is asked for once.
fn not_an_answer(server: &Server) -> String {
    let problem = match ask(server).unwrap_err() {
        ChatModelError::NotAnAnswer { url, problem } => {
            assert!(url.ends_with("/v1/chat/completions"), "{url}");
            problem
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(server.received().len(), 1);
    problem
}

#[test]
fn streams_that_are_no_answer() {
    let done = "data: [DONE]\n\n";
    let finished = |delta_json: &str| delta(delta_json) + &end("stop");
    for (text, expected) in [
        (done.to_string(), "it has no choice of index 0"),
        (delta(r#"{"content":"Hel"}"#) + done, "it ends without a `finish_reason`"),
        ("data: {\"choices\": [\n\n".to_string(), "it is no JSON: EOF while parsing"),
        ("data: null\n\n".to_string(), "it is null, expected an object"),
        ("data: {\"a\": 1}\n\n".to_string(), "it is {\"a\":1}, expected an object with `choices`"),
        ("data: {\"choices\": 3}\n\n".to_string(), "choices is 3, expected a list"),
        ("data: {\"choices\": [\"x\"]}\n\n".to_string(), "choices[0] is \"x\", expected an object"),
        ("data: {\"choices\": [{\"delta\": \"x\"}]}\n\n".to_string(), "choices[0].delta is \"x\", expected an object"),
        ("data: {\"choices\": [{\"finish_reason\": 1}]}\n\n".to_string(), "finish_reason is 1, expected a string"),
        (finished(r#"{"content":5}"#), "choices[0].delta.content is 5, expected a string"),
        (finished(r#"{"reasoning":{"a":1}}"#), "choices[0].delta.reasoning is {\"a\":1}, expected a string"),
        (finished(r#"{"tool_calls":"x"}"#), "choices[0].delta.tool_calls is \"x\", expected a list"),
        (finished(r#"{"tool_calls":[7]}"#), "choices[0].delta.tool_calls[0] is 7, expected an object"),
        (
            finished(r#"{"tool_calls":[{"function":{"name":7}}]}"#),
            "tool_calls[0].function.name is 7, expected a string",
        ),
        (finished(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#), "tool_calls[0] has no name"),
        (delta(r#"{"content":""}"#) + &end("tool_calls"), "but it has no calls"),
    ] {
        let problem = not_an_answer(&Server::new(vec![stream(text, usize::MAX), stream(hello(), usize::MAX)]));
        assert!(problem.contains(expected), "{problem}");
    }
    // What servers say beside an answer is none the worse.
    let beside = "data: {\"choices\":[{\"index\":0,\"delta\":null}]}\n\ndata: {\"usage\":{\"prompt_tokens\":1}}\n\n";
    let parts = delta(r#"{"content":[{"type":"text","text":"Hel"},{"type":"text","text":"lo."}]}"#);
    let server = Server::new(vec![stream(beside.to_string() + &parts + &end("stop"), usize::MAX)]);
    assert_eq!(ask(&server).unwrap().message.content, "Hello.");
}

/// A stream that ends within an event broke off, and an answer of which nothing was told is asked for again.
#[test]
fn streams_that_break_off() {
    let event = delta(r#"{"content":"Größe"}"#);
    let within = event.find('ö').unwrap() + 1;
    for kept in [0, 3, 20, within, event.len() - 4] {
        let piece = event.as_bytes()[..kept].to_vec();
        let cut: Reply = Box::new(move |connection| {
            connection.write_all(STREAM_HEAD.replace("Transfer-Encoding: chunked\r\n", "").as_bytes()).unwrap();
            connection.write_all(&piece).unwrap();
        });
        let server = Server::new(vec![cut, stream(hello(), usize::MAX)]);
        assert_eq!(ask(&server).unwrap().message.content, "Hello.", "{kept} bytes");
        assert_eq!(server.received().len(), 2);
    }
    // What had ended before has ended.
    let cut = hello().replace("data: [DONE]\n\n", "data: {\"choices\": [");
    assert_eq!(ask(&Server::new(vec![stream(cut, usize::MAX)])).unwrap().message.content, "Hello.");
}

#[test]
fn bodies_that_are_no_answer() {
    for (body, expected) in [
        ("", "it is no JSON"),
        ("<html>", "it is no JSON"),
        ("null", "it is null, expected an object"),
        (r#"{"a": 1}"#, "it is {\"a\":1}, expected an object with `choices`"),
        (r#"{"choices": []}"#, "it has no choice of index 0"),
        (r#"{"choices": [{"text": "Hi"}]}"#, "expected an object with `message`"),
        (r#"{"choices": [{"message": null}]}"#, "choices[0].message is null, expected an object"),
        (r#"{"choices": [{"message": {"content": "Hi"}}]}"#, "it ends without a `finish_reason`"),
        (r#"{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}"#, "message.content is 5"),
    ] {
        let good = whole("200 OK", "", r#"{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}"#);
        let problem = not_an_answer(&Server::new(vec![whole("200 OK", "", body), good]));
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn counts_that_mean_nothing() {
    let usage = |usage: &str| delta(r#"{"content":"Hi"}"#) + &end("stop").replace("11", usage);
    for count in ["18446744073709551615", "-1", "\"many\""] {
        let server = Server::new(vec![stream(usage(count), usize::MAX)]);
        assert_eq!(ask(&server).unwrap().usage.total(), 7, "{count}");
    }
}

#[test]
fn what_a_server_says_is_shown_harmless() {
    let body = r#"{"error": {"message": "bad \u001b[2J\u009b\u202e thing"}}"#;
    let server = Server::new(vec![whole("400 Bad Request", "", body)]);
    let shown = ask(&server).unwrap_err().to_string();
    assert!(shown.ends_with(r"status 400: bad \u{1b}[2J\u{9b}\u{202e} thing"), "{shown}");
    let long = format!(r#"{{"error": "{}"}}"#, "x".repeat(10_000));
    let server = Server::new(vec![whole("400 Bad Request", "", long)]);
    assert!(ask(&server).unwrap_err().to_string().len() < 600);
}

#[test]
fn addresses() {
    for (url, expected) in [
        ("http://there:99999/v1", "base_url is http://there:99999/v1: expected a port from 1 to 65535"),
        ("http://there:0/v1", "a port from 1 to 65535"),
        ("http://there:x/v1", "a port from 1 to 65535"),
        ("http://[::1]:70000", "a port from 1 to 65535"),
        ("http://me:secret@there:99999/v1", "base_url is http://there:99999/v1: expected a port from 1 to 65535"),
        ("http://me:se/cret@there/v1", "base_url is http://there/v1: expected"),
        ("ftp://me:secret@there/v1", "base_url is ftp://there/v1: expected"),
        ("http://there/v1?key=1", "without ? and #"),
    ] {
        let error = OpenAiChat::new(url, "m", quick()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("cret"), "{error}");
    }
    for url in ["http://there", "https://[::1]:8000/v1", "http://there:65535/v1/", "http://me:there@there:80"] {
        OpenAiChat::new(url, "m", quick()).unwrap();
    }
    // A user and a password are shown nowhere.
    let server = Server::new(vec![whole("401 Unauthorized", "", "no"), stream("data: null\n\n", 99)]);
    let url = server.url.replace("http://", "http://me:secret@");
    let chat = OpenAiChat::new(&url, "m", quick()).unwrap();
    assert!(!format!("{chat:?}").contains("secret"));
    for _ in 0..2 {
        let error = chat.chat(ChatRequest::new([Message::user("Hello?")]), &mut |_| ()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}
