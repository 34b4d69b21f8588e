//! The model is told of a call that could not be read, and writes it again.

use crate::agent_support::{Scripted, looker, respond, shared};
use deepseek_v32::agent::{Agent, AgentEventKind, AgentOptions, Stop};
use deepseek_v32::chat::{Message, Role, ToolCall};
use deepseek_v32::chat_model::{ChatRequest, ChatResponse};

const RAW: &str = "<｜DSML｜invoke name=\"look\">\n1\n</｜DSML｜invoke>";
const ERROR: &str = "a parameter has no closing tag";

fn unreadable(request: &ChatRequest) -> ChatResponse {
    let call_error = Some(ERROR.to_string());
    ChatResponse { dropped: vec![RAW.to_string()], call_error, ..respond(request, Message::assistant(RAW)) }
}

fn call() -> Message {
    let mut message = Message::assistant("");
    let arguments = "{\"at\": \"sky\"}".to_string();
    message.tool_calls = vec![ToolCall { id: Some("c1".to_string()), name: "look".to_string(), arguments }];
    message
}

#[test]
fn a_call_that_cannot_be_read_is_written_again() {
    let script = |turn: usize, request: &ChatRequest| match turn {
        0 | 1 | 3 => unreadable(request),
        2 => respond(request, call()),
        _ => respond(request, Message::assistant("It is blue.")),
    };
    let (model, chat) = shared(Scripted::new(script));
    let agent = Agent::new(chat, looker());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let mut events = Vec::new();
    let outcome = agent.run_traced([Message::user("Look.")], &path, &mut |event| events.push(event)).unwrap();
    assert_eq!(outcome.message.as_ref().unwrap().content, "It is blue.");
    assert_eq!((outcome.stop, outcome.call_error.clone(), outcome.steps), (Stop::Answer, None, 5));
    let told: Vec<(&str, usize)> = events
        .iter()
        .filter_map(|event| match &event.kind {
            AgentEventKind::CallRetried { error, retry } => Some((error.as_str(), *retry)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(ERROR, 1), (ERROR, 2), (ERROR, 1)]);
    // The model sees its own text, then what was wrong with it.
    let requests = model.requests();
    let roles = |at: usize| requests[at].messages.iter().map(|message| message.role).collect::<Vec<_>>();
    assert_eq!(roles(1), [Role::User, Role::Assistant, Role::User]);
    assert_eq!(requests[1].messages[1].content, RAW);
    assert!(requests[1].messages[2].content.contains(ERROR), "{}", requests[1].messages[2].content);
    assert_eq!(roles(2).len(), 5);
    // The trace tells the same run.
    assert_eq!(agent.resume(&path, &mut |_| ()).unwrap(), outcome);
    let trace = std::fs::read_to_string(path).unwrap();
    assert_eq!(trace.matches("\"retry\"").count(), 3);
}

#[test]
fn the_times_are_bounded() {
    for (max_call_retries, steps) in [(0, 1), (1, 2), (2, 3)] {
        let (_, chat) = shared(Scripted::new(|_, request| unreadable(request)));
        let options = AgentOptions { max_call_retries, ..AgentOptions::default() };
        let outcome =
            Agent::new(chat, looker()).with_options(options).run([Message::user("Look.")], &mut |_| ()).unwrap();
        assert_eq!((outcome.stop, outcome.steps), (Stop::Answer, steps));
        assert_eq!(outcome.message.unwrap().content, RAW);
        assert_eq!((outcome.call_error.as_deref(), outcome.dropped), (Some(ERROR), vec![RAW.to_string()]));
    }
    // The limit of steps goes before.
    let (_, chat) = shared(Scripted::new(|_, request| unreadable(request)));
    let options = AgentOptions { max_steps: 1, ..AgentOptions::default() };
    let outcome = Agent::new(chat, looker()).with_options(options).run([Message::user("Look.")], &mut |_| ()).unwrap();
    assert_eq!((outcome.stop, outcome.steps), (Stop::Answer, 1));
}

/// Where other calls of the answer were made, their last result says it, in the trace's run, too.
#[test]
fn one_of_several_calls_that_cannot_be_read_is_told() {
    let script = |turn: usize, request: &ChatRequest| match turn {
        0 => {
            let mut message = call();
            let again = ToolCall { id: Some("c2".to_string()), ..message.tool_calls[0].clone() };
            message.tool_calls.push(again);
            let dropped = vec![RAW.to_string()];
            ChatResponse { dropped, call_error: Some(ERROR.to_string()), ..respond(request, message) }
        }
        1 => respond(request, call()),
        _ => respond(request, Message::assistant("It is blue.")),
    };
    let (model, chat) = shared(Scripted::new(script));
    let agent = Agent::new(chat, looker());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let outcome = agent.run_traced([Message::user("Look.")], &path, &mut |_| ()).unwrap();
    assert_eq!((outcome.stop, outcome.call_error.clone(), outcome.steps), (Stop::Answer, None, 3));
    let results = |messages: &[Message]| -> Vec<String> {
        let results = messages.iter().filter(|message| message.role == Role::Tool);
        results.map(|message| message.content.clone()).collect()
    };
    let requests = model.requests();
    let first = results(&requests[1].messages);
    assert_eq!(first.len(), 2);
    assert!(!first[0].contains(ERROR), "{first:?}");
    let (result, told) = first[1].split_once("\n\n").unwrap();
    assert_eq!(result, first[0]);
    assert!(told.starts_with("Error: ") && told.contains(ERROR), "{told}");
    // It is said once, of that answer.
    let second = results(&requests[2].messages);
    assert_eq!((&second[..2], &second[2]), (&first[..], &first[0]));
    assert_eq!(agent.resume(&path, &mut |_| ()).unwrap(), outcome);
}
