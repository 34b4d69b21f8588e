//! Completions to messages.

use crate::chat_support::{Record, embedded_samples, records};
use deepseek_v32::chat::{
    CallProblem, Json, Message, ParseOptions, Parsed, Start, Tool, Version, arguments_from_dsml, parse,
};

/// A message as the vectors write it.
fn wire(message: &Message) -> Json {
    let text = |text: &str| Json::String(text.to_string());
    let object = |entries: Vec<(&str, Json)>| {
        Json::Object(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
    };
    let call = |name: &str, arguments: &str| {
        let function = object(vec![("name", text(name)), ("arguments", text(arguments))]);
        object(vec![("type", text("function")), ("function", function)])
    };
    object(vec![
        ("role", text("assistant")),
        ("content", text(&message.content)),
        ("reasoning_content", text(message.reasoning_content.as_deref().unwrap_or_default())),
        ("tool_calls", Json::Array(message.tool_calls.iter().map(|c| call(&c.name, &c.arguments)).collect())),
    ])
}

fn strict(record: &Record) -> Option<Message> {
    let options = ParseOptions::new(Version::V32, record.start()).strict();
    parse(record.completion(), &options).ok().map(|parsed| parsed.message)
}

fn tolerant(text: &str, start: Start) -> Parsed {
    parse(text, &ParseOptions::new(Version::V32, start)).unwrap()
}

#[test]
fn strict_vectors() {
    let (mut same, mut refused) = (0, 0);
    let official =
        records("official/official.jsonl").into_iter().filter(|r| r.input.as_ref().unwrap().as_str().is_some());
    for record in records("parse.jsonl").into_iter().chain(official) {
        match (strict(&record), &record.expected) {
            (Some(message), Some(expected)) => {
                assert_eq!(&wire(&message), expected, "{}", record.name);
                same += 1;
            }
            (None, None) => refused += 1,
            (found, _) => panic!("{}: {found:?}", record.name),
        }
    }
    assert_eq!((same, refused), (280, 97));
}

/// Truncations that the published parser takes for an end; that a name may end with one or two line breaks, and a
/// closing tag be broken.
#[test]
fn strict_peculiarities() {
    let options = ParseOptions::new(Version::V32, Start::Content).strict();
    let calls = |text: &str| parse(text, &options).map(|parsed| parsed.message.tool_calls);
    let head = "\n\n<｜DSML｜function_calls";
    assert_eq!(calls(head).unwrap(), []);
    for tail in ["", "<｜DSML｜parameter name=\"a\" string=\"true\">b</｜DSML｜parameter>\n", "</｜DSML｜invoke"]
    {
        let text = format!("{head}>\n<｜DSML｜invoke name=\"f\">\n{tail}");
        assert_eq!(calls(&text).unwrap().len(), 1, "{tail}");
    }
    for name in ["f\">\n\n\n", "f\">", "f'>\n"] {
        assert!(calls(&format!("{head}>\n<｜DSML｜invoke name=\"{name}")).is_err());
    }
    let text = format!("{head}>\n<｜DSML｜invoke\u{1c}\u{a0} name=\"a\">\nb\">\n");
    assert_eq!(calls(&text).unwrap()[0].name, "a\">\nb");
    let error = parse("no end", &options).unwrap_err();
    assert_eq!(error.to_string(), "completion, byte 6: expected the end-of-sentence token or a tool block");
}

/// Where a tag has other blanks than the format's, the published parser takes it for a part of the name if a value quotes
/// a tag later; tolerant mode ends it where it ends.
#[test]
fn blanks_in_a_tag_whose_value_quotes_one() {
    let text = "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"p\"  string=\"true\">a\" \
        string=\"true\">b</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls><｜end▁of▁sentence｜>";
    let strict = parse(text, &ParseOptions::new(Version::V32, Start::Content).strict()).unwrap();
    let arguments = |message: &Message| message.tool_calls[0].arguments.clone();
    assert_eq!(arguments(&strict.message), r#"{"p\"  string=\"true\">a": "b"}"#);
    assert_eq!(arguments(&tolerant(text, Start::Content).message), r#"{"p": "a\" string=\"true\">b"}"#);
}

/// Whatever strict mode accepts reads the same in tolerant mode, apart from arguments that are no JSON and truncations.
#[test]
fn tolerant_is_strict_on_what_is_well_formed() {
    let mut same = 0;
    for record in records("parse.jsonl") {
        let Some(mut message) = strict(&record) else { continue };
        let parsed = tolerant(record.completion(), record.start());
        match record.name.split('/').next().unwrap() {
            // Truncated.
            "trunc_266" => {
                assert_eq!(parsed.message.tool_calls, message.tool_calls[..1]);
                assert!(parsed.incomplete);
                continue;
            }
            // Values that are no JSON are strings.
            _ if record.tagged("arguments-not-valid-json") => {
                for call in &parsed.message.tool_calls {
                    assert!(matches!(Json::parse(&call.arguments), Ok(Json::Object(_))), "{}", record.name);
                }
                message.tool_calls.clone_from(&parsed.message.tool_calls);
            }
            _ => {}
        }
        assert_eq!(parsed.message, message, "{}", record.name);
        assert!(!parsed.incomplete && parsed.dropped.is_empty(), "{}: {parsed:?}", record.name);
        same += 1;
    }
    assert_eq!(same, 277);
}

/// Reasoning, content and calls of what strict mode refuses, and whether something is missing.
#[test]
fn tolerant_on_what_is_malformed() {
    /// Name, reasoning (in thinking mode), content, calls, whether the text is incomplete.
    type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], bool);
    const FB: &[(&str, &str)] = &[("f", r#"{"a": "b"}"#)];
    const NONE: &[(&str, &str)] = &[];
    let cases: &[Case] = &[
        ("content_no_eos", "reason", "Hello!", NONE, false),
        ("empty_no_eos", "reason", "", NONE, false),
        ("content_two_eos", "reason", "Hello!", NONE, false),
        ("content_trailing_nl", "reason", "Hello!", NONE, false),
        ("content_think_open", "reason", "a<think>b", NONE, false),
        ("content_think_close", "reason", "a</think>b", NONE, false),
        ("content_bos", "reason", "a<｜begin▁of▁sentence｜>", NONE, false),
        ("thinking_no_close", "just thinking", "", NONE, true),
        ("thinking_open_dup", "r", "Hi", NONE, false),
        ("thinking_nested_close", "r", "a</think>b", NONE, false),
        ("thinking_eos_inside", "r", "", NONE, true),
        ("thinking_tool_before_close", "r", "", &[("f", "{}")], false),
        ("thinking_fc_mention_one_newline", "r\n x", "ok", NONE, false),
        ("tc_noargs_tight", "reason", "", &[("get_time", "{}")], false),
        ("tc_noargs_3nl", "reason", "", &[("get_time", "{}")], false),
        ("tc_empty_block_2nl", "reason", "", NONE, false),
        ("mal_one_newline", "r", "\n", FB, false),
        ("mal_no_newline", "r", "", FB, false),
        ("mal_missing_block_end", "r", "", FB, true),
        ("mal_missing_block_end_no_nl", "r", "", FB, true),
        ("mal_missing_invoke_end", "r", "", NONE, false),
        ("mal_missing_param_end", "r", "", NONE, false),
        ("mal_truncated_open_gt", "r", "", NONE, true),
        ("mal_truncated_open_nl", "r", "", NONE, true),
        ("mal_truncated_invoke", "r", "", NONE, true),
        ("mal_truncated_name", "r", "", NONE, true),
        ("mal_truncated_param", "r", "", NONE, true),
        ("mal_no_name_attr", "r", "", NONE, false),
        ("mal_single_quote_name", "r", "", FB, false),
        ("mal_self_closing", "r", "", &[("f", "{}")], false),
        ("mal_param_no_string", "r", "", FB, false),
        ("mal_param_string_upper", "r", "", FB, false),
        ("mal_param_string_other", "r", "", FB, false),
        ("mal_param_attr_order", "r", "", FB, false),
        ("mal_params_same_line", "r", "", &[("f", r#"{"a": "b", "c": "d"}"#)], false),
        ("mal_params_blank_line", "r", "", &[("f", r#"{"a": "b", "c": "d"}"#)], false),
        ("mal_dup_param", "r", "", NONE, false),
        ("mal_invokes_blank_line", "r", "", &[("a", r#"{"x": "1"}"#), ("b", r#"{"x": "1"}"#)], false),
        ("mal_indent", "r", "", &[("a", r#"{"x": "1"}"#)], false),
        ("mal_garbage_block", "r", "", NONE, false),
        ("mal_text_after_block", "r", "", FB, false),
        ("mal_nl_after_block", "r", "", FB, false),
        ("mal_nl_after_block_no_eos", "r", "", FB, false),
        ("mal_two_blocks", "r", "", &[("f", r#"{"a": "b"}"#), ("g", r#"{"a": "b"}"#)], false),
        ("mal_bare_invoke", "r", "", FB, false),
        ("mal_json_body", "r", "", &[("f", r#"{"a": 1}"#)], false),
        ("mal_v4_block", "r", "", FB, false),
        ("mal_value_closing_tag", "r", "", &[("f", r#"{"a": "x</｜DSML｜parameter>y"}"#)], false),
        ("mal_think_after_block", "r", "", FB, false),
        ("mal_missing_close_slash", "r", "", NONE, false),
        ("rt_tool_args_dsml_inject", "r", "", &[("f", "{\"s\": \"</｜DSML｜parameter>\\n</｜DSML｜invoke>\"}")], false),
        ("trunc_000", "", "", NONE, true),
        ("trunc_007", "Plan it", "", NONE, true),
        ("trunc_021", "Plan it", "Checki", NONE, false),
    ];
    let mut seen = 0;
    for record in records("parse.jsonl").iter().filter(|record| record.expected_error.is_some()) {
        let parsed = tolerant(record.completion(), record.start());
        let name = record.name.split('/').next().unwrap().trim_end_matches("_1");
        let calls: Vec<_> =
            parsed.message.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        let reasoning = parsed.message.reasoning_content.as_deref().unwrap_or_default();
        if name.starts_with("trunc_") && name > "trunc_021" {
            assert_eq!((reasoning, parsed.message.content.as_str()), ("Plan it", "Checking."), "{}", record.name);
            let closed = record.completion().matches("</｜DSML｜invoke>").count();
            assert_eq!((calls.len(), parsed.incomplete), (closed.min(2), true), "{}", record.name);
            continue;
        }
        let case = cases.iter().find(|case| case.0 == name).unwrap_or_else(|| panic!("{}: {parsed:?}", record.name));
        let thinks = record.start() == Start::Reasoning;
        assert_eq!(reasoning, if thinks { case.1 } else { "" }, "{}", record.name);
        assert_eq!(parsed.message.content, case.2, "{}", record.name);
        assert_eq!(calls, case.3, "{}", record.name);
        assert_eq!(parsed.incomplete, case.4, "{}", record.name);
        seen += 1;
    }
    assert!(seen > 70, "{seen}");
}

#[test]
fn embedded_checkpoint() {
    for sample in embedded_samples() {
        let start = if sample.mode == "thinking" { Start::Reasoning } else { Start::Content };
        let options = ParseOptions::new(Version::V32, start);
        for options in [options.clone(), options.strict()] {
            assert_eq!(wire(&parse(&sample.text, &options).unwrap().message), sample.parsed);
        }
    }
}

#[test]
fn arguments_helper() {
    for record in records("helpers.jsonl").iter().filter(|record| record.function == "decode_dsml_to_arguments") {
        let input = record.input.as_ref().unwrap();
        let Some(Json::Object(entries)) = input.get("tool_args") else { panic!("{input}") };
        let parameters = entries.iter().map(|(key, value)| match value {
            Json::Array(pair) => (key.as_str(), pair[0].as_str().unwrap(), pair[1].as_str() == Some("true")),
            other => panic!("{other}"),
        });
        let expected = record.expected.as_ref().unwrap();
        assert_eq!(arguments_from_dsml(parameters), expected.get("arguments").unwrap().as_str().unwrap());
    }
}

fn block(inside: &str) -> String {
    format!("\n\n<｜DSML｜function_calls>\n{inside}\n</｜DSML｜function_calls>")
}

fn invoke(name: &str, inside: &str) -> String {
    format!("<｜DSML｜invoke name=\"{name}\">\n{inside}\n</｜DSML｜invoke>")
}

fn param(key: &str, is_string: bool, value: &str) -> String {
    format!("<｜DSML｜parameter name=\"{key}\" string=\"{is_string}\">{value}</｜DSML｜parameter>")
}

/// What was dropped is told.
#[test]
fn dropped() {
    let good = invoke("g", &param("a", true, "b"));
    let bad = "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">1\n</｜DSML｜invoke>\n";
    let text = format!("Hm{} tail<｜end▁of▁sentence｜>", block(&format!("{bad}{good}")));
    let parsed = tolerant(&text, Start::Content);
    assert_eq!(parsed.message.content, "Hm");
    assert_eq!(parsed.message.tool_calls.len(), 1);
    assert_eq!(parsed.message.tool_calls[0].name, "g");
    assert_eq!(parsed.dropped, [bad, " tail"]);

    let parsed = tolerant("Use `<｜DSML｜function_calls>` or </｜DSML｜invoke> and ｜DSML｜.", Start::Content);
    assert_eq!(parsed.message.content, "Use `` or  and .");
    assert_eq!(parsed.dropped, ["<｜DSML｜function_calls>", "</｜DSML｜invoke>", "｜DSML｜"]);

    // What is left and right of a dropped tag makes no new one.
    let parsed = tolerant("</｜DSML</｜DSML｜｜invoke>", Start::Content);
    assert_eq!(parsed.message.content, "</｜DSML ｜invoke>");
}

/// A parameter that wraps all arguments is unwrapped where the tool has no such parameter.
#[test]
fn wrappers() {
    let schema = |key: &str| Json::parse(&format!(r#"{{"type": "object", "properties": {{"{key}": {{}}}}}}"#)).unwrap();
    let tools = vec![Tool::new("f", "", schema("a")), Tool::new("g", "", schema("input"))];
    let mut options = ParseOptions::new(Version::V32, Start::Content);
    options.tools = Some(tools);
    let arguments = |inside: &str| {
        let mut parsed = parse(&block(inside), &options).unwrap();
        parsed.message.tool_calls.remove(0).arguments
    };
    let wrapped = r#"{"a": 1}"#;
    for (is_string, key) in [(true, "arguments"), (false, "input"), (false, "arguments")] {
        assert_eq!(arguments(&invoke("f", &param(key, is_string, wrapped))), wrapped);
    }
    assert_eq!(arguments(&invoke("g", &param("input", false, wrapped))), r#"{"input": {"a": 1}}"#);
    assert_eq!(arguments(&invoke("f", &param("input", true, "text"))), r#"{"input": "text"}"#);
    let two = format!("{}\n{}", param("input", false, wrapped), param("b", true, "x"));
    assert_eq!(arguments(&invoke("f", &two)), r#"{"input": {"a": 1}, "b": "x"}"#);
    assert_eq!(arguments(&invoke("h", &param("input", false, wrapped))), r#"{"input": {"a": 1}}"#);
}

/// A name that goes on with another attribute is cut where that makes it the name of a tool.
#[test]
fn other_attributes() {
    let text = block(
        "<｜DSML｜invoke name=\"f\" id=\"1\">\n</｜DSML｜invoke>\n<｜DSML｜invoke id='2' name='g'>\n</｜DSML｜invoke>",
    );
    let mut options = ParseOptions::new(Version::V32, Start::Content);
    let names = |options: &ParseOptions| -> Vec<String> {
        parse(&text, options).unwrap().message.tool_calls.into_iter().map(|call| call.name).collect()
    };
    assert_eq!(names(&options), ["f\" id=\"1", "g"]);
    options.tools = Some(vec![Tool::new("f", "", Json::Null)]);
    assert_eq!(names(&options), ["f", "g"]);
}

/// Names and keys may hold nearly anything.
#[test]
fn odd_names() {
    for name in ["a\"b", "a>b", "a\">b", "\"", "名前 🔧", "x\ny", "a'b", "<b>"] {
        let text = block(&invoke(name, &param(name, true, "v")));
        let parsed = tolerant(&text, Start::Content);
        assert_eq!(parsed.message.tool_calls.len(), 1, "{name}");
        assert_eq!(parsed.message.tool_calls[0].name, name);
        let Json::Object(entries) = Json::parse(&parsed.message.tool_calls[0].arguments).unwrap() else { panic!() };
        assert_eq!(entries, [(name.to_string(), Json::String("v".to_string()))]);
    }
}

/// The reasoning ends where a call begins, not where one is mentioned.
#[test]
fn calls_in_the_reasoning() {
    let call = block(&invoke("f", ""));
    let parsed = tolerant(&format!("think{call}"), Start::Reasoning);
    assert_eq!(parsed.message.reasoning_content.as_deref(), Some("think"));
    assert_eq!(parsed.message.tool_calls.len(), 1);
    let text = format!("I need <｜DSML｜invoke and <｜DSML｜function_calls>\nfirst.</think>{call}");
    let parsed = tolerant(&text, Start::Reasoning);
    assert_eq!(parsed.message.reasoning_content.as_deref(), Some("I need  and \nfirst."));
    assert_eq!(parsed.message.tool_calls.len(), 1);
    let parsed = tolerant("<think>r</think>Hi", Start::Content);
    assert_eq!((parsed.message.reasoning_content.as_deref(), parsed.message.content.as_str()), (Some("r"), "Hi"));
}

/// Completions of V3, R1 and V3.1.
#[test]
fn before_v32() {
    let read = |version, start, text: &str| parse(text, &ParseOptions::new(version, start)).unwrap();
    let v31 = "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>\
        <｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>";
    let parsed = read(Version::V31, Start::Content, v31);
    assert_eq!(parsed.message.content, "Let me see.");
    let calls = |parsed: &Parsed| -> Vec<(String, String)> {
        parsed.message.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
    };
    let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
    assert_eq!(calls(&parsed), [pair("f", "{\"a\": 1}"), pair("g", "{}")]);
    let strict = ParseOptions::new(Version::V31, Start::Content).strict();
    assert_eq!(parse(v31, &strict).unwrap(), parsed);
    assert!(parse(&v31.replace("{}", "{"), &strict).is_err());
    assert!(parse("no end", &strict).is_err());

    let v3 = "<think>\nr\n</think>\n\nHm<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n\
        {\"a\": \"x\\n```\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{\n```\
        <｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let parsed = read(Version::V3, Start::Content, v3);
    assert_eq!(parsed.message.reasoning_content.as_deref(), Some("\nr\n"));
    assert_eq!(parsed.message.content, "\n\nHm");
    assert_eq!(calls(&parsed), [pair("f", "{\"a\": \"x\\n```\"}")]);
    assert_eq!(parsed.dropped.len(), 1);
    assert!(!parsed.incomplete);
}

fn field(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/data/field/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Where no tool was offered, markup of calls is text as any other.
#[test]
fn without_tools_markup_is_text() {
    let quote = field("quoted_markup/quote.txt");
    let call = block(&invoke("f", &param("a", true, "b")));
    let v3 =
        "Such: <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜>";
    for version in Version::ALL {
        let options = ParseOptions::new(version, Start::Content).with_tools([]);
        for text in
            [quote.as_str(), &format!("Like{call} and so on"), v3, "<｜DSML｜", "a </｜DSML｜invoke> b\n\n", "<"]
        {
            for end in ["", "<｜end▁of▁sentence｜>"] {
                let parsed = parse(&format!("{text}{end}"), &options).unwrap();
                assert_eq!(parsed.message, Message::assistant(text), "{version}");
                assert_eq!((parsed.dropped.len(), parsed.incomplete, parsed.call_problem), (0, false, None), "{text}");
            }
        }
        let options = ParseOptions { start: Start::Reasoning, ..options };
        let parsed = parse(&format!("think of{call}</think>{quote}"), &options).unwrap();
        assert_eq!(parsed.message.reasoning_content, Some(format!("think of{call}")));
        assert_eq!(parsed.message.content, quote);
    }
    // With a tool on offer, or where that is not known, it is a call.
    assert_eq!(tolerant(&quote, Start::Content).message.tool_calls.len(), 1);
}

/// Misspelt tags around a call that was found are no content.
#[test]
fn misspelt_wrappers() {
    let call = invoke("f", &param("a", true, "b"));
    for (open, close) in [
        ("<function_calls>", "</function_calls>"),
        ("<tool_calls>", "</tool_calls>"),
        ("<｜DSML｜function_call>", "</｜DSML｜function_call>"),
        ("<|DSML|function_calls>", "</|DSML|function_calls>"),
        ("<DSML｜function_calls>", "</DSML｜function_calls>"),
        ("｜DSML｜function_calls>", "｜DSML｜/function_calls>"),
        ("<｜DSML｜ calls>", "</｜DSML｜ calls>"),
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        ("<function_calls", "</function_calls"),
        ("<functions>", ""),
        ("", "</function_calls>"),
    ] {
        for between in ["\n", "", "  \n\n"] {
            let text = format!("Let me see.\n\n{open}{between}{call}{between}{close}");
            let parsed = tolerant(&text, Start::Content);
            assert_eq!(parsed.message.tool_calls.len(), 1, "{text}");
            assert_eq!(parsed.message.content.trim_end(), "Let me see.", "{text}");
            assert_eq!((parsed.call_problem, parsed.unread), (None, None), "{text}");
        }
    }
    let v3 =
        "Hm<tool_calls><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜></tool_calls>";
    let parsed = parse(v3, &ParseOptions::new(Version::V3, Start::Content)).unwrap();
    assert_eq!((parsed.message.content.as_str(), parsed.message.tool_calls.len()), ("Hm", 1));
    // What no call follows is text, and so is any other tag.
    for text in ["Use <function_calls> here.", "<b>", "a <tool", "<tool_call>\n{}", "x <- call(y)"] {
        assert_eq!(tolerant(text, Start::Content).message.content, text);
    }
    let parsed = tolerant(&format!("<b>{call}"), Start::Content);
    assert_eq!((parsed.message.content.as_str(), parsed.message.tool_calls.len()), ("<b>", 1));
}

/// Misspelt tags leave nothing of theirs in the content: no bracket before them, and no CRLF before a call.
#[test]
fn leftovers_of_misspelt_wrappers() {
    let call = invoke("f", &param("a", true, "b"));
    let block = block(&call);
    let block = block.trim_start();
    for (before, content) in [
        ("Let me see.\n\n<<function_calls>\n", "Let me see."),
        ("Let me see.\n\n<\n｜DSML｜function_calls>\n", "Let me see."),
        ("Let me see.\r\n\r\n< <tool_calls>\r\n", "Let me see."),
        ("Let me see.\n\n</\n<function_calls>", "Let me see."),
        ("Let me see.\r\n\r\n", "Let me see."),
        ("Let me see.\r\n", "Let me see."),
        ("Let me see.\n\r\n", "Let me see."),
        ("Let me see.\r\n\r\n\r\n", "Let me see.\r\n"),
        ("Let me see.\n", "Let me see.\n"),
        ("a < b\n\n", "a < b"),
        ("a < b, <c>\n\n<function_calls>", "a < b, <c>"),
    ] {
        for call in [call.as_str(), block] {
            let text = format!("{before}{call}");
            let parsed = tolerant(&text, Start::Content);
            assert_eq!((parsed.message.content.as_str(), parsed.message.tool_calls.len()), (content, 1), "{text:?}");
            // What is in neither is told, but for blanks.
            let told = before.strip_prefix(content).unwrap().trim();
            assert_eq!(parsed.dropped.concat().trim(), told, "{text:?}");
        }
    }
    // Without a call, all is text.
    let parsed = tolerant(&format!("a <{block}"), Start::Content);
    assert_eq!(
        (parsed.message.content.as_str(), parsed.message.tool_calls.len()),
        ("a <", 1),
        "before a tag that is right"
    );
    let parsed = tolerant(&format!("a\r\n\n{block}"), Start::Content);
    assert_eq!(parsed.message.content, "a\r", "the format's own line breaks go before CRLF");
    for text in ["<\n<function_calls> is a tag", "a <", "a < \n", "<<b>", "1 << 2\r\n\r\n", "x\r"] {
        assert_eq!(tolerant(text, Start::Content).message.content, text);
    }
}

/// An answer of tags alone is not an empty one: its text is content, and what is wrong is told.
#[test]
fn tags_alone() {
    const EMPTY_BLOCK: &str = "<｜DSML｜function_calls>\n</｜DSML｜function_calls>";
    const EMPTY_CALLS: &str = "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>";
    const EOS: &str = "<｜end▁of▁sentence｜>";
    let v3 = ["<｜tool▁calls▁end｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", EMPTY_CALLS];
    let v32 = [
        "</｜DSML｜function_calls>",
        "<｜DSML｜function_calls>",
        "</｜DSML｜invoke>",
        "</｜DSML｜parameter>",
        "｜DSML｜",
        "<｜DSML｜x>",
        "</｜DSML｜function_calls>\n\n</｜DSML｜function_calls>\n",
        EMPTY_BLOCK,
        "</｜DSML｜function_calls>\n\n<｜DSML｜function_calls>\n",
    ];
    for (version, tags) in v32.map(|tag| (Version::V32, tag)).into_iter().chain(v3.map(|tag| (Version::V31, tag))) {
        for (before, after) in [("", ""), ("\n\n", ""), ("\n\n\n\n", "\n"), (" ", "\n\n\n\n")] {
            for (end, start) in [("", Start::Content), (EOS, Start::Content), (EOS, Start::Reasoning)] {
                let text = format!("{before}{tags}{after}");
                let parsed = parse(&format!("{text}{end}"), &ParseOptions::new(version, start)).unwrap();
                assert!(parsed.call_problem.is_some(), "{text:?}");
                assert_eq!(parsed.message.tool_calls, []);
                let unread = parsed.unread.clone().unwrap();
                // A block that is whole and holds nothing is no malformed one.
                let whole = tags == EMPTY_CALLS || (tags == EMPTY_BLOCK && start == Start::Content);
                assert_eq!(parsed.dropped, if whole { vec![] } else { vec![unread] }, "{text:?}");
                let answer = parsed.answer();
                let shown = format!("{}{}", answer.reasoning_content.unwrap_or_default(), answer.content);
                assert_eq!(shown, text, "{start:?}");
                assert!(answer.content.contains(tags));
            }
        }
        // Behind reasoning, too, whose own stray tags are told alone.
        let parsed = parse(&format!("So.{tags}</think>{tags}{EOS}"), &ParseOptions::new(version, Start::Reasoning));
        let answer = parsed.unwrap().answer();
        assert!(answer.content.ends_with(tags), "{tags}: {answer:?}");
    }
    // Text behind a tag is an answer, as text before it is.
    for (text, content) in [
        ("</｜DSML｜invoke>\n\nIt is 5.", "\n\nIt is 5."),
        ("\n</｜DSML｜invoke> ｜DSML｜ a", "\n  a"),
        ("a</｜DSML｜invoke>\n\n", "a\n\n"),
    ] {
        let parsed = tolerant(text, Start::Content);
        assert_eq!((parsed.message.content.as_str(), parsed.unread, parsed.call_problem), (content, None, None));
        assert!(!parsed.dropped.is_empty());
    }
    // A call behind a stray tag is a call, and blanks between them are none of the content.
    let parsed = tolerant(&format!("</｜DSML｜invoke>\n{}", block(&invoke("f", ""))), Start::Content);
    assert_eq!((parsed.message.content.as_str(), parsed.message.tool_calls.len()), ("", 1));
    assert_eq!((parsed.dropped.concat().trim(), parsed.unread), ("</｜DSML｜invoke>", None));
}

/// A call that cannot be read is not lost: its text is told, and why.
#[test]
fn calls_that_cannot_be_read() {
    const EOS: &str = "<｜end▁of▁sentence｜>";
    let malformed = field("malformed_call/malformed.txt");
    let cases = [
        (malformed.clone(), CallProblem::Body),
        (
            block("<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">1\n</｜DSML｜invoke>"),
            CallProblem::Unclosed,
        ),
        (block(&invoke("f", &[param("a", true, "1"), param("a", true, "2")].concat())), CallProblem::Repeated),
        (block(&invoke("f", &format!("and {}", param("a", true, "1")))), CallProblem::Body),
        (block(&invoke("f", "{\"a\": }")), CallProblem::Arguments),
        (block("<｜DSML｜invoke>\n</｜DSML｜invoke>"), CallProblem::NoName),
        (block(&invoke("f", "<｜DSML｜parameter a>1</｜DSML｜parameter>")), CallProblem::Parameter),
        (block("f(1)"), CallProblem::NoCall),
        (block(""), CallProblem::NoCall),
    ];
    for (text, problem) in cases {
        for before in ["", "Let me see."] {
            for end in ["", EOS] {
                let parsed = tolerant(&format!("{before}{text}{end}"), Start::Content);
                assert_eq!(parsed.message, Message::assistant(before), "{text}");
                assert_eq!(parsed.call_problem, Some(problem), "{text}");
                assert_eq!(parsed.unread.as_deref(), Some(text.as_str()));
                assert_eq!(parsed.answer(), Message::assistant(format!("{before}{text}")));
            }
        }
    }
    // One that the model ended early, and one that was cut off.
    let open =
        "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">1";
    for (at, _) in open.char_indices().filter(|(at, _)| *at > 30) {
        let ended = tolerant(&format!("{}{EOS}", &open[..at]), Start::Content);
        assert_eq!(ended.answer(), Message::assistant(&open[..at]));
        let cut = tolerant(&open[..at], Start::Content);
        assert_eq!((cut.call_problem, cut.answer()), (Some(CallProblem::CutOff), Message::assistant("")), "{at}");
    }
    // Beside a call that could be read, it stays out of the content, but is told.
    let good = invoke("g", "");
    for both in [format!("{}{good}", malformed), format!("{}{}", block(&good), malformed)] {
        let parsed = tolerant(&both, Start::Content);
        assert_eq!((parsed.call_problem, parsed.unread.as_deref()), (Some(CallProblem::Body), None), "{both}");
        assert_eq!((parsed.message.tool_calls.len(), parsed.answer().content.as_str()), (1, ""));
    }
    let v3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{a: 1}\n```<｜tool▁call▁end｜>\
              <｜tool▁calls▁end｜>";
    let parsed = parse(v3, &ParseOptions::new(Version::V3, Start::Content)).unwrap();
    assert_eq!((parsed.call_problem, parsed.unread.as_deref()), (Some(CallProblem::Arguments), Some(v3)));
}

/// Where tools were offered, what stands in a name's place and holds markup or JSON is no name, unless it is a tool's.
#[test]
fn a_name_holds_no_markup() {
    let tools = [Tool::new("get_weather", "", Json::Null), Tool::new("a>b", "", Json::Null)];
    let elements = |name: &str| format!("<tool_call>{name}<arg_key>city</arg_key><arg_value>b</arg_value></tool_call>");
    let dsml = |name: &str| block(&format!("<｜DSML｜invoke name=\"{name}\">\n</｜DSML｜invoke>"));
    for (version, call) in [(Version::Glm, &elements as &dyn Fn(&str) -> String), (Version::V32, &dsml)] {
        let options = ParseOptions::new(version, Start::Content).with_tools(tools.clone());
        for name in ["{\"name\": \"f\"}", "get_weather\">\n<｜orig", "\"get_weather\"", "a\nb", "a>c"] {
            let parsed = parse(&call(name), &options).unwrap();
            let problem = (parsed.call_problem, parsed.message.tool_calls.len());
            assert_eq!((problem, parsed.unread), ((Some(CallProblem::Name), 0), Some(call(name))), "{version} {name}");
        }
        for name in ["get_weather", "a>b", "unknown"] {
            let parsed = parse(&call(name), &options).unwrap();
            assert_eq!((parsed.message.tool_calls[0].name.as_str(), parsed.call_problem), (name, None), "{version}");
        }
    }
}
