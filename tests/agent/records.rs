//! Records of answers on their way through chat, agent and trace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::agent_support::{Scripted, respond};
use deepseek_v32::agent::{Agent, AgentEvent, AgentEventKind, AgentOptions, ContextManagement, read_records};
use deepseek_v32::chat::{Json, Message, Role, Tool, ToolCall};
use deepseek_v32::chat_model::{ChatModel, ChatRequest, ChatResponse, LocalChat};
use deepseek_v32::environment::Toolbox;
use deepseek_v32::generation::{EngineOptions, RECORD_VERSION, Record, RecordOptions, Routes, SamplingParams};
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

/// The records in a trace's lines of a kind as they are written, each with the number of rows that its line lacks.
fn lines_of(path: &Path, kind: &str) -> Vec<(usize, Record)> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter_map(|line| {
            let record = line["record"][kind]["record"].as_object().cloned()?;
            let shared = line["shared_rows"].as_u64().unwrap_or(0) as usize;
            Some((shared, serde_json::from_value(record.into()).unwrap()))
        })
        .collect()
}

/// The records that a trace gives back.
fn read(path: &Path) -> Vec<Record> {
    read_records(path).unwrap().into_iter().map(|(_, record)| record).collect()
}

fn expert_ids(record: &Record) -> &[u16] {
    &record.routes.as_ref().unwrap().expert_ids
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
    assert!(expert_ids(&records[1]).starts_with(expert_ids(&records[0])));
    assert_eq!(read(&path), records);
    // The second line holds only the rows that the first does not.
    let lines = lines_of(&path, "answer");
    let first_rows = records[0].routes.as_ref().unwrap().rows();
    assert_eq!((lines[0].0, lines[1].0), (0, first_rows));
    let stored: usize = lines.iter().map(|(_, record)| expert_ids(record).len()).sum();
    assert_eq!(stored, expert_ids(&records[1]).len());
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
    assert_eq!(lines_of(&path, "managed").len(), 1);
    assert_eq!(lines_of(&path, "answer").len(), 2);
}

/// A model whose every answer but the `last` calls the tool, with routes of two layers and three experts: those of a
/// position are fixed until `changed`, the first answer whose whole prompt got other experts.
fn routed(last: usize, changed: usize) -> Scripted {
    Scripted::new(move |n, request: &ChatRequest| {
        let turn = request.messages.iter().filter(|message| message.role == Role::Assistant).count();
        let message = match turn {
            turn if turn < last => Message {
                tool_calls: vec![ToolCall {
                    id: Some(format!("call_{n}")),
                    name: "search_forecast".to_string(),
                    arguments: r#"{"town": "Lisbon"}"#.to_string(),
                }],
                ..Message::assistant("")
            },
            _ => Message::assistant("done"),
        };
        let (prompt, generated) = (10 + 7 * turn, 4);
        let salt = if turn < changed { 0 } else { 100 };
        let experts = |position: usize| (0..6).map(move |i| (position * 31 + i * 7 + salt) as u16);
        let record = Record {
            schema_version: RECORD_VERSION,
            weights_version: 0,
            temperature: 1.0,
            prompt_ids: (0..prompt as u32).collect(),
            generated_ids: vec![0; generated],
            logprobs: None,
            sampled_logprobs: None,
            kept: None,
            routes: Some(Routes {
                layers: vec![1, 2],
                experts_per_token: 3,
                expert_ids: (0..prompt + generated - 1).flat_map(experts).collect(),
            }),
        };
        ChatResponse { record: Some(Box::new(record)), ..respond(request, message) }
    })
}

/// Routes that recur are written once, also by the process that resumes, and come back as they were.
#[test]
fn routes_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let options = AgentOptions { record: RecordOptions::ALL, max_steps: 3, ..AgentOptions::default() };
    let agent = |changed| Agent::new(Arc::new(routed(7, changed)), forecast()).with_options(options.clone());
    let mut records = Vec::new();
    let mut keep = |event: AgentEvent| {
        if let AgentEventKind::Recorded(record) = event.kind {
            records.push(*record);
        }
    };
    agent(usize::MAX).run_traced([Message::user("Weather?")], &path, &mut keep).unwrap();
    // From the sixth answer on, the experts of the whole prompt are others.
    agent(5).resume_with_max_steps(&path, 10, &mut keep).unwrap();
    assert_eq!(records.len(), 8);
    assert_eq!(read(&path), records);
    let lines = lines_of(&path, "answer");
    let shared: Vec<usize> = lines.iter().map(|(shared, _)| *shared).collect();
    // A record has 10 + 7 * turn + 4 - 1 rows.
    assert_eq!(shared, [0, 13, 20, 27, 34, 0, 48, 55]);
    for ((shared, line), record) in lines.iter().zip(&records) {
        assert_eq!(expert_ids(line), &expert_ids(record)[6 * shared..]);
    }

    // A number of rows that cannot be is named.
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, line, problem) in [
        ("\"shared_rows\":13", "\"shared_rows\":14", 4, "is 14, but the run's record before has 13 rows"),
        ("\"shared_rows\":13", "\"shared_rows\":18446744073709551615", 4, "has 13 rows of this shape"),
        ("\"shared_rows\":20", "\"shared_rows\":21", 6, "is 21, but the run's record before has 20 rows"),
        ("\"record\":{\"result\"", "\"shared_rows\":1,\"record\":{\"result\"", 3, "is 1, but the line has no routes"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        for error in
            [read_records(&path).unwrap_err().to_string(), agent(5).resume(&path, &mut |_| ()).unwrap_err().to_string()]
        {
            let named = error.contains("shared_rows") && error.contains(&format!("line {line}"));
            assert!(named && error.contains(problem), "{error}");
        }
    }
}

/// Runs at the same time keep their routes apart.
#[test]
fn each_run_has_its_own_routes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let context = ContextManagement::ParallelFewestStep { runs: 3 };
    let params = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let options = AgentOptions { record: RecordOptions::ALL, context, params, ..AgentOptions::default() };
    let agent = Agent::new(Arc::new(routed(3, usize::MAX)), forecast()).with_options(options);
    let mut records = vec![Vec::new(); 3];
    let outcome = agent.run_traced([Message::user("Weather?")], &path, &mut |event| {
        if let AgentEventKind::Recorded(record) = event.kind {
            records[event.run].push(*record);
        }
    });
    outcome.unwrap();
    let mut read = vec![Vec::new(); 3];
    read_records(&path).unwrap().into_iter().for_each(|(run, record)| read[run].push(record));
    assert_eq!(read, records);
    assert!(records.iter().all(|records| records.len() == 4));
    let mut shared: Vec<usize> = lines_of(&path, "answer").iter().map(|(shared, _)| *shared).collect();
    shared.sort_unstable();
    assert_eq!(shared, [0, 0, 0, 13, 13, 13, 20, 20, 20, 27, 27, 27]);
}
