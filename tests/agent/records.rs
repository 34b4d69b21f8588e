//! Records of answers on their way through chat, agent and trace.

use std::path::PathBuf;
use std::sync::Arc;

use crate::agent_support::{Scripted, respond};
use deepseek_v32::agent::{Agent, AgentEventKind, AgentOptions, ContextManagement};
use deepseek_v32::chat::{Json, Message, Tool, ToolCall};
use deepseek_v32::chat_model::{ChatModel, ChatRequest, ChatResponse, LocalChat};
use deepseek_v32::environment::Toolbox;
use deepseek_v32::generation::{EngineOptions, RECORD_VERSION, Record, RecordOptions};
use deepseek_v32::model::Precision;
use deepseek_v32::weights::LoadOptions;

fn chat(engine: EngineOptions) -> LocalChat {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32");
    LocalChat::load(dir, &LoadOptions::default(), Precision::Dequant, engine, |_| ()).unwrap()
}

fn forecast() -> Toolbox {
    let parameters = r#"{"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}"#;
    let tool = Tool::new("search_forecast", "Get the weather in a city.", Json::parse(parameters).unwrap());
    Toolbox::new().with(tool, |_| Ok("21 degrees and sunny".to_string())).unwrap()
}

fn question() -> Vec<Message> {
    vec![Message::system("You are a helpful assistant."), Message::user("What is the weather in Lisbon?")]
}

/// The records in a trace's lines of a kind.
fn in_trace(path: &std::path::Path, kind: &str) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter_map(|line| line["record"][kind]["record"].as_object().cloned())
        .map(|record| serde_json::from_value(record.into()).unwrap())
        .collect()
}

/// Every answer of an agent is recorded, in events and in the trace alike, from the very tokens of the conversation.
#[test]
fn an_agents_answers_are_recorded() {
    let model = Arc::new(chat(EngineOptions { prefix_tokens: 4096, ..EngineOptions::default() }));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let options = AgentOptions { record: RecordOptions::ALL, ..AgentOptions::default() };
    let agent = Agent::new(model.clone(), forecast()).with_options(options);
    let (mut records, mut written) = (Vec::new(), Vec::new());
    let outcome = agent.run_traced(question(), &path, &mut |event| match event.kind {
        AgentEventKind::Recorded(record) => records.push(*record),
        AgentEventKind::Answered { message, usage, .. } => written.push((message.written_ids.unwrap(), usage)),
        _ => {}
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.steps, records.len(), written.len()), (2, 2, 2));
    for (record, (ids, usage)) in records.iter().zip(&written) {
        record.validate().unwrap();
        assert_eq!(record.schema_version, RECORD_VERSION);
        assert!(record.generated_ids.starts_with(ids) && record.generated_ids.len() <= ids.len() + 1);
        assert_eq!(
            (record.prompt_ids.len(), record.generated_ids.len()),
            (usage.prompt_tokens, usage.completion_tokens)
        );
        assert_eq!(record.routes.as_ref().unwrap().rows(), usage.prompt_tokens + usage.completion_tokens - 1);
        assert!(record.logprobs.is_some() && record.sampled_logprobs.is_some() && record.kept.is_some());
    }
    // The second prompt goes on from the first prompt and its answer, whose pages and routes were in the cache.
    assert!(written[1].1.cached_tokens > 0);
    let first = [&records[0].prompt_ids[..], &records[0].generated_ids].concat();
    assert!(records[1].prompt_ids.starts_with(&first));
    let routes = |at: usize| &records[at].routes.as_ref().unwrap().expert_ids;
    assert!(routes(1).starts_with(routes(0)));
    assert_eq!(in_trace(&path, "answer"), records);
    // The trace is read back, records included; one that contradicts itself is named.
    assert_eq!(agent.resume(&path, &mut |_| ()).unwrap().messages, outcome.messages);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"sampled_logprobs\":[", "\"sampled_logprobs\":[0.5,", 1)).unwrap();
    let error = agent.resume(&path, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("record.sampled_logprobs") && error.contains("line 2"), "{error}");
    // The same without records has none.
    let response = model.chat(ChatRequest::new(question()), &mut |_| ()).unwrap();
    assert_eq!(response.record, None);
}

/// A summary is the model's work, too.
#[test]
fn summaries_are_recorded() {
    fn record(generated_ids: Vec<u32>) -> Option<Box<Record>> {
        Some(Box::new(Record {
            schema_version: RECORD_VERSION,
            weights_version: 3,
            temperature: 1.0,
            prompt_ids: vec![1, 2, 3],
            generated_ids,
            logprobs: None,
            sampled_logprobs: None,
            kept: None,
            routes: None,
        }))
    }
    let model = Scripted::new(|n, request: &ChatRequest| {
        assert_eq!(request.record, RecordOptions::ALL);
        let message = match n {
            0 => Message {
                tool_calls: vec![ToolCall {
                    id: Some("call_1".to_string()),
                    name: "search_forecast".to_string(),
                    arguments: r#"{"town": "Lisbon"}"#.to_string(),
                }],
                ..Message::assistant("word ".repeat(90))
            },
            1 => Message::assistant("a summary"),
            _ => Message::assistant("done"),
        };
        ChatResponse { record: record(vec![n as u32]), ..respond(request, message) }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let options =
        AgentOptions { record: RecordOptions::ALL, context: ContextManagement::Summary, ..AgentOptions::default() };
    let agent = Agent::new(Arc::new(model.with_context(110)), forecast()).with_options(options);
    let mut records = Vec::new();
    let outcome = agent.run_traced([Message::user("Weather?")], &path, &mut |event| {
        if let AgentEventKind::Recorded(record) = event.kind {
            records.push(record.generated_ids[0]);
        }
    });
    assert_eq!((outcome.unwrap().managed.len(), records), (1, vec![0, 1, 2]));
    assert_eq!(in_trace(&path, "managed").len(), 1);
    assert_eq!(in_trace(&path, "answer").len(), 2);
}
