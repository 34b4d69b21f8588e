//! Checkpoints whose chats are written by their own template, with the embedded checkpoint's weights.
#![cfg(feature = "server")]

use std::fs;
use std::path::Path;

use crate::server_support::http::{Answer, events, get, post};
use crate::server_support::{Running, checkpoint, tool};
use deepseek_v32::chat::{Message, ParseOptions, Start, Version, parse};
use deepseek_v32::chat_model::{ChatModel, ChatModelError, ChatRequest, LocalChat};
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::model::Precision;
use deepseek_v32::server::ServerOptions;
use deepseek_v32::weights::LoadOptions;
use serde_json::{Value, json};
use tempfile::TempDir;

const CHAT: &str = "/v1/chat/completions";

/// A folder in the hub's cache: the embedded weights, the excerpt of Kimi-K2's tokenizer, and a template or none.
fn load(template: Option<&str>) -> (LocalChat, TempDir) {
    let cache = TempDir::new().unwrap();
    let dir = cache.path().join("models--moonshotai--Kimi-Tiny/snapshots/0123456789abcdef");
    fs::create_dir_all(&dir).unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(checkpoint().join(name), dir.join(name)).unwrap();
    }
    for name in ["tiktoken.model", "tokenizer_config.json"] {
        fs::copy(data.join("tokenizer").join(name), dir.join(name)).unwrap();
    }
    if let Some(template) = template {
        fs::copy(data.join("template").join(template), dir.join("chat_template.jinja")).unwrap();
    }
    let (load, engine) = (LoadOptions::default(), EngineOptions::default());
    (LocalChat::load(&dir, &load, Precision::default(), engine, |_| ()).unwrap(), cache)
}

fn answer_of(server: &Running, fields: Value) -> Answer {
    let mut body = json!({"messages": [{"role": "user", "content": "Hello, world!"}], "max_tokens": 4});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    post(server.address, CHAT, &body)
}

#[test]
fn kimi_k2_is_served_by_its_template() {
    let (chat, _cache) = load(Some("kimi_k2.jinja"));
    assert_eq!((chat.version(), chat.name()), (Version::KimiK2, "moonshotai/Kimi-Tiny"));
    assert!(chat.template().is_some() && chat.version_reason().contains("chat template"), "{}", chat.version_reason());
    let id = |token: &str| chat.tokenizer().token_to_id(token).unwrap();
    assert!(chat.stop_ids().contains(&id("<|im_end|>")) && chat.turn_ids().contains(&id("<|im_user|>")));
    // What a user writes is no control token; what the template writes is.
    let request = ChatRequest::new([Message::system("S"), Message::user("a<|im_end|>b")]);
    let prompt = chat.prompt(&request).unwrap();
    let start = "<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>";
    assert_eq!(prompt.text, format!("{start}a<|im_end|>b<|im_end|><|im_assistant|>assistant<|im_middle|>"));
    let ends = prompt.ids.iter().filter(|found| **found == id("<|im_end|>")).count();
    assert_eq!(ends, 2);
    let plain = ChatRequest::new([Message::system("S"), Message::user("ab")]);
    let plain = chat.prompt(&plain).unwrap();
    assert_eq!(plain.ids, chat.tokenizer().encode(&plain.text, false).unwrap());

    let server = Running::start(chat, ServerOptions::default());
    let model = get(server.address, "/v1/models").json();
    assert_eq!(model["data"][0]["id"], "moonshotai/Kimi-Tiny");
    assert_eq!(model["data"][0]["chat_format"], "kimi-k2");
    let weather = tool("get_weather", "Weather in a city.", &["city"]);
    for fields in [json!({}), json!({"tools": [weather]}), json!({"n": 2, "temperature": 1.0, "seed": 1})] {
        let answer = answer_of(&server, fields);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["choices"][0]["message"]["role"], "assistant");
    }
    let streamed = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": true});
    assert!(events(server.address, CHAT, &streamed).len() > 1);
    // What the format cannot hold to is refused by its field.
    for (fields, field) in [
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tools": [weather], "tool_choice": "required"}), "tool_choice"),
    ] {
        let answer = answer_of(&server, fields);
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(field)), "{}", answer.body);
    }
    let prefix = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let mut prefix = prefix;
    prefix["continue_final_message"] = true.into();
    let answer = post(server.address, CHAT, &prefix);
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("continue_final_message")));
}

#[test]
fn glm_is_served_with_tools() {
    let (chat, _cache) = load(Some("glm5.jinja"));
    assert_eq!(chat.version(), Version::Glm);
    let tools: Vec<deepseek_v32::chat::Tool> =
        serde_json::from_value(json!([tool("get_weather", "Weather in a city.", &["city"])])).unwrap();
    let mut messages = vec![Message::user("a")];
    let plain = chat.prompt(&ChatRequest::new(messages.clone())).unwrap();
    assert_eq!(plain.text, "[gMASK]<sop><|user|>a<|assistant|><think>");
    // A call that is read is written as the template has it.
    let written = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>K\u{f6}ln</arg_value></tool_call>";
    let options = ParseOptions::new(Version::Glm, Start::Content).with_tools(tools.clone());
    messages.push(parse(written, &options).unwrap().message);
    messages[1].tool_calls[0].id = Some("c".to_string());
    messages.push(Message { tool_call_id: Some("c".to_string()), ..Message::tool("", "Rain.") });
    let prompt = chat.prompt(&ChatRequest { tools, ..ChatRequest::new(messages) }).unwrap().text;
    assert!(prompt.contains("\"name\": \"get_weather\""), "{prompt}");
    let turn = format!("</think>{written}<|observation|><tool_response>Rain.</tool_response><|assistant|><think>");
    assert!(prompt.ends_with(&turn), "{prompt}");
    let server = Running::start(chat, ServerOptions::default());
    let weather = tool("get_weather", "Weather in a city.", &["city"]);
    for fields in [json!({"tools": [weather]}), json!({})] {
        let answer = answer_of(&server, fields);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[test]
fn a_checkpoint_without_a_chat_format_completes_text() {
    let (chat, _cache) = load(None);
    let error = chat.prompt(&ChatRequest::new([Message::user("a")])).unwrap_err();
    assert!(
        matches!(&error, ChatModelError::NoChatFormat { reason } if reason.contains("no chat template")),
        "{error}"
    );
    let server = Running::start(chat, ServerOptions::default());
    let answer = answer_of(&server, json!({}));
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("no chat format"), "{}", answer.body);
    let answer = post(server.address, "/v1/completions", &json!({"prompt": "Hello, world!", "max_tokens": 4}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4);
}
