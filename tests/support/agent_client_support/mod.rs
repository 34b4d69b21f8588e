//! A server that says what it is told to say.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use deepseek_v32::chat_model::{OpenAiChat, OpenAiOptions};
use serde_json::Value;

pub type Reply = Box<dyn FnOnce(&mut TcpStream) + Send>;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Value,
}

/// A server that answers one connection after the other by its replies, then no more.
pub struct Server {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let heard = received.clone();
        thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                heard.lock().unwrap().push(read_request(&mut stream));
                reply(&mut stream);
            }
        });
        Self { url, received }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn chat(&self, options: OpenAiOptions) -> OpenAiChat {
        OpenAiChat::new(&self.url, "test-model", options).unwrap()
    }
}

/// Options that lose no time.
pub fn quick() -> OpenAiOptions {
    OpenAiOptions { backoff: Duration::from_millis(1), retries: 2, ..OpenAiOptions::default() }
}

pub fn read_request(stream: &mut TcpStream) -> Received {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1);
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_string));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Received { head, body: serde_json::from_slice(&body).unwrap() }
}

pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

pub fn write_chunk(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n", bytes.len())?;
    stream.write_all(bytes)?;
    stream.write_all(b"\r\n")?;
    stream.flush()
}

/// A stream of events, in pieces of a size.
pub fn stream(text: impl Into<String>, size: usize) -> Reply {
    let text = text.into();
    Box::new(move |stream| {
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        for piece in text.as_bytes().chunks(size) {
            if write_chunk(stream, piece).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    })
}

/// A whole answer.
pub fn whole(status: &str, headers: &str, body: impl Into<String>) -> Reply {
    let body = body.into();
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    Box::new(move |stream| stream.write_all(text.as_bytes()).unwrap())
}

/// An event with a delta.
pub fn delta(json: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{json},\"finish_reason\":null}}]}}\n\n")
}

/// The end of a stream.
pub fn end(reason: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":11,\"completion_tokens\":7,\
         \"prompt_tokens_details\":{{\"cached_tokens\":4}},\"completion_tokens_details\":{{\"reasoning_tokens\":3}}}}}}\n\n\
         data: [DONE]\n\n"
    )
}
