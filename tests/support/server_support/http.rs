//! A client as plain as can be: one connection for each request.
#![allow(dead_code)] // every user has its own part

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The error's status, message, field and code.
    pub fn error(&self) -> (u16, String, Value, Value) {
        let error = &self.json()["error"];
        assert!(error["type"].is_string(), "{}", self.body);
        (self.status, error["message"].as_str().unwrap().to_string(), error["param"].clone(), error["code"].clone())
    }
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Open {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    chunked: bool,
}

/// Sends a request and reads the head of its answer.
pub fn open(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Open {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"\r\n").unwrap();
    // A server that refuses a body need not read it.
    let _ = stream.write_all(body);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_string(), value.trim().to_string())),
            None => break,
        }
    }
    let chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    Open { status, headers, reader, chunked }
}

impl Open {
    /// The next piece of a chunked body.
    fn chunk(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        if length == 0 {
            return None;
        }
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes.truncate(length);
        Some(String::from_utf8(bytes).unwrap())
    }

    /// The data of the next event; `None` at the end. Comments are passed over.
    pub fn event(&mut self) -> Option<String> {
        loop {
            let chunk = self.chunk()?;
            // The server writes an event at a time.
            if let Some(data) = chunk.strip_prefix("data: ") {
                return Some(data.trim_end().to_string());
            }
            assert!(chunk.starts_with(':'), "{chunk:?}");
        }
    }

    pub fn whole(mut self) -> Answer {
        let mut body = String::new();
        if self.chunked {
            while let Some(chunk) = self.chunk() {
                body.push_str(&chunk);
            }
        } else {
            self.reader.read_to_string(&mut body).unwrap();
        }
        Answer { status: self.status, headers: self.headers, body }
    }
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    open(address, "GET", path, &[], b"").whole()
}

pub fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    open(address, "POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes()).whole()
}

/// The head of a stream.
pub fn begin(address: SocketAddr, path: &str, body: &Value) -> Open {
    open(address, "POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}

/// All events of a stream but the last, which must be `[DONE]`.
pub fn events(address: SocketAddr, path: &str, body: &Value) -> Vec<Value> {
    let mut stream = begin(address, path, body);
    if stream.status != 200 {
        panic!("{}", stream.whole().body);
    }
    let mut events = Vec::new();
    while let Some(data) = stream.event() {
        events.push(data);
    }
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// The value of a metric without labels.
pub fn metric(address: SocketAddr, name: &str) -> f64 {
    let text = get(address, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("deepseek_v32_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Puts the pieces of a chat's answers together: `message`, `finish_reason` and `logprobs` by index.
pub fn gather(events: &[Value]) -> Vec<Value> {
    let mut choices: Vec<Value> = Vec::new();
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        while choices.len() <= index {
            choices.push(serde_json::json!({"message": {"content": ""}, "finish_reason": null, "logprobs": null}));
        }
        let (whole, delta) = (&mut choices[index], &choice["delta"]);
        for key in ["content", "reasoning_content"] {
            if let Some(text) = delta[key].as_str() {
                let old = whole["message"][key].as_str().unwrap_or_default().to_string();
                whole["message"][key] = Value::from(old + text);
            }
        }
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = &mut whole["message"]["tool_calls"];
            if calls.is_null() {
                *calls = Value::from(Vec::<Value>::new());
            }
            let (calls, at) = (calls.as_array_mut().unwrap(), piece["index"].as_u64().unwrap() as usize);
            if piece["id"].is_string() {
                assert_eq!(at, calls.len());
                let mut call = piece.clone();
                call.as_object_mut().unwrap().remove("index");
                calls.push(call);
            } else {
                let old = calls[at]["function"]["arguments"].as_str().unwrap().to_string();
                calls[at]["function"]["arguments"] = (old + piece["function"]["arguments"].as_str().unwrap()).into();
            }
        }
        for key in ["content", "reasoning_content"] {
            for token in choice["logprobs"][key].as_array().into_iter().flatten() {
                if whole["logprobs"][key].is_null() {
                    whole["logprobs"][key] = Value::from(Vec::<Value>::new());
                }
                whole["logprobs"][key].as_array_mut().unwrap().push(token.clone());
            }
        }
        if choice["finish_reason"].is_string() {
            assert!(whole["finish_reason"].is_null(), "two ends");
            whole["finish_reason"] = choice["finish_reason"].clone();
        }
    }
    choices
}
