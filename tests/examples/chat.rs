//! The examples `tool_calling` and `chat`, with the embedded checkpoint.

#![cfg(unix)]

use std::fs::{self, File};

use crate::checkpoint_writer::tiny_v32;
use crate::examples_support::{example, failed, fails, with_closed_output, with_input, written};
use serde_json::{Value, json};

fn tool_calling(args: &[&str]) -> String {
    written(example("tool_calling").args(args).output().unwrap())
}

fn chat(args: &[&str], input: &str) -> String {
    written(with_input(example("chat").args(args), input))
}

#[test]
fn recorded_conversations() {
    let golden = tiny_v32().join("golden.json");
    let output = tool_calling(&["--replay", golden.to_str().unwrap()]);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 37);
    assert!(lines[..36].iter().all(|line| line.ends_with(" calls: identical")), "{output}");
    assert!(lines[36].starts_with("36 of 36 conversations identical"), "{output}");

    // One that differs is told.
    let mut recording: Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let samples = recording["samples"].as_array_mut().unwrap();
    samples.truncate(2);
    samples[1]["parsed"]["content"] = json!("Something else.");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("golden.json");
    let name = file.to_str().unwrap();
    fs::write(&file, recording.to_string()).unwrap();
    let output = example("tool_calling").args(["--replay", name]).output().unwrap();
    failed(&output, 1, &[name, "1 conversations differ"], name);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("the message differs\n1 of 2 conversations identical"), "{text}");

    for (text, part) in [("nope", "expected"), (r#"{"samples": []}"#, "`samples`"), (r#"{"samples": [{}]}"#, "`mode`")]
    {
        fs::write(&file, text).unwrap();
        fails(example("tool_calling").args(["--replay", name]), 1, &[name, part]);
    }
}

#[test]
fn the_agent_s_default_question() {
    let expected = "\
> Calculate 177 times 579. And: What is the price of the lamp?
I need two calls, calculate_math and lookup_price.
→ calculate_math({\"expression\": \"177 * 579\"})
→ lookup_price({\"article\": \"lamp\"})
← calculate_math: 102483
← lookup_price: 40 euros
I have both results, so I can answer.
177 times 579 is 102483. The price of lamp is 40 euros.

answer: 2 steps, 1060 prompt tokens (512 cached), 137 generated
";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        // The calls run at the same time: either may end first.
        lines[4..6].sort();
        lines
    };
    let output = tool_calling(&[]);
    assert_eq!(sorted(&output), sorted(expected));
    // No terminal, no colours.
    assert!(!output.contains('\x1b'));
    let turns = tool_calling(&["--no-thinking", "--prompt", "What time is it in Tokyo?", "--prompt", "Thanks!"]);
    assert!(turns.contains("→ get_time({\"city\": \"Tokyo\"})\n← get_time: "), "{turns}");
    assert_eq!(turns.matches("\nanswer: ").count(), 2, "{turns}");
}

/// One tool with a result, one whose results are typed.
const OWN_TOOLS: &str = r#"[
    {"type": "function", "function": {"name": "query_government", "description": "Get the capital city of a country.",
        "parameters": {"type": "object", "properties": {"country": {"type": "string"}}, "required": ["country"]}},
        "result": "Lezotor"},
    {"function": {"name": "get_weather", "description": "Returns the weather forecast for a place.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]"#;

#[test]
fn a_person_s_own_tools() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tools.json");
    let name = file.to_str().unwrap();
    fs::write(&file, OWN_TOOLS).unwrap();
    let args = ["--tools", name, "--no-thinking", "--prompt", "What is the weather in the capital of India?"];
    let mut command = example("tool_calling");
    let output = with_input(command.args(args), "35 degrees and rainy\r\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "result of get_weather({\"city\":\"Lezotor\"})? ");
    let expected = "\
> What is the weather in the capital of India?
→ query_government({\"country\": \"India\"})
← query_government: Lezotor
→ get_weather({\"city\": \"Lezotor\"})
← get_weather: 35 degrees and rainy
The capital of India is Lezotor, and the weather there is 35 degrees and rainy.
";
    assert_eq!(written(output).split_once("\nanswer: 3 steps, ").unwrap().0, expected);
    // Nobody there to type.
    assert!(tool_calling(&args).contains("← get_weather: Error: nobody answered\n"));

    for (text, part) in [
        ("nope", "not JSON"),
        ("3", "is 3, expected a list of tools"),
        ("[]", "is [], expected a list of tools"),
        ("[3]", "tool 0: is 3, expected an object"),
        ("[{}]", "tool 0: has no `function`"),
        (r#"[{"function": 3}]"#, "tool 0: a tool's `function` is 3, expected an object"),
        (r#"[{"function": {}}]"#, "tool 0: tool \"\": has no name"),
        (r#"[{"function": {"name": "a"}}, {"function": {"name": "a"}}]"#, "tool 1: tool \"a\": is defined twice"),
        (r#"[{"type": "custom", "custom": {"name": "a"}}]"#, "tool 0: has no `function`"),
    ] {
        fs::write(&file, text).unwrap();
        fails(example("tool_calling").args(["--tools", name]), 1, &[name, part]);
    }
}

#[cfg(feature = "client")]
#[test]
fn a_model_behind_a_server() {
    use crate::agent_client_support::{Server, delta, end, stream};
    let call = r#"{"tool_calls": [{"index": 0, "id": "c0", "type": "function",
        "function": {"name": "lookup_price", "arguments": "{\"article\": \"lamp\"}"}}]}"#;
    let asks = delta(r#"{"role": "assistant", "reasoning_content": "Let me look."}"#) + &delta(&call.replace('\n', ""));
    let answers = delta(r#"{"role": "assistant", "content": "40 euros."}"#) + &end("stop");
    let server = Server::new(vec![stream(asks + &end("tool_calls"), 64), stream(answers, 64)]);
    let mut command = example("tool_calling");
    command.args(["--base-url", &server.url, "--model", "some-model", "--prompt", "How much is the lamp?"]);
    let expected = "\
> How much is the lamp?
Let me look.
→ lookup_price({\"article\": \"lamp\"})
← lookup_price: 40 euros
40 euros.

answer: 2 steps, 22 prompt tokens (8 cached), 14 generated
";
    assert_eq!(written(command.env("OPENAI_API_KEY", "secret").output().unwrap()), expected);
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|request| request.head.to_lowercase().contains("authorization: bearer secret")));
    assert_eq!(received[0].body["model"], "some-model");
    assert_eq!(received[0].body["tools"].as_array().unwrap().len(), 4);
    assert_eq!(received[1].body["messages"][3]["content"], "40 euros");
    fails(example("tool_calling").args(["--base-url", "nowhere", "--model", "m"]), 1, &["--base-url is nowhere"]);
}

#[cfg(not(feature = "client"))]
#[test]
fn a_server_takes_a_feature() {
    fails(
        example("tool_calling").args(["--base-url", "http://x", "--model", "m"]),
        1,
        &["--base-url", "--features client"],
    );
    fails(example("tool_calling").args(["--base-url", "http://x"]), 2, &["--model <MODEL>"]);
}

#[test]
fn the_agent_s_trace() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.jsonl");
    let args = ["--prompt", "What time is it in Tokyo?", "--trace", trace.to_str().unwrap()];
    let first = tool_calling(&args);
    fails(example("tool_calling").args(args), 1, &[args[3], "exists"]);
    let again = tool_calling(&["--trace", args[3], "--resume"]);
    // What has ended is not done again, but told.
    assert!(first.ends_with(&again) && again.lines().count() == 3 && !again.starts_with('\n'), "{again}");
}

/// A chat that does not fit the context: what each strategy of context management makes of it.
#[test]
fn contexts() {
    let table = tool_calling(&["--contexts", "--no-thinking"]);
    assert!(
        table.starts_with("A chat of 14 questions, a context of 1536 tokens:\n\n| context | right answers |"),
        "{table}"
    );
    let rows: Vec<Vec<&str>> = table.lines().skip(4).map(|row| row.split('|').map(str::trim).collect()).collect();
    let column = |at: usize| rows.iter().map(|row| row[at]).collect::<Vec<_>>();
    let strategies = ["none", "summary", "discard-75", "discard-all", "parallel-fewest-step:2, temperature 0.7"];
    assert_eq!(column(1), strategies, "{table}");
    let number = |row: usize, at: usize| rows[row][at].parse::<usize>().unwrap();
    let (none, parallel) = (0, 4);
    // Left alone, the context fills; what discards steps comes to the end and answers more.
    assert!(rows[none][3].starts_with("context_full, question ") && rows[none][7] == "never", "{table}");
    for row in 1..4 {
        assert_eq!(column(3)[row], "answer, question 14", "{table}");
        assert!(number(row, 2) > number(none, 2) + 3, "{table}");
    }
    // The embedded checkpoint's summaries say little and take tokens, but they shorten the conversation.
    assert_eq!([rows[1][7], rows[2][7], rows[3][7]], ["3 × summary", "2 × discard-75", "2 × discard-all"], "{table}");
    assert!(number(1, 4) > number(3, 4), "{table}");
    // Parallel runs cost as many times more, and fill their contexts as one alone does.
    assert!(number(parallel, 5) > number(none, 5) * 3 / 2, "{table}");
    assert!(rows[parallel][3].starts_with("context_full, question ") && rows[parallel][7] == "never", "{table}");
    fails(example("tool_calling").args(["--contexts", "--prompt", "Hello!"]), 2, &["'--contexts' cannot be used with"]);
}

#[test]
fn the_agent_s_options() {
    let long = "9".repeat(10_000);
    let in_checkpoint = tiny_v32().join("trace.jsonl");
    for (args, status, part) in [
        (&["--temperature", "-1"][..], 1, "--temperature is -1: expected a finite number >= 0"),
        (&["--context", "foo"], 2, "\"foo\", expected none, summary, discard-75, discard-all"),
        (&["--context", "parallel-fewest-step:300"], 1, "--context is 300: expected a number from 1 to 256"),
        (&["--steps", &long], 2, "--steps"),
        (&["--resume"], 2, "--trace <FILE>"),
        (&["--trace", "x", "--prompt", "a", "--prompt", "b"], 1, "there are 2 prompts"),
        (&["--trace", in_checkpoint.to_str().unwrap()], 1, "a file of the checkpoint's folder"),
        (&["--model", "/no\nwhere"], 1, "/no\\nwhere: no such folder"),
        (&["--replay", "/nowhere"], 1, "/nowhere: No such file"),
    ] {
        fails(example("tool_calling").args(args), status, &[part]);
    }
}

#[test]
fn a_chat() {
    let told = chat(&[], "Hello!\n\n/tools\n/thinking off\nWhat is the price of the lamp?\r\n/quit\nnever\n");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..2], ["No tool is needed here.", "Hello! How can I help you?"], "{told}");
    assert!(
        lines[2].contains(" tokens read (0 of them known), ") && lines[2].ends_with(" of them thinking)"),
        "{told}"
    );
    assert_eq!(lines[3], "calculate_math: Calculator for two numbers.");
    let rest = [
        "tools are on",
        "thinking is off",
        "→ lookup_price({\"article\": \"lamp\"})",
        "← lookup_price: 40 euros",
        "The price of lamp is 40 euros.",
    ];
    assert_eq!(lines[7..12], rest, "{told}");
    assert!(lines[12].ends_with(" (0 of them thinking)"), "{told}");
    assert_eq!(lines.len(), 13, "{told}");
    // No terminal: no prompt, no colours.
    assert!(!told.contains('\x1b') && !told.contains("> "), "{told}");
}

#[test]
fn a_chat_that_ends() {
    assert_eq!(chat(&[], ""), "");
    assert_eq!(chat(&[], "\n/quit"), "");
    let said = chat(&["--prompt", "Hello!", "--thinking", "off", "--tools", "off"], "/quit");
    assert_eq!(said.lines().next(), Some("Hello! How can I help you?"));
    assert_eq!(said.lines().count(), 2, "{said}");
    let help = chat(&[], "/help\n/system\n/system Be brief.\n/system\n/tools off\n/new\n");
    assert!(
        help.contains("\n/quit ") && help.contains("\n\nBe brief.\n") && help.ends_with("tools are off\n"),
        "{help}"
    );
}

/// What does not fit the context does not stay in the way of what is said next.
#[test]
fn a_chat_goes_on_after_what_does_not_fit() {
    let long = "a ".repeat(3000);
    let output = chat(&[], &format!("{long}\nweather in Lisbon\n"));
    assert_eq!(output.matches("[ended: ").count(), 1, "{output}");
    assert!(output.starts_with("[ended: context_full") && output.contains("Sorry, none of my tools"), "{output}");
    failed(&example("chat").args(["-p", &long]).output().unwrap(), 3, &["no answer: context_full"], "a long prompt");
}

#[test]
fn a_chat_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.json");
    chat(&["--system", "Be brief."], &format!("Hello!\n/save {}\n", file.display()));
    let saved: Vec<Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let said: Vec<_> = saved.iter().map(|message| (message["role"].as_str(), message["content"].as_str())).collect();
    let expected = [("system", "Be brief."), ("user", "Hello!"), ("assistant", "Hello! How can I help you?")];
    assert_eq!(said, expected.map(|(role, content)| (Some(role), Some(content))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_chat_s_mistakes() {
    let own_file = format!("/save {}", tiny_v32().join("config.json").display());
    for (input, part) in [
        ("/nonsense\nHello!", "/nonsense: no such command; /help lists them"),
        ("/tools maybe", "/tools maybe: expected on or off"),
        ("/save", "/save needs the name of a file"),
        ("/save /no/where", "/save /no/where: No such file"),
        (&own_file, "a file of the checkpoint's folder"),
    ] {
        failed(&with_input(&mut example("chat"), input), 1, &[part], input);
    }
    // Of what can't be read, the chat says so and goes on.
    for (line, problem) in
        [(b"price \xff\xfe".to_vec(), "is not UTF-8"), (vec![b'x'; 20 << 20], "is longer than 16 MB")]
    {
        let output = with_input(example("chat").args(["--thinking", "off"]), [&line, &b"\nHello!"[..]].concat());
        failed(&output, 0, &["standard input: line 1 ", problem], problem);
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("Hello! How can I help you?\n"));
    }
    for (args, status, part) in [
        (["-n", "0"], 1, "--max-tokens is 0: expected at least 1"),
        (["-n", "-3"], 2, "'--max-tokens <MAX_TOKENS>'"),
        (["--temperature", "nan"], 1, "--temperature is NaN"),
        (["--top-p", "2"], 1, "--top-p is 2"),
        (["--chat-format", "v9"], 2, "\"v9\", expected one of v3, v3-dec2024, v3.1, v3.2"),
        (["--thinking", "maybe"], 2, "[possible values: on, off]"),
        (["--model", "/no\nwhere"], 1, "/no\\nwhere: no such folder"),
    ] {
        fails(example("chat").args(args), status, &[part]);
    }
}

#[test]
fn output_that_nobody_takes() {
    let (first, output) = with_closed_output(&mut example("chat"), "/help\n".repeat(20_000));
    assert_eq!((first.as_slice(), output.status.code()), (&b"/tools [on|off] "[..], Some(0)));
    assert!(output.stderr.is_empty());
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let mut command = example("chat");
        fails(
            command.args(["--prompt", "Hello!"]).stdout(full.try_clone().unwrap()),
            1,
            &["standard output: No space"],
        );
        fails(example("tool_calling").stdout(full), 1, &["standard output: No space"]);
    }
}
