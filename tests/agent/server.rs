//! The crate's client drives the crate's server: what it hears is what the engine says.
#![cfg(all(feature = "client", feature = "server"))]

use std::collections::HashMap;
use std::sync::Arc;

use crate::server_support::{golden, tiny};
use deepseek_v32::agent::{Agent, AgentOptions, Stop};
use deepseek_v32::chat::{Accumulator, Json, Message, Role, Tool, ToolCall, ToolChoice};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatEvent, ChatModel, ChatRequest, Finish, OpenAiChat, OpenAiOptions};
use deepseek_v32::environment::Toolbox;
use serde::Deserialize;

#[derive(Deserialize)]
struct Sample {
    mode: String,
    messages: Vec<Message>,
    parsed: Message,
}

fn samples() -> Vec<Sample> {
    golden().iter().map(|sample| serde_json::from_str(&sample.to_string()).unwrap()).collect()
}

fn client(options: OpenAiOptions) -> OpenAiChat {
    OpenAiChat::new(&format!("http://{}/v1", tiny()), "tiny-v32", options).unwrap()
}

fn streaming(stream: bool) -> OpenAiChat {
    client(OpenAiOptions { stream, retries: 0, ..OpenAiOptions::default() })
}

/// A call as JSON, whose text may have its keys in another order.
fn made(call: &ToolCall) -> (String, serde_json::Value) {
    (call.name.clone(), serde_json::from_str(&call.arguments).unwrap())
}

/// A message without ids, and without a difference between no reasoning and an empty one.
fn said(message: &Message) -> (String, String, Vec<(String, serde_json::Value)>) {
    let reasoning = message.reasoning_content.clone().unwrap_or_default();
    (message.content.clone(), reasoning, message.tool_calls.iter().map(made).collect())
}

#[test]
fn recorded_answers_come_through_whole_and_streamed() {
    let samples = samples();
    for stream in [true, false] {
        let chat = streaming(stream);
        for at in [7, 8, 14, 25, 27] {
            let sample = &samples[at];
            let request =
                ChatRequest { thinking: sample.mode == "thinking", ..ChatRequest::new(sample.messages.clone()) };
            let (mut deltas, mut pieces) = (Accumulator::new(), 0);
            let response = chat.chat(request, &mut |event| {
                if let ChatEvent::Delta(delta) = event {
                    deltas.push(delta);
                    pieces += 1;
                }
            });
            let response = response.unwrap();
            assert_eq!(said(&response.message), said(&sample.parsed), "sample {at}, stream {stream}");
            assert_eq!(said(&deltas.finish()), said(&sample.parsed), "sample {at}, from its deltas");
            assert!(pieces > if stream { 8 } else { 0 }, "{pieces} pieces");
            let calls = !sample.parsed.tool_calls.is_empty();
            assert_eq!(response.finish, if calls { Finish::ToolCalls } else { Finish::Stop });
            assert!(response.usage.prompt_tokens > 100 && response.usage.completion_tokens > 5);
            assert_eq!(response.usage.reasoning_tokens > 0, sample.mode == "thinking");
        }
    }
}

/// Tools that answer as they were recorded to answer the calls of a conversation.
fn recorded_tools(tools: &[Tool], conversation: &[Message]) -> Toolbox {
    let calls = conversation.iter().flat_map(|message| &message.tool_calls).map(|call| {
        let (name, arguments) = made(call);
        format!("{name} {arguments}")
    });
    let results = conversation.iter().filter(|message| message.role == Role::Tool);
    let results: HashMap<String, String> = calls.zip(results.map(|result| result.content.clone())).collect();
    let results = Arc::new(results);
    tools.iter().fold(Toolbox::new(), |toolbox, tool| {
        let (name, results) = (tool.name().to_string(), Arc::clone(&results));
        let answer = move |arguments: &Json| {
            let arguments: serde_json::Value = serde_json::from_str(&arguments.to_string())?;
            let call = format!("{name} {arguments}");
            Ok(results.get(&call).cloned().ok_or(format!("nobody recorded {call}"))?)
        };
        toolbox.with(tool.clone(), answer).unwrap()
    })
}

#[test]
fn an_agent_plays_the_recorded_conversations_over_http() {
    let mut calls = 0;
    let samples = samples();
    let ends = samples.iter().filter(|sample| sample.parsed.tool_calls.is_empty());
    for (at, sample) in ends.enumerate() {
        let mut conversation = sample.messages.clone();
        let tools = std::mem::take(&mut conversation[0].tools);
        let question = conversation.iter().rposition(|message| message.role == Role::User).unwrap();
        let options = AgentOptions { thinking: sample.mode == "thinking", ..AgentOptions::default() };
        let toolbox = recorded_tools(&tools, &conversation);
        let agent = Agent::new(Arc::new(streaming(at % 2 == 0)), toolbox).with_options(options);
        let outcome = agent.run(&conversation[..=question], &mut |_| ()).unwrap();
        assert_eq!(outcome.stop, Stop::Answer);
        assert_eq!(said(outcome.message.as_ref().unwrap()), said(&sample.parsed));
        conversation.push(sample.parsed.clone());
        // Without thinking, recorded reasoning was never shown.
        let shown = |(content, reasoning, calls)| {
            (content, if sample.mode == "thinking" { reasoning } else { String::new() }, calls)
        };
        let plain = |messages: &[Message]| messages.iter().map(said).map(shown).collect::<Vec<_>>();
        assert_eq!(plain(&outcome.messages), plain(&conversation));
        calls += outcome.messages[question..].iter().map(|message| message.tool_calls.len()).sum::<usize>();
    }
    assert!(calls >= 20, "{calls} calls");
}

#[test]
fn what_the_server_refuses_is_told_with_its_status_and_field() {
    let request = |choice: ToolChoice| ChatRequest {
        tool_choice: choice,
        tools: vec![Tool::new("f", "", Json::parse(r#"{"type": "object", "not": {}}"#).unwrap())],
        ..ChatRequest::new([Message::user("Hello!")])
    };
    let error = streaming(true).chat(request(ToolChoice::Required), &mut |_| ()).unwrap_err();
    let ChatModelError::Remote { status, message, .. } = error else { panic!("{error:?}") };
    assert_eq!(status, Some(400));
    assert!(message.contains("tools[0].function.parameters") && message.contains("not is not supported"), "{message}");
    let long = ChatRequest::new([Message::user("word ".repeat(5000))]);
    assert!(streaming(true).chat(long, &mut |_| ()).unwrap_err().is_context_full());
}
