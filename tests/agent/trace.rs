//! Traces: killed anywhere and resumed, a run ends as if nothing had happened.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::agent_support::{Scripted, calls, kinds, looker, respond, shared, tool};
use deepseek_v32::agent::{Agent, AgentError, AgentEventKind, AgentOptions, ContextManagement, Outcome, Stop};
use deepseek_v32::chat::{Json, Message, ToolChoice};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatResponse, ChatUsage};
use deepseek_v32::environment::Toolbox;
use deepseek_v32::generation::SamplingParams;

/// Two calls a step, and an answer at the tenth request.
fn searcher(next: usize) -> Scripted {
    let model = Scripted::new(|n, request| {
        let (a, b) = (format!("a{n}"), format!("b{n}"));
        let message = match n {
            9 => Message::assistant("It is there."),
            n if request.tool_choice == ToolChoice::None => Message::assistant(format!("Nothing until {n}.")),
            n => calls(
                &format!("Thought {n}, of seed {:?}.", request.params.seed),
                &[(&a, "look", r#"{"at": "sky"}"#), (&b, "count", "{}")],
            ),
        };
        respond(request, message)
    });
    model.with_context(500).at(next)
}

/// `look`, and `count`, which counts its calls.
fn tools(counted: &Arc<AtomicUsize>) -> Toolbox {
    let counted = counted.clone();
    let count = move |_: &Json| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok("counted".to_string())
    };
    // One after another, so that the order of the records is known.
    looker().with(tool("count", "what"), count).unwrap().with_max_parallel(1)
}

fn options(context: ContextManagement) -> AgentOptions {
    AgentOptions { context, context_threshold: 0.1, params: SamplingParams::sampled(0.5, 1), ..AgentOptions::default() }
}

/// How many requests a trace has the answers of.
fn answers(trace: &str) -> usize {
    let records = trace.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    records
        .filter(|line| {
            line["record"].get("answer").is_some() || line["record"]["managed"]["managed"]["summary_usage"].is_object()
        })
        .count()
}

fn resume(path: &Path, trace: &str, counted: &Arc<AtomicUsize>) -> Result<Outcome, AgentError> {
    let (_, model) = shared(searcher(answers(trace)));
    Agent::new(model, tools(counted)).resume(path, &mut |_| ())
}

#[test]
fn killed_at_every_record() {
    let dir = tempfile::tempdir().unwrap();
    for context in [
        ContextManagement::None,
        ContextManagement::Summary,
        ContextManagement::Discard75,
        ContextManagement::DiscardAll,
    ] {
        let path = dir.path().join(format!("{context}.jsonl"));
        let counted = Arc::new(AtomicUsize::new(0));
        let (_, model) = shared(searcher(0));
        let agent = Agent::new(model, tools(&counted)).with_options(options(context));
        let start = [Message::system("Be brief."), Message::user("Go on.")];
        let expected = agent.run_traced(start.clone(), &path, &mut |_| ()).unwrap();
        assert_eq!(expected.stop, Stop::Answer);
        assert_eq!(expected.managed.is_empty(), context == ContextManagement::None);
        let calls = counted.load(Ordering::SeqCst);

        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        assert!(lines.len() > 20, "{}", lines.len());
        for kept in 1..=lines.len() {
            for half in [0, 1, 2] {
                // The next line is missing, was cut in two, or lacks its line break alone.
                let next = lines.get(kept).map_or("", |line| &line[..[0, line.len() / 2, line.len() - 1][half]]);
                let trace = lines[..kept].concat() + next;
                let path = dir.path().join("killed.jsonl");
                std::fs::write(&path, &trace).unwrap();
                let whole_lines = (kept + usize::from(half == 2)).min(lines.len());
                let made =
                    lines[..whole_lines].iter().filter(|line| line.contains(r#""result""#) && line.contains("counted"));
                let counted = Arc::new(AtomicUsize::new(made.count()));
                let outcome = resume(&path, &trace, &counted).unwrap();
                assert_eq!(outcome, expected, "{context}, {kept} records, {half}");
                assert_eq!(counted.load(Ordering::SeqCst), calls, "calls are made once");
                // What was written now reads as what was written then.
                let written = std::fs::read_to_string(&path).unwrap();
                assert_eq!(records(&written), records(&whole), "{context}, {kept} records, {half}");
            }
        }
    }
}

/// The records without their times.
#[test]
fn what_an_answer_lost_is_told_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let (_, model) = shared(Scripted::new(|_, request| {
        let dropped = vec!["<invoke".to_string()];
        ChatResponse { dropped, ..respond(request, Message::assistant("")) }
    }));
    let agent = Agent::new(model, looker());
    let mut told = Vec::new();
    let outcome = agent.run_traced([Message::user("?")], &path, &mut |event| {
        if let AgentEventKind::Answered { dropped, .. } = event.kind {
            told.extend(dropped);
        }
    });
    let outcome = outcome.unwrap();
    assert_eq!((told, &outcome.dropped[..]), (vec!["<invoke".to_string()], &["<invoke".to_string()][..]));
    assert_eq!(agent.resume(&path, &mut |_| ()).unwrap(), outcome);
}

fn records(trace: &str) -> Vec<serde_json::Value> {
    let record = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["record"].clone();
    trace.lines().map(record).collect()
}

#[test]
fn an_error_of_the_model_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let counted = Arc::new(AtomicUsize::new(0));
    let model = Scripted::fallible(|n, request| match n {
        0 => Ok(respond(request, calls("", &[("a", "look", r#"{"at": "sky"}"#)]))),
        _ => Err(ChatModelError::Remote { url: "here".into(), status: None, message: "connection lost".into() }),
    });
    let (_, model) = shared(model);
    let agent = Agent::new(model, tools(&counted));
    assert!(agent.run_traced([Message::user("Go.")], &path, &mut |_| ()).is_err());
    let (_, model) = shared(Scripted::answers([Message::assistant("There.")]));
    let mut events = Vec::new();
    let outcome = Agent::new(model, tools(&counted)).resume(&path, &mut |event| events.push(event)).unwrap();
    assert_eq!((outcome.stop, outcome.steps), (Stop::Answer, 2));
    assert_eq!(kinds(&events), ["step", "delta", "answered", "finished"]);
    // A run that has ended comes back as it was; the model is not asked.
    let (model, shared) = shared(Scripted::answers([]));
    assert_eq!(Agent::new(shared, tools(&counted)).resume(&path, &mut |_| ()).unwrap(), outcome);
    assert!(model.requests().is_empty());
}

#[test]
fn parallel_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let options =
        AgentOptions { context: ContextManagement::ParallelFewestStep { runs: 3 }, ..options(ContextManagement::None) };
    // What it answers follows from the conversation alone.
    let model = || {
        let script = |_, request: &deepseek_v32::chat_model::ChatRequest| {
            let message = match request.messages.len() {
                7.. => Message::assistant("It is there."),
                n => calls("", &[(&format!("c{n}"), "look", r#"{"at": "sky"}"#)]),
            };
            respond(request, message)
        };
        shared(Scripted::new(script)).1
    };
    let agent = Agent::new(model(), looker()).with_options(options);
    let expected = agent.run_traced([Message::user("Go.")], &path, &mut |_| ()).unwrap();
    assert_eq!((expected.steps, expected.run), (12, 0));
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for kept in 1..=lines.len() {
        std::fs::write(&path, lines[..kept].concat()).unwrap();
        let outcome = Agent::new(model(), looker()).resume(&path, &mut |_| ()).unwrap();
        assert_eq!(outcome, expected, "{kept} records");
    }
}

#[test]
fn what_is_no_trace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let counted = Arc::new(AtomicUsize::new(0));
    let (_, model) = shared(searcher(0));
    let agent = Agent::new(model, tools(&counted));
    agent.run_traced([Message::user("Go.")], &path, &mut |_| ()).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let error = agent.run_traced([Message::user("Go.")], &path, &mut |_| ()).unwrap_err();
    assert!(matches!(error, AgentError::Trace { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "a trace is never overwritten");

    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let refused = |text: &str, expected: &str| {
        std::fs::write(&path, text).unwrap();
        let error = resume(&path, "", &counted).unwrap_err().to_string();
        assert!(error.contains("trace.jsonl: ") && error.contains(expected), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it is left alone");
    };
    refused("", "holds no whole record");
    refused(&whole[..50], "holds no whole record");
    refused(&lines[1..].concat(), "line 1: expected the beginning");
    refused(&(lines[0].to_string() + "garbage\n"), "line 2: expected value, column 1");
    refused(&(lines[0].to_string() + lines[0]), "line 2: a second beginning");
    refused(&(lines[0].to_string() + lines[2]), "line 2: `call`: a result of call 0, which waits for none");
    refused(&(lines[..2].concat() + lines[1]), "line 3: an answer before the results");
    refused(&(whole.clone() + lines[1]), "a record after the end");
    refused(&whole.replace("\"run\":0", "\"run\":7"), "no such run");
    refused(
        &whole.replace("\"schema_version\":1", "\"schema_version\":2"),
        "line 1: `schema_version`: is 2, expected 1",
    );
    std::fs::write(&path, &whole).unwrap();
    let (_, model) = shared(searcher(0));
    let error = Agent::new(model, looker()).resume(&path, &mut |_| ()).unwrap_err();
    assert!(error.to_string().ends_with("line 1: `tools`: was written by an agent with other tools"), "{error}");

    // Numbers that can't be, and names of others.
    let usage = |count: &str| whole.replacen("\"prompt_tokens\":1,", &format!("\"prompt_tokens\":{count},"), 1);
    assert_ne!(usage("2"), whole);
    for (text, at, of, expected) in [
        (usage("18446744073709551615"), 2, Some("usage.prompt_tokens"), "is 18446744073709551615, expected at most"),
        (usage("-1"), 2, None, "invalid value: integer `-1`, expected usize, column"),
        (usage("18446744073709551616"), 2, None, "column"),
        (whole.replace("\"seconds\":0.0,", "\"seconds\":-1.5,"), 1, Some("seconds"), "is -1.5, expected"),
        (
            whole.replacen("\"name\":\"count\",\"content\"", "\"name\":\"rm\",\"content\"", 1),
            4,
            Some("name"),
            "of \"count\"",
        ),
        (whole.replace("\"run\":0", "\"run\":7"), 2, Some("run"), "is 7: no such run of 1"),
        (
            whole.replace("\"scripted\"", "\"other\""),
            1,
            Some("model"),
            "is \"other\", but the agent's model is \"scripted\"",
        ),
        (
            whole.replace("\"context_threshold\":0.8", "\"context_threshold\":7.0"),
            1,
            Some("options.context_threshold"),
            "is 7",
        ),
        (whole.replace("\"top_p\":1.0", "\"top_p\":3.0"), 1, Some("options.params.top_p"), "is 3"),
    ] {
        assert_ne!(text, whole, "{expected}");
        std::fs::write(&path, &text).unwrap();
        match resume(&path, "", &counted).unwrap_err() {
            AgentError::Trace { line, field, message, .. } => {
                assert_eq!((line, field.as_deref()), (Some(at), of), "{message}");
                assert!(message.contains(expected), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it is left alone");
    }

    // What JSON can't hold is refused before any work.
    let mut params = SamplingParams::default();
    params.logit_bias.insert(3, f32::NEG_INFINITY);
    let agent = agent.with_options(AgentOptions { params, ..AgentOptions::default() });
    let error = agent.run_traced([Message::user("Go.")], dir.path().join("new.jsonl"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, AgentError::Trace { .. }), "{error}");
}

#[test]
fn nothing_is_written_before_something_happens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let counted = Arc::new(AtomicUsize::new(0));
    let agent = Agent::new(shared(searcher(0)).1, tools(&counted));
    let expected = agent.run_traced([Message::user("Go.")], &path, &mut |_| ()).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    // Two lines and a half.
    let torn = lines[..4].concat() + &lines[4][..lines[4].len() / 2];
    std::fs::write(&path, &torn).unwrap();
    let lost = || ChatModelError::Remote { url: "here".into(), status: None, message: "connection lost".into() };
    let agent = Agent::new(shared(Scripted::fallible(move |_, _| Err(lost()))).1, tools(&counted));
    for _ in 0..2 {
        let mut events = Vec::new();
        let error = agent.resume_with_max_steps(&path, 50, &mut |event| events.push(event)).unwrap_err();
        assert!(matches!(error, AgentError::ChatModel(ChatModelError::Remote { .. })), "{error}");
        assert_eq!(kinds(&events)[0], "dropped");
        assert!(matches!(events[0].kind, AgentEventKind::RecordDropped { line: 5 }), "{events:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), torn);
    }
    assert_eq!(resume(&path, &torn, &counted).unwrap(), expected);
    assert_eq!(records(&std::fs::read_to_string(&path).unwrap()), records(&whole));
}

#[test]
fn another_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let counted = Arc::new(AtomicUsize::new(0));
    let agent = |at: usize| {
        let options = AgentOptions { max_steps: 2, ..AgentOptions::default() };
        Agent::new(shared(searcher(at).with_context(5000)).1, tools(&counted)).with_options(options)
    };
    let ended = agent(0).run_traced([Message::user("Go.")], &path, &mut |_| ()).unwrap();
    assert_eq!((ended.stop, ended.steps), (Stop::StepLimit, 2));
    let before = std::fs::read_to_string(&path).unwrap();
    // One that allows no more changes nothing.
    for max_steps in [0, 1, 2] {
        assert_eq!(agent(2).resume_with_max_steps(&path, max_steps, &mut |_| ()).unwrap(), ended);
    }
    assert_eq!(agent(2).resume(&path, &mut |_| ()).unwrap(), ended);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let longer = agent(2).resume_with_max_steps(&path, 4, &mut |_| ()).unwrap();
    assert_eq!((longer.stop, longer.steps), (Stop::StepLimit, 4));
    // The trace keeps it, and a run that answered has ended.
    assert_eq!(agent(4).resume(&path, &mut |_| ()).unwrap(), longer);
    let answered = agent(4).resume_with_max_steps(&path, 100, &mut |_| ()).unwrap();
    assert_eq!((answered.stop, answered.steps), (Stop::Answer, 10));
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(agent(10).resume_with_max_steps(&path, 1, &mut |_| ()).unwrap(), answered);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    // Killed anywhere, it ends alike.
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for kept in before.lines().count() + 1..lines.len() {
        let trace = lines[..kept].concat();
        std::fs::write(&path, &trace).unwrap();
        let outcome = agent(answers(&trace)).resume_with_max_steps(&path, 100, &mut |_| ()).unwrap();
        assert_eq!(outcome, answered, "{kept} records");
    }
}

#[test]
#[cfg(unix)]
fn what_is_no_regular_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let agent = Agent::new(shared(searcher(0)).1, looker());
    for path in [fifo.as_path(), Path::new("/dev/zero"), dir.path()] {
        let error = agent.resume(path, &mut |_| ()).unwrap_err().to_string();
        assert!(error.ends_with(": is no regular file, and only such can be resumed"), "{error}");
        let error = agent.run_traced([Message::user("Go.")], path, &mut |_| ()).unwrap_err().to_string();
        assert!(error.ends_with(": exists already, and what exists is never overwritten"), "{error}");
    }
}

#[test]
fn counts_that_mean_nothing_do_not_overflow() {
    let most = usize::MAX;
    let usage = ChatUsage { prompt_tokens: most, cached_tokens: most, completion_tokens: most, reasoning_tokens: most };
    let model = Scripted::new(move |n, request| {
        let message =
            if n < 3 { calls("", &[("a", "look", r#"{"at": "sky"}"#)]) } else { Message::assistant("There.") };
        ChatResponse { usage, ..respond(request, message) }
    });
    let agent = Agent::new(shared(model).1, looker());
    let outcome = agent.run([Message::user("Go.")], &mut |_| ()).unwrap();
    assert_eq!((outcome.stop, outcome.usage, outcome.usage.total()), (Stop::Answer, usage, most));
}
