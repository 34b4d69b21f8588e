//! Servers on a free port, with the embedded checkpoint or a mock behind them.
#![allow(dead_code)] // every test file uses its own part

pub mod http;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use deepseek_v32::chat::Version;
use deepseek_v32::chat_model::LocalChat;
use deepseek_v32::generation::{Engine, EngineOptions, Service, TokenModel, Tokenizer};
use deepseek_v32::model::Precision;
use deepseek_v32::server::{Server, ServerOptions};
use deepseek_v32::weights::LoadOptions;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}

/// A server that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
    end: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Running {
    pub fn start(chat: LocalChat, options: ServerOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let served = runtime.spawn(Server::new(chat, options).serve(listener, async {
            let _ = ended.await;
        }));
        Self { address, runtime: Some(runtime), end: Some(end), served: Some(served) }
    }

    /// Gives the signal to end.
    pub fn signal(&mut self) {
        drop(self.end.take());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(self.served.take().unwrap()).unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A server of the embedded checkpoint, which all tests of a file share.
pub fn tiny() -> SocketAddr {
    static TINY: LazyLock<Running> = LazyLock::new(|| Running::start(loaded(), ServerOptions::default()));
    TINY.address
}

/// The embedded checkpoint on its own engine.
pub fn loaded() -> LocalChat {
    let engine = EngineOptions { prefix_tokens: 4096, ..EngineOptions::default() };
    LocalChat::load(checkpoint(), &LoadOptions::default(), Precision::default(), engine, |_| ()).unwrap()
}

/// A server of another model with the embedded checkpoint's tokenizer.
pub fn mock<M: TokenModel + 'static>(model: M, engine: EngineOptions, options: ServerOptions) -> Running
where
    M::Sequence: 'static,
{
    let tokenizer = Tokenizer::load(checkpoint()).unwrap();
    let options = ServerOptions { max_sequences: engine.max_sequences, ..options };
    let engine = Engine::new(model, engine).unwrap().with_tokenizer(tokenizer).unwrap();
    Running::start(LocalChat::new("mock", Service::start(engine).unwrap(), Version::V32).unwrap(), options)
}

/// A tool with string parameters, as the embedded model knows them.
pub fn tool(name: &str, description: &str, parameters: &[&str]) -> Value {
    let properties: serde_json::Map<_, _> =
        parameters.iter().map(|name| (name.to_string(), json!({"type": "string"}))).collect();
    let parameters = json!({"type": "object", "properties": properties, "required": parameters});
    json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
}

/// The embedded model's recorded conversations.
pub fn golden() -> Vec<Value> {
    let text = std::fs::read_to_string(checkpoint().join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    golden["samples"].as_array().unwrap().clone()
}

/// The body of a chat that was recorded: calls and results get ids, as clients send them.
pub fn recorded(sample: &Value) -> Value {
    let mut messages = sample["messages"].as_array().unwrap().clone();
    let tools = messages[0].as_object_mut().unwrap().remove("tools").unwrap();
    let mut open = Vec::new();
    for (at, message) in messages.iter_mut().enumerate() {
        for (i, call) in message["tool_calls"].as_array_mut().into_iter().flatten().enumerate() {
            call["id"] = format!("call_{at}_{i}").into();
            open.push(call["id"].clone());
        }
        if message["role"] == "tool" {
            message["tool_call_id"] = open.remove(0);
        }
    }
    json!({"messages": messages, "tools": tools, "thinking": {"type": if sample["mode"] == "thinking" { "enabled" } else { "disabled" }}})
}

/// A call's name and arguments. The order of its keys is that of the tool's schema, which a `Value` has sorted.
fn function(call: &Value) -> Value {
    let arguments = call["function"]["arguments"].as_str().unwrap();
    json!([call["function"]["name"], serde_json::from_str::<Value>(arguments).unwrap()])
}

/// What a recorded answer's message must be, without the ids of its calls.
pub fn parsed(sample: &Value) -> Value {
    let parsed = &sample["parsed"];
    json!({
        "content": parsed["content"],
        "reasoning_content": parsed["reasoning_content"],
        "calls": parsed["tool_calls"].as_array().unwrap().iter().map(function).collect::<Vec<_>>(),
    })
}

/// A message of an answer in the same shape.
pub fn said(message: &Value) -> Value {
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    json!({
        "content": message["content"].as_str().unwrap_or_default(),
        "reasoning_content": message["reasoning_content"].as_str().unwrap_or_default(),
        "calls": calls.iter().map(function).collect::<Vec<_>>(),
    })
}
