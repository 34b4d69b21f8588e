//! What connections are served and when they end: half requests, half-closed clients, other protocols, other hosts.
#![cfg(feature = "server")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::generation_support::Mock;
use crate::server_support::http::{begin, metric};
use crate::server_support::{Running, mock};
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::server::ServerOptions;
use serde_json::{Value, json};

const TEXT: &str = "/v1/completions";
/// Longer than any of these tests may take, shorter than the grace of their servers.
const LONG: Duration = Duration::from_secs(20);

fn server(options: ServerOptions) -> Running {
    mock(Mock::new(2560, 1 << 20), EngineOptions::default(), options)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// A request in bytes.
fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Everything that the server says until it closes.
fn said(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&said)),
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn answer(address: SocketAddr, bytes: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes.as_bytes()).unwrap();
    said(&mut stream)
}

/// The status and the body of one answer in bytes, whose chunks are joined.
fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return (status, body.to_string());
    }
    let (mut rest, mut joined) = (body, String::new());
    while let Some((length, more)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        joined.push_str(&more[..length]);
        rest = &more[length..];
        rest = rest.strip_prefix("\r\n").unwrap();
    }
    (status, joined)
}

#[test]
fn the_end_does_not_wait_for_half_requests() {
    let grace = Duration::from_secs(600);
    let mut server = server(ServerOptions { grace, ..ServerOptions::default() });
    let half_body = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 100\r\n\r\n{";
    let mut half: Vec<TcpStream> = ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: loc", half_body]
        .iter()
        .map(|bytes| {
            let mut stream = connect(server.address);
            stream.write_all(bytes.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Kept after an answer, with nothing and with half a request behind it.
    for rest in ["", "GET /hea"] {
        let mut stream = connect(server.address);
        stream.write_all(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n{rest}").as_bytes()).unwrap();
        let mut bytes = [0; 12];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"HTTP/1.1 200");
        half.push(stream);
    }
    // All have been read.
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    server.signal();
    server.wait();
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    for (at, stream) in half.iter_mut().enumerate() {
        let said = said(stream);
        if at == 3 {
            assert!(said.starts_with("HTTP/1.1 503") && said.contains("shutting_down"), "{said}");
        } else {
            assert!(!said.contains("503"), "{said}");
        }
    }
}

#[test]
fn an_answer_that_runs_is_not_cut_by_the_end() {
    let mut server = server(ServerOptions { grace: Duration::from_secs(600), ..ServerOptions::default() });
    let body = json!({"prompt": [5], "max_tokens": 20_000, "ignore_eos": true});
    let mut stream = connect(server.address);
    stream.write_all(request(TEXT, &body).as_bytes()).unwrap();
    let began = Instant::now();
    while metric(server.address, "requests_running") < 1.0 {
        assert!(began.elapsed() < LONG, "it does not run");
    }
    server.signal();
    let (status, text) = parts(&said(&mut stream));
    assert_eq!(status, 200, "{text}");
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reply["usage"]["completion_tokens"], 20_000);
    server.wait();
}

#[test]
fn a_client_that_ends_its_side_gets_its_answer() {
    let server = server(ServerOptions::default());
    let ask = |path: &str, body: &Value| {
        let mut stream = connect(server.address);
        stream.write_all(request(path, body).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        parts(&said(&mut stream))
    };
    // An answer that is there at once, and one that takes longer than the server waits before it asks for the client.
    for tokens in [1, 3000] {
        let body = json!({"prompt": [5], "max_tokens": tokens, "ignore_eos": true});
        let (status, text) = ask(TEXT, &body);
        assert_eq!(status, 200, "{text}");
        let reply: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(reply["usage"]["completion_tokens"], tokens);
        let mut body = body;
        body["stream"] = true.into();
        let (status, text) = ask(TEXT, &body);
        assert_eq!(status, 200);
        let events = text.matches("data: ").count();
        assert!(events > 1 && text.ends_with("data: [DONE]\n\n"), "{events} events");
    }
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3});
    let (status, text) = ask("/v1/chat/completions", &chat);
    assert_eq!((status, text.contains("\"chat.completion\"")), (200, true), "{text}");
    let (status, text) = ask(TEXT, &json!({"prompt": []}));
    assert_eq!((status, text.contains("is empty")), (400, true), "{text}");
    // Half a body is no request.
    let mut stream = connect(server.address);
    let whole = request(TEXT, &chat);
    stream.write_all(&whole.as_bytes()[..whole.len() - 5]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let said = said(&mut stream);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
}

#[test]
fn a_client_that_leaves_ends_its_answer() {
    let engine = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let server = mock(Mock::new(2560, 1 << 20), engine, ServerOptions::default());
    let wait = |name: &str, value: f64| {
        let began = Instant::now();
        while metric(server.address, name) != value {
            assert!(began.elapsed() < LONG, "{name} is not {value}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let body = |stream: bool| json!({"prompt": [5], "max_tokens": 1_000_000, "ignore_eos": true, "stream": stream});
    let mut leaving = Vec::new();
    for stream in [false, true] {
        let mut running = connect(server.address);
        running.write_all(request(TEXT, &body(stream)).as_bytes()).unwrap();
        wait("requests_running", 1.0);
        // One that waits for the first, and from which nothing comes.
        let waiting = if stream { None } else { Some(begin(server.address, TEXT, &body(true))) };
        leaving.push((running, waiting));
        let began = Instant::now();
        leaving.clear();
        wait("requests_waiting", 0.0);
        wait("requests_running", 0.0);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[test]
fn only_http_1_is_spoken() {
    let server = server(ServerOptions::default());
    // The preface of HTTP/2 and an empty settings frame.
    let mut stream = connect(server.address);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let answer = said(&mut stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    // An offer to go on in HTTP/2 is not taken.
    let offer = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
    let answer = self::answer(server.address, offer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"status\":\"ok\"}"), "{answer}");
    let answer = self::answer(server.address, "GET /health HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn a_request_names_a_host_of_this_machine() {
    let options = ServerOptions { allowed_hosts: vec!["box.example".to_string()], ..ServerOptions::default() };
    let server = server(options);
    let port = server.address.port();
    let get = |lines: &str| {
        let (status, text) =
            parts(&answer(server.address, &format!("GET /v1/models HTTP/1.1\r\nConnection: close\r\n{lines}\r\n")));
        (status, text)
    };
    let (status, text) = get("");
    assert!(status == 400 && text.contains("Host"), "{text}");
    assert_eq!(get("Host: localhost\r\nHost: localhost\r\n").0, 400);
    for host in ["localhost", &format!("127.0.0.1:{port}"), "[::1]:80", "LocalHost:1", "box.example:8000"] {
        let (status, text) = get(&format!("Host: {host}\r\n"));
        assert_eq!(status, 200, "{host}: {text}");
    }
    for host in ["evil.example", "", "localhost.evil.example:80", &"a".repeat(5000)] {
        let (status, text) = get(&format!("Host: {host}\r\n"));
        assert!(status == 403 && text.len() < 1000, "{host}: {text}");
        assert!(text.contains("host_not_allowed") && text.contains("localhost"), "{text}");
    }
    // The target's host counts, too.
    let absolute = "GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(parts(&answer(server.address, absolute)).0, 403);
}
