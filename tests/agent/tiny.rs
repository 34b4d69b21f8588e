//! The agent on the embedded checkpoint, with its own tools and those of the example.

#[path = "../../examples/tools/mod.rs"]
mod tools;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use deepseek_v32::agent::{Agent, AgentOptions, ContextManagement, Outcome, Stop};
use deepseek_v32::chat::{Json, Message, Role};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatEvent, ChatModel, ChatRequest, ChatResponse, LocalChat};
use deepseek_v32::environment::Toolbox;
use deepseek_v32::generation::{EngineOptions, SamplingParams};
use deepseek_v32::model::Precision;
use deepseek_v32::weights::LoadOptions;
use tools::expression;

fn chat() -> &'static LocalChat {
    static CHAT: OnceLock<LocalChat> = OnceLock::new();
    CHAT.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32");
        let engine = EngineOptions { prefix_tokens: 8192, ..EngineOptions::default() };
        LocalChat::load(dir, &LoadOptions::default(), Precision::Dequant, engine, |_| ()).unwrap()
    })
}

/// The model, and the requests it had.
#[derive(Default)]
struct Recorder(Mutex<Vec<ChatRequest>>);

impl ChatModel for Recorder {
    fn name(&self) -> &str {
        chat().name()
    }

    fn context_length(&self) -> usize {
        chat().context_length()
    }

    fn count_tokens(&self, request: &ChatRequest) -> Result<Option<usize>, ChatModelError> {
        chat().count_tokens(request)
    }

    fn chat(&self, request: ChatRequest, on_event: &mut dyn FnMut(ChatEvent)) -> Result<ChatResponse, ChatModelError> {
        self.0.lock().unwrap().push(request.clone());
        chat().chat(request, on_event)
    }
}

fn run(tools: Toolbox, options: AgentOptions, question: &str) -> Outcome {
    let agent = Agent::new(Arc::new(Recorder::default()), tools).with_options(options);
    let start = [Message::system("You are a helpful assistant."), Message::user(question)];
    agent.run(start, &mut |_| ()).unwrap()
}

/// A tool with one string parameter that answers with a text.
fn one(name: &str, description: &str, parameter: &'static str, result: &'static str) -> Toolbox {
    let tool = tools::tool(name, description, &[(parameter, "string")]);
    let toolbox = Toolbox::new().with(tool, move |arguments| {
        let argument = arguments.get(parameter).and_then(Json::as_str).ok_or("nothing was asked")?;
        Ok(result.replace('_', argument))
    });
    toolbox.unwrap()
}

#[test]
fn tools_of_a_person_s_own_are_called() {
    // None of these names stands in the recorded conversations.
    for (name, description, parameter, question, result, answer) in [
        (
            "search_forecast",
            "Get the weather in a city.",
            "town",
            "What is the weather in Lisbon?",
            "21 degrees and sunny",
            "The weather in Lisbon is 21 degrees and sunny.",
        ),
        (
            "director_check",
            "Find the chief of a firm.",
            "firm",
            "Who is the boss of Globex?",
            "Hana",
            "The boss of Globex is Hana.",
        ),
        (
            "show_seat",
            "Get the capital city of a country.",
            "nation",
            "What is the capital of Kenya?",
            "Nairobi",
            "The capital of Kenya is Nairobi.",
        ),
        (
            "delivery_query",
            "Get the status of an order by its code.",
            "code",
            "What is the status of order AK748?",
            "shipped",
            "The status of order AK748 is shipped.",
        ),
    ] {
        for thinking in [true, false] {
            let tools = one(name, description, parameter, result);
            let tools = tools
                .with(tools::tool("get_time", "Local clock time for a city.", &[("city", "string")]), |_| {
                    Err("broken".into())
                });
            let options = AgentOptions { thinking, ..AgentOptions::default() };
            let outcome = run(tools.unwrap(), options, question);
            let call = &outcome.messages[2].tool_calls[0];
            assert_eq!((call.name.as_str(), outcome.messages[3].content.as_str()), (name, result));
            assert_eq!((outcome.stop, outcome.steps), (Stop::Answer, 2));
            assert_eq!(outcome.message.unwrap().content, answer);
        }
    }
}

#[test]
fn the_example_s_tools() {
    let answer = |question: &str| {
        let outcome = run(tools::toolbox().unwrap(), AgentOptions::default(), question);
        assert_eq!(outcome.stop, Stop::Answer);
        let calls = outcome.messages.iter().flat_map(|message| &message.tool_calls);
        (calls.map(|call| call.name.clone()).collect::<Vec<_>>(), outcome.message.unwrap().content)
    };
    let (calls, text) = answer("Calculate 177 times 579. And: What is the price of the lamp?");
    assert_eq!(calls, ["calculate_math", "lookup_price"]);
    assert_eq!(text, "177 times 579 is 102483. The price of lamp is 40 euros.");
    let (calls, text) = answer("Convert 5 kilometers to meters.");
    assert_eq!((calls, text.as_str()), (vec!["convert_unit".to_string()], "5 kilometers is 5000 meters."));
    let (calls, text) = answer("What time is it in Tokyo?");
    assert_eq!(calls, ["get_time"]);
    assert!(text.starts_with("It is ") && text.ends_with(" in Tokyo."), "{text}");
    assert_eq!(answer("Hello!"), (vec![], "Hello! How can I help you?".to_string()));
}

/// Two hops: the capital, then the weather there.
fn two_hops() -> Toolbox {
    let capital = one("query_government", "Get the capital city of a country.", "country", "Lezotor");
    let weather = tools::tool("get_weather", "Returns the weather forecast for a place.", &[("city", "string")]);
    capital.with(weather, |_| Ok("35 degrees and rainy".to_string())).unwrap()
}

#[test]
fn token_in_token_out() {
    let model = Arc::new(Recorder::default());
    let agent = Agent::new(model.clone(), two_hops());
    let start = [Message::system("Be brief."), Message::user("What is the weather in the capital of India?")];
    let outcome = agent.run(start, &mut |_| ()).unwrap();
    let text = "The capital of India is Lezotor, and the weather there is 35 degrees and rainy.";
    assert_eq!(outcome.message.as_ref().unwrap().content, text);
    assert_eq!(outcome.steps, 3);

    let prompts = |model: &Recorder| -> Vec<Vec<u32>> {
        let requests = model.0.lock().unwrap();
        requests.iter().map(|request| chat().prompt(request).unwrap().ids).collect()
    };
    let written: Vec<Vec<u32>> = outcome.messages.iter().filter_map(|message| message.written_ids.clone()).collect();
    let read = prompts(&model);
    assert_eq!((read.len(), written.len()), (3, 3));
    for step in 0..2 {
        let begun = [read[step].as_slice(), &written[step]].concat();
        assert!(read[step + 1].starts_with(&begun), "step {step}");
    }
    // Most of a prompt was in the cache.
    assert!(outcome.usage.cached_tokens > read[0].len());

    // A new question drops the reasoning, and only that.
    let more = [outcome.messages, vec![Message::user("What is the weather in Kyiv?")]].concat();
    let outcome = agent.run(more, &mut |_| ()).unwrap();
    assert_eq!(outcome.message.unwrap().content, "The weather in Kyiv is 35 degrees and rainy.");
    let requests = model.0.lock().unwrap();
    let texts: Vec<String> = requests.iter().map(|request| chat().prompt(request).unwrap().text).collect();
    let reasoning = "First I need the capital of India";
    assert_eq!(
        texts.iter().map(|text| text.contains(reasoning)).collect::<Vec<_>>(),
        [false, true, true, false, false]
    );
    assert!(texts[3].contains(text) && texts[4].contains("so I call get_weather.</think>"));
}

/// The messages without the ids of calls, which are different each time.
fn without_call_ids(mut messages: Vec<Message>) -> Vec<Message> {
    for message in &mut messages {
        message.tool_calls.iter_mut().for_each(|call| call.id = None);
        message.tool_call_id = None;
    }
    messages
}

#[test]
fn killed_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let agent = Agent::new(Arc::new(Recorder::default()), two_hops());
    let start = [Message::system("Be brief."), Message::user("What is the weather in the capital of India?")];
    let expected = agent.run_traced(start, &path, &mut |_| ()).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    // The beginning, 3 answers, 2 results, the end.
    assert_eq!(lines.len(), 7);
    for kept in 1..=lines.len() {
        std::fs::write(&path, lines[..kept].concat()).unwrap();
        let outcome = agent.resume(&path, &mut |_| ()).unwrap();
        assert_eq!(without_call_ids(outcome.messages), without_call_ids(expected.messages.clone()), "{kept} records");
        assert_eq!((outcome.steps, outcome.usage.total()), (expected.steps, expected.usage.total()));
    }
}

#[test]
fn contexts() {
    // Full with the first prompt, from which nothing can go.
    let options = |context| AgentOptions { context, context_threshold: 0.1, max_steps: 8, ..AgentOptions::default() };
    let question = "What is the weather in Lisbon?";
    let tools = || one("get_weather", "Get the weather in a city.", "city", "9 degrees and clear");
    let alone = run(tools(), options(ContextManagement::None), question);
    assert_eq!((alone.stop, alone.steps, alone.managed.len()), (Stop::Answer, 2, 0));
    for context in [ContextManagement::DiscardAll, ContextManagement::Discard75, ContextManagement::Summary] {
        let outcome = run(tools(), options(context), question);
        // It forgets what it did as soon as it has done it, so it never comes to an answer.
        assert!(!outcome.managed.is_empty(), "{context}");
        assert!(outcome.managed.iter().all(|managed| managed.tokens_after < Some(managed.tokens_before)), "{context}");
        assert!(outcome.messages.iter().filter(|message| message.role == Role::User).count() == 1);
        assert!(outcome.steps <= 8);
    }
    let params = SamplingParams::sampled(0.05, 1);
    let options = AgentOptions { params, ..options(ContextManagement::ParallelFewestStep { runs: 3 }) };
    let parallel = run(tools(), options, question);
    assert_eq!((parallel.stop, parallel.steps, parallel.runs.len()), (Stop::Answer, 6, 3));
    assert_eq!(parallel.message.unwrap().content, alone.message.unwrap().content);
    // A question longer than the context.
    let long = run(tools(), AgentOptions::default(), &"weather in Lisbon ".repeat(600));
    assert_eq!((long.stop, long.steps), (Stop::ContextFull, 0));
}

#[test]
fn expressions() {
    for (text, value) in [
        ("177 * 579", 102_483.0),
        ("2 * (3 + 4) ^ 2", 98.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("10 - 4 - 3", 3.0),
        ("12 plus 30", 42.0),
        ("7 % 4 / 2", 1.5),
        (" 1.5×4 ", 6.0),
    ] {
        assert_eq!(expression::evaluate(text), Ok(value), "{text}");
    }
    let deep = "(".repeat(100_000);
    for bad in ["", "1 +", "(1", "1 / 0", "9 ^ 9 ^ 9", "two", "1.2.3", "1 2", ")", "7 & 1", &deep, &"-".repeat(100_000)]
    {
        assert!(expression::evaluate(bad).is_err(), "{}", &bad[..bad.len().min(20)]);
    }
}
