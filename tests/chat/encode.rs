//! Prompts, byte for byte.

use crate::chat_support::{Record, embedded_samples, records};
use deepseek_v32::chat::{
    ChatError, EncodeOptions, FieldProblem, Json, Message, Origin, ParseOptions, Role, Start, Tool, ToolCall, Version,
    arguments_to_dsml, encode, order_results, parse, place_tools, tools_block,
};

/// The vectors where our own rule differs from what the published encoder prints or fails with.
fn own_rule(record: &Record) -> bool {
    record.tagged("python-quirk")
        || (record.tagged("developer-dropped") && record.expected_error.is_some())
        // A call without arguments has none.
        || record.name == "tc_missing_arguments"
}

#[test]
fn vectors() {
    let (mut same, mut refused) = (0, 0);
    for record in records("encode.jsonl").iter().filter(|record| !own_rule(record)) {
        match (record.encode(Version::V32), record.text()) {
            (Ok(text), Some(expected)) => {
                assert_eq!(text, expected, "{}", record.name);
                same += 1;
            }
            (Err(_), None) => refused += 1,
            (found, _) => panic!("{}: {found:?}", record.name),
        }
    }
    assert_eq!((same, refused), (292, 23));
}

#[test]
fn official() {
    let records = records("official/official.jsonl");
    let records: Vec<_> = records.iter().filter(|record| record.input.as_ref().unwrap().as_str().is_none()).collect();
    assert_eq!(records.len(), 6);
    for record in records {
        assert_eq!(record.encode(Version::V32).unwrap(), record.text().unwrap(), "{}", record.name);
    }
}

/// `null` is empty, text parts are joined, other content is refused, a result at the very front answers no call.
#[test]
fn python_values() {
    for record in records("encode.jsonl").iter().filter(|record| record.tagged("python-quirk")) {
        let expected = record.text().unwrap();
        let ours = match record.name.split('/').next().unwrap() {
            "user_content_null" | "user_no_content_key" => expected.replace("None", ""),
            "user_content_parts" => expected.replace("[{'type': 'text', 'text': 'hi'}]", "hi"),
            "tool_null_content" => expected.replace("None", ""),
            "tool_content_parts" => expected.replace("[{'type': 'text', 'text': 'x'}]", "x"),
            "user_content_number" | "tool_result_first_assistant_last" => {
                assert!(record.encode(Version::V32).is_err(), "{}", record.name);
                continue;
            }
            other => panic!("a new one: {other}"),
        };
        assert_eq!(record.encode(Version::V32).unwrap(), ours, "{}", record.name);
    }
}

/// Where the published encoder drops a developer's message and then fails, the message stays. Unknown roles are refused.
#[test]
fn developers_stay() {
    let all = records("encode.jsonl");
    let failing = |record: &&Record| record.tagged("developer-dropped") && record.expected_error.is_some();
    let mut compared = 0;
    for record in all.iter().filter(failing) {
        let kept = record.name.replace("drop_True", "drop_False");
        match all.iter().find(|other| other.name == kept && kept != record.name) {
            Some(other) if other.expected.is_some() => {
                assert_eq!(record.encode(Version::V32).unwrap(), other.text().unwrap(), "{}", record.name);
                compared += 1;
            }
            _ if record.name.contains("unknown_role") => {
                assert!(record.encode(Version::V32).is_err(), "{}", record.name)
            }
            _ => assert!(record.encode(Version::V32).is_ok(), "{}", record.name),
        }
    }
    assert_eq!(compared, 2);
}

#[test]
fn templates_of_v3_and_v31() {
    let records = records("jinja_v3_v31.jsonl");
    assert_eq!(records.len(), 66);
    for record in records {
        let version = match record.name.split('/').next().unwrap() {
            "v3_dec2024" => Version::V3Dec2024,
            "v3_0324_r1" => Version::V3,
            "v3_1_llamacpp" => Version::V31,
            other => panic!("{other}"),
        };
        assert_eq!(record.encode(version).unwrap(), record.text().unwrap(), "{}", record.name);
    }
}

/// Tools of V3 and R1 stand where the tool templates that servers ship for them put them.
#[test]
fn tool_templates_of_v3_and_r1() {
    let records = records("jinja_tools.jsonl");
    assert_eq!(records.len(), 50);
    for record in records {
        let version = if record.name.starts_with("v3_dec2024") { Version::V3Dec2024 } else { Version::V3 };
        let (mut messages, _) = record.messages().unwrap();
        let tools = record.input.as_ref().unwrap().get("tools").unwrap().to_string();
        let tools: Vec<Tool> = serde_json::from_str(&tools).unwrap();
        place_tools(&mut messages, tools.clone(), None);
        let options = record.options(version).unwrap();
        let encoded = encode(&messages, &[], &options).unwrap();
        assert_eq!(encoded.text(), record.text().unwrap(), "{}", record.name);
        let pieces: String = encoded.pieces().map(|piece| piece.text).collect();
        assert_eq!(pieces, encoded.text());
        // What follows a context is what the whole conversation ends with.
        for at in 1..messages.len() {
            let (context, rest) = messages.split_at(at);
            if !rest.iter().any(|message| message.role == Role::System) && context[0].role == Role::System {
                let more = encode(rest, context, &options).unwrap();
                assert!(encoded.text().ends_with(more.text()), "{}: {}", record.name, more.text());
            }
        }
    }
}

/// A call that is written in these formats is read as it was written, and so is the answer behind its result.
#[test]
fn calls_of_v3_and_r1_come_back() {
    let schema = Json::parse(r#"{"type": "object", "properties": {"city": {"type": "string"}}}"#).unwrap();
    let tools = vec![Tool::new("get_weather", "Weather.", schema)];
    let call =
        |arguments: &str| ToolCall { id: None, name: "get_weather".to_string(), arguments: arguments.to_string() };
    for version in [Version::V3, Version::V3Dec2024] {
        for (content, calls) in [
            ("", vec![call(r#"{"city": "Lisbon"}"#)]),
            ("Let me see.", vec![call(r#"{"city": "a\n```\"b"}"#), call("{}")]),
            ("No call.", vec![]),
        ] {
            let mut messages = vec![Message::user("q")];
            place_tools(&mut messages, tools.clone(), None);
            let options = EncodeOptions::new(version);
            let prompt = encode(&messages, &[], &options).unwrap();
            let mut answer = Message::assistant(content);
            answer.tool_calls = calls;
            messages.push(answer.clone());
            let closed = EncodeOptions { add_generation_prompt: false, ..options };
            let whole = encode(&messages, &[], &closed).unwrap();
            let written = whole.text().strip_prefix(prompt.text()).unwrap();
            let parse_options = ParseOptions::new(version, prompt.start()).with_tools(tools.clone());
            let parsed = parse(written, &parse_options).unwrap();
            assert_eq!((&parsed.message, parsed.incomplete, &parsed.dropped[..]), (&answer, false, &[][..]));
        }
    }
    // The reasoning is opened as the model's own template does it.
    let mut messages = vec![Message::user("q")];
    place_tools(&mut messages, tools, None);
    let prompt = encode(&messages, &[], &EncodeOptions::new(Version::V3).with_thinking(true)).unwrap();
    assert!(prompt.text().ends_with("<｜User｜>q<｜Assistant｜><think>\n"), "{}", prompt.text());
    assert_eq!(prompt.start(), Start::Reasoning);
    let mut call = Message::assistant("");
    call.tool_calls = vec![ToolCall { id: None, name: "f".to_string(), arguments: "[1]".to_string() }];
    messages.push(call);
    let error = encode(&messages, &[], &EncodeOptions::new(Version::V3)).unwrap_err().to_string();
    assert!(error.contains("message 2: `tool_calls`: call 0: arguments: not an object"), "{error}");
}

#[test]
fn helpers() {
    for record in records("helpers.jsonl") {
        let input = record.input.as_ref().unwrap_or(&Json::Null);
        let text = |key: &str| input.get(key).unwrap().as_str().unwrap();
        let found = match record.function.as_str() {
            "to_json" => input.to_python(),
            "encode_arguments_to_dsml" => arguments_to_dsml(text("arguments")).unwrap(),
            "render_tools" => {
                let Json::Array(functions) = input else { panic!("{input}") };
                let tools: Vec<Tool> = functions.iter().map(|f| Tool::from_function(f.clone()).unwrap()).collect();
                tools_block(&tools)
            }
            "decode_dsml_to_arguments" => continue, // tests/chat/parse.rs
            other => panic!("{other}"),
        };
        assert_eq!(found, record.text().unwrap(), "{}", record.name);
    }
}

#[test]
fn embedded_checkpoint() {
    for sample in embedded_samples() {
        let options = EncodeOptions::new(Version::V32).with_thinking(sample.mode == "thinking");
        let prompt = encode(&sample.messages, &[], &options).unwrap();
        assert_eq!(prompt.text(), sample.prompt);
        assert_eq!(prompt.start(), if options.thinking { Start::Reasoning } else { Start::Content });
    }
}

/// Pieces are the text, and say what the model wrote and what came from outside.
#[test]
fn pieces() {
    for record in records("encode.jsonl") {
        let (Ok((messages, context)), Ok(options)) = (record.messages(), record.options(Version::V32)) else {
            continue;
        };
        let Ok(prompt) = encode(&messages, &context, &options) else { continue };
        let joined: String = prompt.pieces().map(|piece| piece.text).collect();
        assert_eq!(joined, prompt.text(), "{}", record.name);
        for piece in prompt.pieces() {
            assert!(!piece.text.is_empty());
            if let Origin::Written { message, .. } = piece.origin {
                assert_eq!(messages[message].role, Role::Assistant);
            }
        }
    }
    let mut system = Message::system("Be kind.");
    system.tools = vec![Tool::new("f", "<think>", Json::parse("{}").unwrap())];
    let mut called = Message::assistant("Well<｜User｜>");
    called.reasoning_content = Some("Hm".to_string());
    called.tool_calls = vec![ToolCall { id: None, name: "f".to_string(), arguments: "{}".to_string() }];
    let messages = [system, Message::user("</think>"), called, Message::tool("1", "<｜Assistant｜>")];
    let options = EncodeOptions::new(Version::V32).with_thinking(true);
    let prompt = encode(&messages, &[], &options).unwrap();
    let pieces: Vec<_> = prompt.pieces().map(|piece| (piece.text, piece.origin, piece.is_format())).collect();
    let written = |mark| Origin::Written { message: 2, complete: true, mark };
    assert_eq!(pieces[0], ("<｜begin▁of▁sentence｜>", Origin::Template, true));
    assert_eq!(pieces[1], ("Be kind.", Origin::Outside, false));
    let schema = r#"{"name": "f", "description": "<think>", "parameters": {}}"#;
    assert_eq!(pieces[3], (schema, Origin::Outside, false));
    assert_eq!(pieces[4], ("\n</functions>\n<｜User｜>", Origin::Template, true));
    assert_eq!(pieces[5], ("</think>", Origin::Outside, false));
    assert_eq!(pieces[6], ("<｜Assistant｜><think>", Origin::Template, true));
    assert_eq!(pieces[7], ("Hm", written(false), false));
    assert_eq!(pieces[8], ("</think>", written(true), true));
    let block =
        "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";
    assert_eq!(pieces[9], (format!("Well<｜User｜>{block}").as_str(), written(false), false));
    assert_eq!(pieces[10], ("<｜end▁of▁sentence｜>", written(true), true));
    assert_eq!(pieces[11].0, "\n\n<function_results>\n<result>");
    assert_eq!(pieces[12], ("<｜Assistant｜>", Origin::Outside, false));
    assert_eq!(pieces[13].0, "</result>\n</function_results>\n\n<think>");
    assert_eq!((pieces.len(), prompt.start()), (14, Start::Reasoning));
    let outside: Vec<_> = prompt.outside().into_iter().map(|range| &prompt.text()[range]).collect();
    assert_eq!(outside, ["Be kind.", schema, "</think>", "Hm", pieces[9].0, "<｜Assistant｜>"]);

    // A new question: the reasoning goes, and what is left is not all that the model wrote.
    let prompt = encode(&[&messages[..], &[Message::user("more")]].concat(), &[], &options).unwrap();
    assert!(prompt.pieces().any(|p| matches!(p.origin, Origin::Written { message: 2, complete: false, .. })));
    assert!(!prompt.text().contains("Hm"));
}

/// Nesting has a limit, and the error says which and where it is passed.
#[test]
fn depth() {
    let nested = |levels: usize| format!("{}1{}", "{\"a\":\n".repeat(levels), "}".repeat(levels));
    assert!(Json::parse(&nested(127)).is_ok());
    let error = Json::parse(&nested(128)).unwrap_err();
    assert_eq!(error.to_string(), "nests deeper than 128 levels at line 129 column 1");
    assert_eq!((error.line(), error.column()), (129, 1));

    assert!(arguments_to_dsml(&nested(127)).is_ok());
    let reason = "nests deeper than 128 levels at byte 768".to_string();
    assert_eq!(arguments_to_dsml(&nested(128)), Err(FieldProblem::Arguments { call: 0, reason }));
    let tools = format!(r#"[{{"role": "system", "tools": [{{"function": {}}}]}}]"#, nested(128));
    let error = serde_json::from_str::<Vec<Message>>(&tools).unwrap_err().to_string();
    assert!(error.starts_with("nests deeper than 128 levels at line 1"), "{error}");
}

fn calling(ids: &[&str]) -> Message {
    let call = |id: &&str| ToolCall { id: Some(id.to_string()), name: "f".to_string(), arguments: "{}".to_string() };
    Message { tool_calls: ids.iter().map(call).collect(), ..Message::assistant("") }
}

#[test]
fn complete_results() {
    let options = EncodeOptions { require_complete_results: true, ..EncodeOptions::new(Version::V32) };
    let mut messages = vec![Message::user("q"), calling(&["a", "b"]), Message::tool("b", "2"), Message::tool("a", "1")];
    assert!(encode(&messages, &[], &options).unwrap().text().contains("<result>2</result>\n<result>1</result>"));
    order_results(&mut messages).unwrap();
    assert!(encode(&messages, &[], &options).unwrap().text().contains("<result>1</result>\n<result>2</result>"));
    messages.pop();
    let problem = FieldProblem::MissingResults { calls: 2, results: 1 };
    let expected = ChatError::Field { message: 1, field: "tool_calls", problem };
    assert_eq!(encode(&messages, &[], &options).unwrap_err(), expected);
    assert_eq!(expected.to_string(), "message 1: `tool_calls`: has 2 calls, but 1 results follow");
    messages.push(Message::tool("c", "3"));
    assert!(order_results(&mut messages).is_err());
}

#[test]
fn request_tools() {
    let tool = Tool::new("f", "", Json::parse("{}").unwrap());
    let mut messages = vec![Message::user("q")];
    place_tools(&mut messages, Vec::new(), None);
    assert_eq!(messages.len(), 1);
    place_tools(&mut messages, vec![tool.clone()], None);
    assert_eq!((messages[0].role, messages[0].tools.len(), messages.len()), (Role::System, 1, 2));
    place_tools(&mut messages, vec![tool], Some(Json::parse(r#"{"type": "json_object"}"#).unwrap()));
    assert_eq!((messages[0].tools.len(), messages.len()), (2, 2));
    let text = encode(&messages, &[], &EncodeOptions::default()).unwrap().into_text();
    assert!(text.ends_with("{\"type\": \"json_object\"}<｜User｜>q<｜Assistant｜></think>"));
}

/// V3.1's tools text is its model card's.
#[test]
fn tools_before_v32() {
    let schema = Json::parse(r#"{"type":"object","properties":{}}"#).unwrap();
    let messages = [Message::system("S").with_tools([Tool::new("f", "Does.", schema)]), Message::user("q")];
    let text = encode(&messages, &[], &EncodeOptions::new(Version::V31)).unwrap().into_text();
    let expected = "S\n\n## Tools\nYou have access to the following tools:\n\n### f\nDescription: Does.\n\n\
        Parameters: {\"type\": \"object\", \"properties\": {}}\n\nIMPORTANT: ALWAYS adhere";
    assert!(text.contains(expected), "{text}");
    let thinking = EncodeOptions::new(Version::V3).with_thinking(true);
    let prompt = encode(&[Message::user("q")], &[], &thinking).unwrap();
    assert_eq!(prompt.text(), "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>\n");
    assert_eq!(prompt.start(), Start::Reasoning);
}

/// What is rendered after a context is the end of what is rendered in one go.
#[test]
fn contexts() {
    for version in Version::ALL {
        let mut answer = calling(&["a"]);
        answer.reasoning_content = Some("r".to_string());
        let all = [Message::user("q"), answer, Message::tool("a", "1"), Message::assistant("x"), Message::user("q2")];
        let options = EncodeOptions { add_generation_prompt: false, ..EncodeOptions::new(version) };
        let whole = encode(&all, &[], &options).unwrap().into_text();
        for at in 1..all.len() {
            let rest = encode(&all[at..], &all[..at], &options).unwrap().into_text();
            assert!(whole.ends_with(&rest), "{version} {at}: {rest}");
        }
    }
}

#[test]
fn versions_by_name() {
    for version in Version::ALL {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    assert!("v4".parse::<Version>().is_err());
}
