//! The agent's loop: calls, results, errors, limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::agent_support::{Scripted, calls, kinds, looker, respond, shared, tokens, tool};
use deepseek_v32::agent::{Agent, AgentError, AgentEventKind, AgentOptions, Stop};
use deepseek_v32::chat::Json;
use deepseek_v32::chat::{Message, Role, Tool, ToolError};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatUsage, Finish};
use deepseek_v32::environment::Toolbox;
use deepseek_v32::generation::{Cancel, SamplingParams};

fn result(id: &str, content: &str) -> Message {
    Message::tool(id, content)
}

#[test]
fn calls_tools_until_it_has_an_answer() {
    let first = calls("I look.", &[("c1", "look", r#"{"at": "sky"}"#)]);
    let answer = Message { reasoning_content: Some("Seen.".into()), ..Message::assistant("The sky is blue.") };
    let (model, shared) = shared(Scripted::answers([first.clone(), answer.clone()]));
    let start = vec![Message::system("Be brief."), Message::user("What of the sky?")];
    let mut events = Vec::new();
    let agent = Agent::new(shared, looker());
    let outcome = agent.run(start.clone(), &mut |event| events.push(event)).unwrap();

    let expected = [start.clone(), vec![first, result("c1", "sky is there, I see"), answer.clone()]].concat();
    assert_eq!(outcome.messages, expected);
    assert_eq!((outcome.stop, outcome.steps, &outcome.message), (Stop::Answer, 2, &Some(answer)));
    // 6 words; then with 3 of the call and 5 of the result.
    let usage = ChatUsage { prompt_tokens: 6 + 14, completion_tokens: 3 + 5, ..ChatUsage::default() };
    assert_eq!(outcome.usage, usage);
    assert_eq!(outcome.runs.len(), 1);
    assert_eq!(
        kinds(&events),
        ["step", "delta", "answered", "call", "result", "step", "delta", "answered", "finished"]
    );
    assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1, 1, 2, 2]);

    // The model saw its reasoning and the tools; a second turn sees everything, too: what to drop is the format's.
    let requests = model.requests();
    assert_eq!(requests[1].messages, expected[..4]);
    assert_eq!(requests[1].tools, agent.tools().tools());
    let more = [expected.clone(), vec![Message::user("And the sea?")]].concat();
    let (model, shared) = crate::agent_support::shared(Scripted::answers([Message::assistant("Blue, too.")]));
    let outcome = Agent::new(shared, looker()).run(more.clone(), &mut |_| ()).unwrap();
    assert_eq!(model.requests()[0].messages, more);
    assert_eq!(outcome.messages.len(), more.len() + 1);
}

#[test]
fn whatever_is_wrong_with_a_call_is_told() {
    let bad = [
        ("1", "fly", "{}"),
        ("2", "look", "{\"at\": "),
        ("3", "look", "[1]"),
        ("4", "fail", "{}"),
        ("5", "panic", "{}"),
        ("6", "look", r#"{"at": "sky"}"#),
    ];
    let (_, model) = shared(Scripted::answers([calls("", &bad), Message::assistant("Well.")]));
    let any = |name| Tool::new(name, "", Json::Null);
    let tools = looker()
        .with(any("fail"), |_| Err("no such thing".into()))
        .unwrap()
        .with(any("panic"), |_| panic!("out of {}", "range"))
        .unwrap();
    let mut failed = Vec::new();
    let outcome = Agent::new(model, tools)
        .run([Message::user("Go.")], &mut |event| {
            if let AgentEventKind::Result { call, result } = event.kind {
                failed.push((call.id.unwrap(), result.failed));
            }
        })
        .unwrap();
    assert_eq!(outcome.stop, Stop::Answer);
    let told: Vec<&str> = outcome.messages[2..8].iter().map(|message| message.content.as_str()).collect();
    assert_eq!(told[0], "Error: there is no tool \"fly\"; the tools are look, fail, panic");
    assert!(told[1].starts_with("Error: the arguments of look are no JSON (EOF"), "{}", told[1]);
    assert_eq!(told[2], "Error: the arguments of look are the JSON array, expected a JSON object");
    assert_eq!(told[3], "Error: no such thing");
    assert_eq!(told[4], "Error: panic broke down: out of range");
    assert_eq!(told[5], "sky is there, I see");
    failed.sort();
    let failures: Vec<bool> = failed.iter().map(|(_, failed)| *failed).collect();
    assert_eq!(failures, [true, true, true, true, true, false]);
}

#[cfg(feature = "schema")]
#[test]
fn arguments_against_the_schema_are_told() {
    let bad = [("1", "look", "{}"), ("2", "look", r#"{"at": 3}"#)];
    let (_, model) = shared(Scripted::answers([calls("", &bad), Message::assistant("Well.")]));
    let outcome = Agent::new(model, looker()).run([Message::user("Go.")], &mut |_| ()).unwrap();
    let head = "Error: the arguments of look do not follow its schema: ";
    assert_eq!(outcome.messages[2].content, format!("{head}\"at\" is a required property"));
    assert_eq!(outcome.messages[3].content, format!("{head}at /at: 3 is not of type \"string\""));
}

#[cfg(feature = "schema")]
#[test]
fn a_tool_of_a_type() {
    #[derive(schemars::JsonSchema, serde::Deserialize)]
    struct Sum {
        a: i64,
        b: i64,
    }
    let tools = Toolbox::new().with_type("add", "Adds.", |sum: Sum| Ok((sum.a + sum.b).to_string())).unwrap();
    let call = &calls("", &[("1", "add", r#"{"a": 2, "b": 40}"#)]).tool_calls[0];
    assert_eq!(tools.call(call).content, "42");
}

#[test]
fn definitions() {
    let twice = looker().with(tool("look", "for"), |_| Ok(String::new())).unwrap_err();
    assert!(matches!(&twice, ToolError::Definition { name, .. } if name == "look"), "{twice}");
    assert!(Toolbox::new().with(tool("", "x"), |_| Ok(String::new())).is_err());
    assert!(looker().get("look").is_some() && looker().get("fly").is_none());
}

#[test]
fn parallel_calls_keep_their_order() {
    let names: Vec<String> = (0..4).map(|i| format!("t{i}")).collect();
    let at_once = Arc::new(Barrier::new(4));
    let mut tools = Toolbox::new();
    for (i, name) in names.iter().enumerate() {
        let at_once = at_once.clone();
        tools = tools
            .with(Tool::new(name, "", Json::Null), move |_| {
                // Each waits for all, and the first ends last.
                at_once.wait();
                std::thread::sleep(Duration::from_millis(40 * (3 - i as u64)));
                Ok(format!("result {i}"))
            })
            .unwrap();
    }
    let made: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str(), "{}")).collect();
    let (_, model) = shared(Scripted::answers([calls("", &made), Message::assistant("Done.")]));
    let mut ended = Vec::new();
    let outcome = Agent::new(model, tools)
        .run([Message::user("Go.")], &mut |event| {
            if let AgentEventKind::Result { call, .. } = event.kind {
                ended.push(call.name);
            }
        })
        .unwrap();
    let expected: Vec<Message> = (0..4).map(|i| result(&names[i], &format!("result {i}"))).collect();
    assert_eq!(outcome.messages[2..6], expected);
    assert_eq!(ended.len(), 4);
    assert_eq!(ended[3], "t0");
}

#[test]
fn one_call_after_another() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let tools = Toolbox::new()
        .with(Tool::new("t", "", Json::Null), move |_| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(String::new())
        })
        .unwrap();
    let made: Vec<_> = ["1", "2", "3", "4", "5"].iter().map(|id| (*id, "t", "{}")).collect();
    let made = calls("", &made).tool_calls;
    assert_eq!(tools.clone().with_max_parallel(1).call_all(&made, |_, _| ()).len(), 5);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert_eq!(tools.with_max_parallel(3).call_all(&made, |_, _| ()).len(), 5);
    assert!(seen.load(Ordering::SeqCst) <= 3);
}

/// A model that never comes to an answer.
fn restless() -> Scripted {
    Scripted::new(|n, request| respond(request, calls("", &[(&format!("c{n}"), "look", r#"{"at": "sky"}"#)])))
}

fn run(model: Scripted, options: AgentOptions) -> deepseek_v32::agent::Outcome {
    let (_, model) = shared(model);
    Agent::new(model, looker()).with_options(options).run([Message::user("Go on forever.")], &mut |_| ()).unwrap()
}

#[test]
fn steps_and_tokens_are_limited() {
    let outcome = run(restless(), AgentOptions { max_steps: 3, ..AgentOptions::default() });
    assert_eq!((outcome.stop, outcome.steps), (Stop::StepLimit, 3));
    // The calls of the last answer were carried out: the conversation can go on.
    assert_eq!(outcome.messages.last().unwrap().role, Role::Tool);
    let none = run(restless(), AgentOptions { max_steps: 0, ..AgentOptions::default() });
    assert_eq!((none.stop, none.steps, none.message), (Stop::StepLimit, 0, None));

    // 3 + 1 tokens, then 9 + 1: a third prompt of 15 would exceed 28.
    let (model, shared) = shared(restless());
    let options = AgentOptions { max_tokens: Some(28), max_answer_tokens: Some(20), ..AgentOptions::default() };
    let outcome =
        Agent::new(shared, looker()).with_options(options).run([Message::user("Go on forever.")], &mut |_| ());
    let outcome = outcome.unwrap();
    assert_eq!((outcome.stop, outcome.steps, outcome.usage.total()), (Stop::TokenLimit, 2, 14));
    let most: Vec<_> = model.requests().iter().map(|request| request.max_tokens).collect();
    assert_eq!(most, [Some(20), Some(15)]);
}

#[test]
fn an_answer_that_is_cut_off_calls_nothing() {
    let model = Scripted::new(|_, request| {
        let mut response = respond(request, calls("I", &[("c", "look", "{}")]));
        response.finish = Finish::Length;
        response
    });
    let outcome = run(model, AgentOptions::default());
    assert_eq!((outcome.stop, outcome.steps), (Stop::TokenLimit, 1));
    assert!(outcome.messages.iter().all(|message| message.tool_calls.is_empty()));
    assert_eq!(outcome.message.unwrap().tool_calls.len(), 1);
}

#[test]
fn time_is_limited() {
    // It answers only when it is told to stop.
    let model = Scripted::new(|_, request| {
        let cancel = request.cancel.clone().unwrap();
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut response = respond(request, Message::assistant("I was about"));
        response.finish = Finish::Cancelled;
        response
    });
    let start = Instant::now();
    let outcome = run(model, AgentOptions { max_time: Some(Duration::from_millis(100)), ..AgentOptions::default() });
    assert_eq!((outcome.stop, outcome.steps), (Stop::TimeLimit, 1));
    assert_eq!(outcome.messages.last().unwrap().content, "I was about");
    assert!(start.elapsed() >= Duration::from_millis(100) && start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_panic_of_the_model_does_not_wait_for_the_time_limit() {
    let (_, model) = shared(Scripted::new(|_, _| panic!("broken")));
    let options = AgentOptions { max_time: Some(Duration::from_secs(3600)), ..AgentOptions::default() };
    let agent = Agent::new(model, looker()).with_options(options);
    let (told, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let run = std::panic::AssertUnwindSafe(|| agent.run([Message::user("Go.")], &mut |_| ()));
        told.send(std::panic::catch_unwind(run).is_err())
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(30)), Ok(true));
}

#[test]
fn cancelled() {
    let cancel = Cancel::new();
    let (_, model) = shared(restless());
    let agent = Agent::new(model, looker()).with_cancel(cancel.clone());
    let outcome = agent
        .run([Message::user("Go.")], &mut |event| {
            if matches!(event.kind, AgentEventKind::Answered { .. }) && event.step == 2 {
                cancel.cancel();
            }
        })
        .unwrap();
    assert_eq!((outcome.stop, outcome.steps), (Stop::Cancelled, 2));
    let last = outcome.messages.last().unwrap();
    assert_eq!(last.content, "Error: look was not called, because the run was cancelled");
    assert_eq!(last.tool_call_id.as_deref(), Some("c1"));
}

#[test]
fn the_context_fills() {
    // 3, 9, 15, 21, …
    let outcome = run(restless().with_context(20), AgentOptions::default());
    assert_eq!((outcome.stop, outcome.steps), (Stop::ContextFull, 3));
    assert_eq!(tokens(&outcome.messages), 21);
    // A server says so when it is too late.
    let model = Scripted::fallible(|n, request| match n {
        2 => Err(ChatModelError::Remote {
            url: "http://localhost".into(),
            status: Some(400),
            message: "This model's maximum context length is 20 tokens.".into(),
        }),
        _ => Ok(respond(request, calls("", &[("c", "look", "{}")]))),
    });
    let outcome = run(model.without_counts(), AgentOptions::default());
    assert_eq!((outcome.stop, outcome.steps), (Stop::ContextFull, 2));
}

#[test]
fn an_error_of_the_model_is_an_error() {
    let model = Scripted::fallible(|_, _| {
        Err(ChatModelError::Remote {
            url: "http://localhost".into(),
            status: Some(500),
            message: "out of order".into(),
        })
    });
    let (_, model) = shared(model);
    let error = Agent::new(model, looker()).run([Message::user("Go.")], &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "http://localhost: out of order");
}

#[test]
fn each_step_has_a_seed_of_its_own() {
    let (model, shared) = shared(restless());
    let params = SamplingParams::sampled(1.0, 42);
    let options = AgentOptions { max_steps: 4, params, ..AgentOptions::default() };
    Agent::new(shared, looker()).with_options(options).run([Message::user("Go.")], &mut |_| ()).unwrap();
    let seeds: Vec<u64> = model.requests().iter().map(|request| request.params.seed.unwrap()).collect();
    assert_eq!(seeds[0], 42);
    assert!((1..4).all(|i| !seeds[..i].contains(&seeds[i])), "{seeds:?}");
}

#[test]
fn options_outside_their_range_are_refused() {
    let (_, model) = shared(restless());
    let agent = Agent::new(model, looker());
    for context_threshold in [0.0, -1.0, 1.5, f64::NAN] {
        let agent = agent.clone().with_options(AgentOptions { context_threshold, ..AgentOptions::default() });
        let error = agent.run([Message::user("Go.")], &mut |_| ()).unwrap_err();
        assert!(matches!(error, AgentError::Option { name: "context_threshold", .. }), "{error}");
    }
}
