//! The example `chat_template`: prompts, messages and records as the vectors have them, errors of one line.

#![cfg(unix)]

use std::fs::{self, File};
use std::path::PathBuf;

use crate::examples_support::{example, failed, fails, with_closed_output, with_input, written};
use deepseek_v32::chat::Json;

const EOS: &str = "<｜end▁of▁sentence｜>";

fn data(file: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat").join(file)).unwrap()
}

/// What the program writes when it is given this.
fn filter(args: &[&str], input: impl AsRef<[u8]>) -> String {
    written(with_input(example("chat_template").args(args), input))
}

fn records(text: &str) -> Vec<Json> {
    text.split_terminator('\n').map(|line| Json::parse(line).unwrap()).collect()
}

fn text<'a>(record: &'a Json, key: &str) -> Option<&'a str> {
    record.get(key).and_then(Json::as_str)
}

/// The answers to records; each must be a name with an output or an error.
fn answers(args: &[&str], input: &str) -> Vec<Json> {
    let answers = records(&filter(args, input));
    for answer in &answers {
        let Json::Object(entries) = answer else { panic!("{answer}") };
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        assert!(keys == ["name", "output"] || keys == ["name", "error"], "{answer}");
        if let Some(error) = answer.get("error") {
            assert!(error.as_str().is_some_and(|error| !error.is_empty() && !error.contains('\n')), "{answer}");
        }
    }
    answers
}

/// The names of records with a tag, and what is expected instead of what the published code makes of them.
fn own_rule(record: &Json) -> bool {
    let tagged = |name: &str| match record.get("tags") {
        Some(Json::Array(tags)) => tags.iter().any(|tag| tag.as_str() == Some(name)),
        _ => false,
    };
    // `tests/chat/encode.rs` has our rules.
    tagged("python-quirk") || (tagged("developer-dropped") && record.get("expected_error").is_some())
}

#[test]
fn every_vector() {
    for (file, count, own) in [
        ("encode.jsonl", 334, 18),
        ("helpers.jsonl", 42, 0),
        ("jinja_v3_v31.jsonl", 66, 0),
        ("jinja_tools.jsonl", 50, 0),
        ("parse.jsonl", 375, 0),
        ("stream.jsonl", 264, 0),
        ("official/official.jsonl", 8, 0),
    ] {
        let input = data(file);
        let (records, answers) = (records(&input), answers(&["--jsonl"], &input));
        assert_eq!((records.len(), answers.len()), (count, count), "{file}");
        let mut skipped = 0;
        for (record, answer) in records.iter().zip(&answers) {
            assert_eq!(record.get("name"), answer.get("name"));
            if own_rule(record) {
                skipped += 1;
                continue;
            }
            assert_eq!(record.get("expected"), answer.get("output"), "{answer}");
            assert_eq!(record.get("expected_error").is_some(), answer.get("error").is_some(), "{answer}");
        }
        assert_eq!(skipped, own, "{file}");
    }
}

/// In tolerant mode every completion is a message, and pieces give the same one as the whole.
#[test]
fn tolerant_streams() {
    let input = data("stream.jsonl");
    let streamed = answers(&["--jsonl", "--tolerant"], &input);
    let whole: String = records(&input)
        .iter()
        .map(|record| {
            let Some(Json::Array(chunks)) = record.get("chunks") else { panic!("{record}") };
            let input: String = chunks.iter().map(|chunk| chunk.as_str().unwrap()).collect();
            let entry = |key: &str, value: Json| (key.to_string(), value);
            let (name, args) = (record.get("name").unwrap().clone(), record.get("args").unwrap().clone());
            let entries = [entry("name", name), entry("args", args), entry("input", Json::String(input))];
            format!("{}\n", Json::Object(entries.into()))
        })
        .collect();
    assert_eq!(streamed, answers(&["--jsonl", "--tolerant"], &whole));
    assert!(streamed.iter().all(|answer| answer.get("output").is_some()));
    let all = answers(&["--jsonl", "--tolerant"], &data("parse.jsonl"));
    assert!(all.iter().all(|answer| answer.get("output").is_some()));
}

/// A call that cannot be read is told; without tools, markup is text.
#[test]
fn calls_that_are_none() {
    let field = |name: &str| {
        std::fs::read_to_string(format!("{}/tests/data/field/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let told = |args: &[&str], text: &str| Json::parse(&filter(args, text)).unwrap();
    let entry = |told: &Json, key: &str| told.get(key).and_then(Json::as_str).map(str::to_string);
    let malformed = field("malformed_call/malformed.txt");
    let output = told(&["--parse", "--tolerant"], &malformed);
    assert_eq!(output.get("tool_calls"), Some(&Json::Array(Vec::new())));
    assert_eq!(entry(&output, "content"), Some(malformed));
    assert!(entry(&output, "tool_call_error").unwrap().contains("neither a parameter"), "{output}");
    // So are tags alone, and what was dropped.
    let list = |texts: &[&str]| Json::Array(texts.iter().map(|text| Json::String(text.to_string())).collect());
    let output = told(&["--parse", "--tolerant"], "</｜DSML｜function_calls>\n");
    assert_eq!(entry(&output, "content").as_deref(), Some("</｜DSML｜function_calls>\n"));
    assert!(entry(&output, "tool_call_error").is_some());
    assert_eq!(output.get("dropped"), Some(&list(&["</｜DSML｜function_calls>\n"])));
    let output = told(&["--parse", "--tolerant"], "a ｜DSML｜b</｜DSML｜invoke>");
    assert_eq!((entry(&output, "content").as_deref(), entry(&output, "tool_call_error")), (Some("a b"), None));
    assert_eq!(output.get("dropped"), Some(&list(&["｜DSML｜", "</｜DSML｜invoke>"])));
    let quote = field("quoted_markup/quote.txt");
    let output = told(&["--parse", "--tolerant", "--no-tools"], &quote);
    assert_eq!((entry(&output, "content"), entry(&output, "tool_call_error")), (Some(quote), None));
    let works = filter(&["--encode"], field("empty_arguments/works.json"));
    for name in ["empty", "blanks", "null", "missing"] {
        for args in [&["--encode"][..], &["--encode", "--tolerant"]] {
            assert_eq!(filter(args, field(&format!("empty_arguments/{name}.json"))), works, "{args:?} {name}");
        }
    }
    assert_eq!(filter(&["--encode"], format!("\u{feff}{}", field("empty_arguments/works.json"))), works);
}

/// One file's records, each given on its own with the flags that its `args` stand for.
#[test]
fn one_at_a_time() {
    let (encode, parse) = (data("encode.jsonl"), data("parse.jsonl"));
    // Arguments that are absent are refused in records only.
    let own = |record: &Json| own_rule(record) || text(record, "name") == Some("tc_missing_arguments");
    let picked = |text: &str| records(text).into_iter().filter(|record| !own(record)).step_by(23).collect();
    let picked: [Vec<Json>; 2] = [picked(&encode), picked(&parse)];
    for (what, records) in ["--encode", "--parse"].iter().zip(picked) {
        for record in records {
            let setting = |key: &str| record.get("args").and_then(|args| args.get(key));
            let mut args = vec![*what];
            args.extend((setting("thinking_mode") == Some(&Json::String("thinking".into()))).then_some("--thinking"));
            args.extend((setting("drop_thinking") == Some(&Json::Bool(false))).then_some("--keep-thinking"));
            args.extend((setting("add_default_bos_token") == Some(&Json::Bool(false))).then_some("--no-bos"));
            let input = record.get("input").unwrap();
            let input = input.as_str().map_or_else(|| input.to_string(), str::to_string);
            let output = with_input(example("chat_template").args(&args), input);
            match record.get("expected") {
                // A prompt has no line break behind it.
                Some(Json::String(expected)) => assert_eq!(&written(output), expected, "{record}"),
                Some(expected) => assert_eq!(written(output), format!("{expected}\n"), "{record}"),
                None => _ = failed(&output, 1, &[], &record.to_string()),
            }
        }
    }
}

#[test]
fn flags() {
    let asked = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a",
        "reasoning_content": "r"}, {"role": "user", "content": "q2"}]}"#;
    let prompt = |args: &[&str]| filter(&[&["--encode"], args].concat(), asked);
    const BOS: &str = "<｜begin▁of▁sentence｜>";
    let turns = format!("<｜User｜>q<｜Assistant｜></think>a{EOS}<｜User｜>q2<｜Assistant｜>");
    assert_eq!(prompt(&[]), format!("{BOS}{turns}</think>"));
    assert_eq!(prompt(&["--thinking"]), format!("{BOS}{turns}<think>"));
    assert_eq!(prompt(&["--thinking", "--no-bos"]), format!("{turns}<think>"));
    // V3.2 writes no reasoning before the last question.
    assert_eq!(prompt(&["--thinking", "--keep-thinking"]), prompt(&["--thinking"]));
    assert_eq!(prompt(&["--version", "v3.2"]), prompt(&[]));
    assert_eq!(prompt(&["--version", "v3.1"]), format!("{BOS}{turns}</think>"));
    let v3 = format!("{BOS}<｜User｜>q<｜Assistant｜>a{EOS}<｜User｜>q2<｜Assistant｜>");
    assert_eq!(prompt(&["--version", "v3"]), v3);
    assert_eq!(prompt(&["--version", "v3-dec2024"]), v3);
    assert_eq!(prompt(&["--version", "v3", "--thinking"]), format!("{v3}<think>\n"));
    // Only what follows the context is written.
    let more =
        r#"{"context": [{"role": "user", "content": "q"}], "messages": [{"role": "assistant", "content": "a"}]}"#;
    assert_eq!(filter(&["--encode"], more), format!("a{EOS}"));
    // What stands beside the messages is that of the first system message, or of an empty one before all.
    let tools = r#""tools": [{"type": "function", "function": {"name": "f"}}], "response_format": {"type": "object"}"#;
    let user = r#"{"role": "user", "content": "q"}"#;
    for (system, content) in [(r#"{"role": "system", "content": "S"}, "#, "S"), ("", "")] {
        let inside = format!(r#"[{{"role": "system", "content": "{content}", {tools}}}, {user}]"#);
        let beside = format!(r#"{{"messages": [{system}{user}], {tools}}}"#);
        assert_eq!(filter(&["--encode"], beside), filter(&["--encode"], inside));
    }
    let later = format!(r#"{{"context": [{user}], "messages": [{{"role": "assistant", "content": "a"}}], {tools}}}"#);
    assert_eq!(filter(&["--encode"], later), format!("a{EOS}"));
    let list = r#"[{"role": "user", "content": "q"}]"#;
    assert_eq!(filter(&["--encode", "--no-bos"], list), "<｜User｜>q<｜Assistant｜></think>");

    let message = |args: &[&str], input: &str| {
        let message = Json::parse(&filter(&[&["--parse"], args].concat(), input)).unwrap();
        let calls = match message.get("tool_calls") {
            Some(Json::Array(calls)) => calls.iter().map(|call| call.get("function").unwrap().to_string()).collect(),
            _ => panic!("{message}"),
        };
        let field = |key: &str| text(&message, key).unwrap().to_string();
        (field("reasoning_content"), field("content"), calls)
    };
    let none = Vec::<String>::new;
    let own = |text: &str| text.to_string();
    assert_eq!(message(&[], &format!("a\n{EOS}")), (own(""), own("a\n"), none()));
    assert_eq!(message(&["--thinking"], &format!("r</think>a{EOS}")), (own("r"), own("a"), none()));
    assert_eq!(message(&["--tolerant"], "a"), (own(""), own("a"), none()));
    assert_eq!(message(&["--tolerant", "--thinking"], "r"), (own("r"), own(""), none()));
    let called = vec![r#"{"name":"f","arguments":"{\"a\": 1}"}"#.to_string()];
    let v31 = format!(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{{\"a\": 1}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>{EOS}"
    );
    assert_eq!(message(&["--version", "v3.1"], &v31), (own(""), own(""), called.clone()));
    let v3 = v31.replace("f<｜tool▁sep｜>{\"a\": 1}", "function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```");
    assert_eq!(message(&["--version", "v3"], &v3), (own(""), own(""), called.clone()));
    assert_eq!(message(&["--version", "v3-dec2024"], &v3), (own(""), own(""), called));

    // The published encoder takes arguments as text.
    let call = r#"{"messages": [{"role": "user", "content": ""}, {"role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}]}"#;
    let output = with_input(example("chat_template").arg("--encode"), call);
    failed(&output, 1, &["messages[1]", "`arguments` are {\"a\":1}, expected text"], call);
    assert!(filter(&["--encode", "--tolerant"], call).contains("name=\"a\" string=\"false\">1</"));
}

#[test]
fn odd_input() {
    let nested = "[".repeat(100_000);
    let deep = format!("{}1{}", "{\"messages\":".repeat(200), "}".repeat(200));
    let number = "1".repeat(100_000);
    for (args, input, parts) in [
        ("--encode", "", &["stdin", "JSON"][..]),
        ("--encode", "nope", &["stdin", "JSON", "line 1 column 2"]),
        ("--encode", &nested, &["stdin"]),
        ("--encode", &deep, &["stdin", "nests deeper than 128 levels at line 1 column 1537"]),
        ("--encode", &number, &["the conversation is 111", "..., expected an object with `messages`"]),
        ("--encode", "{}", &["no `messages`"]),
        ("--encode", r#"{"messages": 3}"#, &["`messages` is 3, expected a list"]),
        ("--encode", r#"{"messages": [], "context": {"a": 1}}"#, &["`context` is {\"a\":1}, expected a list"]),
        ("--encode", "[[]]", &["messages[0]: is [], expected an object"]),
        ("--encode", r#"[{"role": "user", "content": "q"}, {"content": "q"}]"#, &["messages[1]: missing field `role`"]),
        ("--encode", r#"[{"role": "wi\nzard"}]"#, &["messages[0]", "role is \"wi\\nzard\", expected system"]),
        ("--encode", r#"[{"role": "user", "content": 5}]"#, &["messages[0]: content is 5, expected a string"]),
        ("--encode", r#"{"messages": [], "tools": {}}"#, &["`tools` is {}, expected a list"]),
        ("--encode", r#"{"messages": [], "tools": [{"type": "function"}]}"#, &["tools[0]: missing field `function`"]),
        ("--encode", r#"[{"role": "user", "tool_calls": 3}]"#, &["messages[0]: invalid type: integer `3`"]),
        ("--encode --thinking", r#"[{"role": "user"}, {"role": "assistant"}]"#, &["message 1: `reasoning_content`"]),
        ("--parse", "", &["completion, byte 0: expected the end-of-sentence token"]),
        ("--parse --thinking", "hm", &["completion, byte 2: expected the end of the reasoning"]),
    ] {
        let output = with_input(example("chat_template").args(args.split(' ')), input);
        failed(&output, 1, parts, &format!("{args} {}", &input[..input.len().min(100)]));
        assert!(output.stdout.is_empty());
    }
    for args in ["--encode", "--parse"] {
        let output = with_input(example("chat_template").arg(args), b"\xff\xfe");
        failed(&output, 1, &["stdin: not UTF-8"], args);
    }
    for none in ["null", "false", "{}", "[]", "\"\""] {
        let input = format!("{{\"messages\": [{{\"role\": \"system\", \"content\": \"s\"}}], \"context\": {none}}}");
        assert_eq!(filter(&["--encode"], &input), "<｜begin▁of▁sentence｜>s");
    }
    // A long conversation is written whole.
    let long = format!("[{{\"role\": \"user\", \"content\": \"{}\"}}]", "x".repeat(5_000_000));
    assert_eq!(filter(&["--encode", "--no-bos"], &long).len(), 5_000_000 + "<｜User｜><｜Assistant｜></think>".len());
    let endless = File::open("/dev/zero").unwrap();
    fails(example("chat_template").arg("--parse").stdin(endless), 1, &["stdin: longer than 64 MB"]);

    for (args, parts) in [
        (&[][..], &["<--encode|--parse|--jsonl>"][..]),
        (&["--encode", "--parse"], &["'--encode' cannot be used with '--parse'"]),
        (&["--jsonl", "--parse", "--encode"], &["'--parse' cannot be used with '--encode'"]),
        (&["--encode", "--version", "v9"], &["\"v9\", expected one of v3, v3-dec2024, v3.1, v3.2"]),
        (&["--encode", "--version", "v\n9"], &["\"v\\n9\", expected one of"]),
        (&["--encode", "--nonsense"], &["'--nonsense'"]),
        (&["--encode", "file"], &["'file'"]),
    ] {
        fails(example("chat_template").args(args), 1, parts);
    }
}

#[test]
fn bad_records() {
    let lines: &[&[u8]] = &[
        r#"{"name": "first", "input": "hi<｜end▁of▁sentence｜>"}"#.as_bytes(),
        br#"{"name": "strict", "input": "hi"}"#,
        b"nope",
        b"\xff",
        b"",
        b"[]",
        br#"{"name": "number", "input": NaN}"#,
        br#"{"input": 3}"#,
        br#"{"name": 7, "input": []}"#,
        br#"{"name": "none"}"#,
        br#"{"name": "flag", "args": {"drop_thinking": "no"}, "messages": []}"#,
        br#"{"name": "args", "args": [], "messages": []}"#,
        br#"{"name": "version", "args": {"version": "v9"}, "messages": []}"#,
        br#"{"name": "mode", "args": {"thinking_mode": "both"}, "messages": []}"#,
        br#"{"name": "chunks", "chunks": ["a", 1]}"#,
        br#"{"name": "fn", "fn": "to_yaml", "input": 1}"#,
        br#"{"name": "bare", "mode": "thinking", "version": "v3.1", "messages": [{"role": "user", "content": "q"}]}"#,
        br#"{"name": "tolerant", "tolerant": true, "thinking": true, "input": "r</think>hi"}"#,
        r#"{"name": "last", "input": "\u2028<｜end▁of▁sentence｜>"}"#.as_bytes(),
    ];
    let output = written(with_input(example("chat_template").arg("--jsonl"), lines.join(&b'\n')));
    let hi = r#"{"role":"assistant","content":"hi","reasoning_content":"","tool_calls":[]}"#;
    let expected = [
        format!(r#""first","output":{hi}"#),
        r#""strict","error":"completion, byte 2: expected the end-of-sentence token or a tool block""#.to_string(),
        r#"null,"error":"line 3: not JSON: expected ident at column 2""#.to_string(),
        r#"null,"error":"line 4: not UTF-8: invalid utf-8 sequence of 1 bytes from index 0""#.to_string(),
        r#"null,"error":"line 6: is [], expected a record""#.to_string(),
        r#""number","error":"not JSON: expected value at column 29""#.to_string(),
        r#"null,"error":"line 8: `input` is 3, expected a conversation or a completion""#.to_string(),
        r#"7,"output":"<｜begin▁of▁sentence｜>""#.to_string(),
        r#""none","error":"there is no `input`""#.to_string(),
        r#""flag","error":"`drop_thinking` is \"no\", expected true or false""#.to_string(),
        r#""args","error":"`args` is [], expected an object""#.to_string(),
        r#""version","error":"unknown chat format \"v9\", expected one of v3, v3-dec2024, v3.1, v3.2""#.to_string(),
        r#""mode","error":"`thinking_mode` is \"both\", expected \"thinking\" or \"chat\"""#.to_string(),
        r#""chunks","error":"`chunks` is [\"a\",1], expected strings""#.to_string(),
        r#""fn","error":"no part of the format is named \"to_yaml\"""#.to_string(),
        r#""bare","output":"<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>""#.to_string(),
        format!(r#""tolerant","output":{}"#, hi.replace(r#""reasoning_content":"""#, r#""reasoning_content":"r""#)),
        format!(r#""last","output":{}"#, hi.replace("hi", "\\u2028")),
    ];
    let found: Vec<&str> = output.lines().collect();
    let expected: Vec<String> = expected.iter().map(|rest| format!("{{\"name\":{rest}}}")).collect();
    assert_eq!(found, expected);
    // A record's own levels count: `function` is the sixth.
    let tool = |levels: usize| {
        let function = format!("{}1{}", r#"{"a": "#.repeat(levels), "}".repeat(levels));
        format!(
            r#"{{"name": "deep", "input": {{"messages": [{{"role": "system", "tools": [{{"function": {function}}}]}}]}}}}"#
        )
    };
    assert!(filter(&["--jsonl"], tool(121)).starts_with(r#"{"name":"deep","output":"#));
    let error = filter(&["--jsonl"], tool(122));
    assert!(error.starts_with(r#"{"name":"deep","error":"record: nests deeper than 128 levels at column "#), "{error}");
    // What a flag asks for, the input must be.
    let encoded = filter(&["--jsonl", "--encode"], lines[0]);
    assert!(encoded.contains(r#"`input` is \"hi<｜end▁of▁sentence｜>\", expected a conversation""#), "{encoded}");
    assert_eq!(filter(&["--jsonl"], ""), "");
    // A line that is too long does not keep the next from being read.
    let long = [vec![b'x'; (64 << 20) + 1], vec![b'\n'], lines[0].to_vec()].concat();
    let output = filter(&["--jsonl"], long);
    assert_eq!(output, format!("{{\"name\":null,\"error\":\"line 1: longer than 64 MB\"}}\n{}\n", expected[0]));
}

#[test]
fn output_that_nobody_takes() {
    let input = format!("{}\n", r#"{"name": "a", "messages": []}"#).repeat(10_000);
    let (first, output) = with_closed_output(example("chat_template").arg("--jsonl"), &input);
    assert_eq!((first.as_slice(), output.status.code()), (&br#"{"name":"a","out"#[..], Some(0)));
    assert!(output.stderr.is_empty());
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        for args in [&["--parse", "--tolerant"][..], &["--help"]] {
            let full = full.try_clone().unwrap();
            fails(example("chat_template").args(args).stdout(full), 1, &["standard output: No space left"]);
        }
    }
}
