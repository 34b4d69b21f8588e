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

/// Every way in which clients write a call without arguments is `{}`.
#[test]
fn calls_without_arguments() {
    let body = |name: &str| -> Json {
        let path = format!("{}/tests/data/field/{name}", env!("CARGO_MANIFEST_DIR"));
        Json::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let render = |body: &Json, version| {
        let mut messages: Vec<Message> = serde_json::from_str(&body.get("messages").unwrap().to_string()).unwrap();
        let tools = serde_json::from_str(&body.get("tools").unwrap().to_string()).unwrap();
        place_tools(&mut messages, tools, None);
        encode(&messages, &[], &EncodeOptions::new(version)).unwrap().into_text()
    };
    for version in Version::ALL {
        let works = render(&body("empty_arguments/works.json"), version);
        for name in ["empty", "blanks", "null", "missing"] {
            let found = render(&body(&format!("empty_arguments/{name}.json")), version);
            assert_eq!(found, works, "{name}, {version}");
        }
    }
    // Arguments as an object are written out; a call made in Rust may have blank ones, too.
    let text = |arguments: &str| {
        let mut message = Message::assistant("");
        message.tool_calls = vec![ToolCall { id: None, name: "f".to_string(), arguments: arguments.to_string() }];
        encode(&[message], &[], &EncodeOptions::default()).unwrap().into_text()
    };
    assert_eq!(text("\n"), text("{}"));
}

/// Reasoning under other names, and as parts of the content.
#[test]
fn reasoning_under_other_names() {
    let reasoning = |fields: &str| {
        let message = format!(r#"{{"role": "assistant", {fields}}}"#);
        let message: Message = serde_json::from_str(&message).unwrap();
        (message.reasoning_content.unwrap_or_default(), message.content)
    };
    for fields in [
        r#""content": "a", "reasoning_content": "MARK""#,
        r#""content": "a", "reasoning": "MARK""#,
        r#""content": "a", "reasoning_content": "MARK", "reasoning": "MARK""#,
        r#""content": "a", "reasoning_content": "", "reasoning": "MARK""#,
        r#""content": "a", "reasoning_content": null, "reasoning": [{"type": "text", "text": "MARK"}]"#,
        r#""content": [{"type": "thinking", "thinking": "MARK", "signature": "x"}, {"type": "text", "text": "a"}]"#,
        r#""content": [{"type": "reasoning", "text": "MARK"}, {"type": "text", "text": "a"}]"#,
        r#""content": [{"type": "reasoning", "reasoning": "MARK"}, "a"]"#,
        r#""content": [{"type": "thinking", "thinking": [{"type": "text", "text": "MARK"}]}, "a"]"#,
        r#""content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "MARK"}]}, "a"]"#,
        r#""content": [{"type": "thinking", "thinking": "MA"}, "a", {"type": "thinking", "thinking": "RK"}]"#,
        r#""content": [{"type": "redacted_thinking", "data": "??"}, "a"], "reasoning_content": "MARK""#,
    ] {
        assert_eq!(reasoning(fields), ("MARK".to_string(), "a".to_string()), "{fields}");
    }
    let encrypted = reasoning(r#""content": [{"type": "redacted_thinking", "data": "??"}, "a"]"#);
    assert_eq!(encrypted, (String::new(), "a".to_string()));
    // A user's part of such a type is no reasoning, and not what the user says.
    let user: Message =
        serde_json::from_str(r#"{"role": "user", "content": [{"type": "thinking", "thinking": "x"}, "q"]}"#).unwrap();
    assert_eq!(user, Message::user("q"));
    // The field trial's history gives the same prompt under both names.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/field/reasoning_name/reasoning.json");
    let body = Json::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    let prompt = |name: &str| {
        let messages = body.get("messages").unwrap().to_string();
        let messages =
            messages.replacen("\"role\":\"assistant\"", &format!("\"role\":\"assistant\",\"{name}\":\"MARK\""), 1);
        render(&messages, &EncodeOptions::new(Version::V32).with_thinking(true))
    };
    assert_eq!(prompt("reasoning"), prompt("reasoning_content"));
    assert!(prompt("reasoning").contains("MARK</think>"));
}

/// A byte order mark before JSON is no part of it.
#[test]
fn byte_order_marks() {
    let text = "\u{feff}{\"a\": \"\u{feff}\"}";
    let json = Json::parse(text).unwrap();
    assert_eq!(json.get("a").and_then(Json::as_str), Some("\u{feff}"));
    assert!(Json::parse("\u{feff}\u{feff}{}").is_err());
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

/// Floats as Python's `repr` prints them, most of them halfway between two shortest texts: the even digit counts.
#[test]
fn floats() {
    const REPR: [(&str, &str); 67] = [
        ("2.98023223876953125e-08", "2.9802322387695312e-08"),
        ("8.3446502685546875e-07", "8.344650268554688e-07"),
        ("1.78813934326171875e-06", "1.7881393432617188e-06"),
        ("2.74181365966796875e-06", "2.7418136596679688e-06"),
        ("3.69548797607421875e-06", "3.6954879760742188e-06"),
        ("9.2983245849609375e-06", "9.298324584960938e-06"),
        ("1.12056732177734375e-05", "1.1205673217773438e-05"),
        ("1.31130218505859375e-05", "1.3113021850585938e-05"),
        ("1.50203704833984375e-05", "1.5020370483398438e-05"),
        ("1.69277191162109375e-05", "1.6927719116210938e-05"),
        ("1.88350677490234375e-05", "1.8835067749023438e-05"),
        ("2.07424163818359375e-05", "2.0742416381835938e-05"),
        ("2.26497650146484375e-05", "2.2649765014648438e-05"),
        ("2.45571136474609375e-05", "2.4557113647460938e-05"),
        ("2.64644622802734375e-05", "2.6464462280273438e-05"),
        ("2.83718109130859375e-05", "2.8371810913085938e-05"),
        ("3.02791595458984375e-05", "3.0279159545898438e-05"),
        ("6.4373016357421875e-05", "6.437301635742188e-05"),
        ("6.8187713623046875e-05", "6.818771362304688e-05"),
        ("7.2002410888671875e-05", "7.200241088867188e-05"),
        ("7.5817108154296875e-05", "7.581710815429688e-05"),
        ("7.9631805419921875e-05", "7.963180541992188e-05"),
        ("8.3446502685546875e-05", "8.344650268554688e-05"),
        ("8.7261199951171875e-05", "8.726119995117188e-05"),
        ("9.1075897216796875e-05", "9.107589721679688e-05"),
        ("9.4890594482421875e-05", "9.489059448242188e-05"),
        ("70368744177664.125", "70368744177664.12"),
        ("70368744177664.375", "70368744177664.38"),
        ("70368744177664.625", "70368744177664.62"),
        ("70368744177664.875", "70368744177664.88"),
        ("70368744190009.125", "70368744190009.12"),
        ("70368744190009.375", "70368744190009.38"),
        ("70368744190009.625", "70368744190009.62"),
        ("70368744190009.875", "70368744190009.88"),
        ("140737488355328.125", "140737488355328.12"),
        ("140737488355328.375", "140737488355328.38"),
        ("140737488355328.625", "140737488355328.62"),
        ("140737488355328.875", "140737488355328.88"),
        ("140737488367673.125", "140737488367673.12"),
        ("140737488367673.375", "140737488367673.38"),
        ("140737488367673.625", "140737488367673.62"),
        ("140737488367673.875", "140737488367673.88"),
        ("562949953421312.25", "562949953421312.2"),
        ("562949953421312.75", "562949953421312.8"),
        ("562949953433657.25", "562949953433657.2"),
        ("562949953433657.75", "562949953433657.8"),
        ("1125899906842624.25", "1125899906842624.2"),
        ("1125899906842624.75", "1125899906842624.8"),
        ("1125899906854969.25", "1125899906854969.2"),
        ("1125899906854969.75", "1125899906854969.8"),
        ("1528202236852670.25", "1528202236852670.2"),
        ("232294117791835.125", "232294117791835.12"),
        ("222838447783207.625", "222838447783207.62"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("0.5", "0.5"),
        ("10000000000000000.0", "1e+16"),
        ("123456.0", "123456.0"),
        ("1E-4", "0.0001"),
        ("12e-5", "0.00012"),
        ("1.5e-05", "1.5e-05"),
        ("9999999999999998.0", "9999999999999998.0"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ("1.5e-323", "1.5e-323"),
        ("4.35", "4.35"),
    ];
    for (text, expected) in REPR {
        assert_eq!(Json::parse(text).unwrap().to_python(), expected, "{text}");
        assert_eq!(Json::parse(&format!("-{text}")).unwrap().to_python(), format!("-{expected}"));
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

/// A conversation as others write it.
fn read(messages: &str) -> Result<Vec<Message>, String> {
    serde_json::from_str(messages).map_err(|error| error.to_string())
}

fn render(messages: &str, options: &EncodeOptions) -> String {
    encode(&read(messages).unwrap(), &[], options).unwrap().into_text()
}

/// What the published encoder does not look at changes nothing and breaks nothing.
#[test]
fn ignored_fields() {
    let thinking = EncodeOptions::new(Version::V32).with_thinking(true);
    let same = |plain: &str, others: &[&str]| {
        for other in others {
            assert_eq!(render(other, &thinking), render(plain, &thinking), "{other}");
        }
    };
    same(
        r#"[{"role": "system", "tools": [{"type": "function", "function": {"name": "f"}}]}]"#,
        &[
            r#"[{"role": "system", "tools": [{"type": "custom", "function": {"name": "f"}, "x": 1}]}]"#,
            r#"[{"role": "system", "tools": [{"type": null, "function": {"name": "f"}}]}]"#,
            r#"[{"role": "system", "tools": [{"type": {"a": [1]}, "function": {"name": "f"}}]}]"#,
            r#"[{"role": "system", "tools": [{"function": {"name": "f"}}]}]"#,
        ],
    );
    let call = |kind: &str| {
        format!(
            r#"[{{"role": "user"}}, {{"role": "assistant", "tool_calls": [{{{kind}"function": {{"name": "f", "arguments": "{{}}"}}}}]}}]"#
        )
    };
    let kinds =
        [r#""type": null, "#, r#""type": 3, "#, r#""type": "custom", "#, r#""type": [], "id": {}, "index": 0, "#];
    for kind in kinds {
        same(&call(""), &[&call(kind)]);
    }
    for none in ["null", "false", "0", "0.0", "-0", "\"\"", "{}", "[]"] {
        same(
            r#"[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]"#,
            &[
                &format!(
                    r#"[{{"role": "system", "content": "s", "tools": {none}}}, {{"role": "user", "content": "q"}}]"#
                ),
                &format!(
                    r#"[{{"role": "system", "content": "s", "response_format": {none}}}, {{"role": "user", "content": "q"}}]"#
                ),
                &format!(
                    r#"[{{"role": "system", "content": "s"}}, {{"role": "user", "content": "q", "tools": {none}}}]"#
                ),
            ],
        );
        let answer =
            format!(r#"[{{"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": {none}}}]"#);
        same(r#"[{"role": "assistant", "content": "a", "reasoning_content": "r"}]"#, &[&answer]);
        let reasoning = format!(r#"[{{"role": "user"}}, {{"role": "assistant", "reasoning_content": {none}}}]"#);
        let chat = EncodeOptions::new(Version::V32);
        assert_eq!(render(&reasoning, &chat), render(r#"[{"role": "user"}, {"role": "assistant"}]"#, &chat));
        let content = format!(
            r#"[{{"role": "system", "content": {none}}}, {{"role": "user"}}, {{"role": "assistant", "content": {none}}}]"#
        );
        assert_eq!(render(&content, &chat), render(r#"[{"role": "user"}, {"role": "assistant"}]"#, &chat));
        let format = format!(r#"[{{"role": "system", "response_format": {none}}}]"#);
        assert_eq!(render(&format, &EncodeOptions::new(Version::V31)), "<｜begin▁of▁sentence｜>");
    }
    same(
        r#"[{"role": "user", "content": "q"}]"#,
        &[
            r#"[{"role": "user", "content": "q", "reasoning_content": 7, "name": 5, "written_ids": "x", "prefix": []}]"#,
            r#"[{"role": "user", "content": "q", "reasoning_content": {"a": 1}, "written_ids": [1, -1], "refusal": null}]"#,
        ],
    );
    let ids = |ids: &str| {
        read(&format!(r#"[{{"role": "assistant", "written_ids": {ids}}}]"#)).unwrap()[0].written_ids.clone()
    };
    assert_eq!(ids("[1, 4294967295]"), Some(vec![1, u32::MAX]));
    assert_eq!([ids("[4294967296]"), ids("[1.5]"), ids("[\"1\"]"), ids("{}"), ids("null")], [const { None }; 5]);
}

/// Where the published encoder fails, or prints what no model has seen, reading the message is an error.
#[test]
fn refused_fields() {
    for (message, expected) in [
        (r#"{"role": "system", "tools": "f"}"#, "invalid type: string \"f\", expected a list"),
        (r#"{"role": "system", "tools": true}"#, "invalid type: boolean `true`, expected a list"),
        (r#"{"role": "system", "tools": {"a": 1}}"#, "invalid type: map, expected a list"),
        (r#"{"role": "system", "tools": [{"type": "function"}]}"#, "missing field `function`"),
        (r#"{"role": "system", "tools": [{"function": null}]}"#, "a tool's `function` is null, expected an object"),
        (r#"{"role": "assistant", "tool_calls": 3}"#, "invalid type: integer `3`, expected a list"),
        (r#"{"role": "assistant", "tool_calls": [{"name": "f"}]}"#, "missing field `function`"),
        (r#"{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}"#, "missing field `name`"),
        (r#"{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}"#, "invalid type: integer `5`"),
        (r#"{"role": "assistant", "reasoning_content": 5}"#, "reasoning_content is 5, expected a string"),
        (r#"{"role": "user", "content": 5}"#, "content is 5, expected a string"),
        (r#"{"role": "user", "content": false}"#, "content is false, expected a string"),
        (r#"{"role": "system", "content": true}"#, "content is true, expected a string"),
    ] {
        let error = read(&format!("[{message}]")).unwrap_err();
        assert!(error.starts_with(expected), "{message}: {error}");
    }
}

/// Where a template of an earlier version loses what a message says, we do not; an answer that is begun opens as its
/// template opens it.
#[test]
fn templates_that_lose_text() {
    let dec2024 = EncodeOptions::new(Version::V3Dec2024);
    let call = r#""tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]"#;
    let calling =
        |content: &str| format!(r#"[{{"role": "user"}}, {{"role": "assistant", "content": {content}, {call}}}]"#);
    assert_eq!(render(&calling("\"\""), &dec2024), render(&calling("null"), &dec2024));
    assert!(render(&calling("\"\""), &dec2024).contains("function<｜tool▁sep｜>f\n```json\n{}\n```"));

    for version in Version::ALL {
        let options = EncodeOptions { add_generation_prompt: false, ..EncodeOptions::new(version) };
        for none in ["[]", "null", "{}"] {
            let messages =
                format!(r#"[{{"role": "user"}}, {{"role": "assistant", "content": "answer", "tool_calls": {none}}}]"#);
            assert!(render(&messages, &options).ends_with("answer<｜end▁of▁sentence｜>"), "{version} {none}");
        }
    }

    let begun =
        |prefix: &str| format!(r#"[{{"role": "user"}}, {{"role": "assistant", "content": "a", "prefix": {prefix}}}]"#);
    let opener = |prefix: &str, thinking: bool| {
        let options = EncodeOptions::new(Version::V31).with_thinking(thinking);
        let text = render(&begun(prefix), &options);
        let (_, opener) = text.rsplit_once("<｜Assistant｜>").unwrap();
        opener.strip_suffix("a<｜end▁of▁sentence｜>").unwrap().to_string()
    };
    assert_eq!([opener("true", true), opener("1", true)], ["<think>", "<think>"]);
    assert_eq!([opener("true", false), opener("false", true), opener("null", true)], ["</think>"; 3]);
    let thinking = EncodeOptions::new(Version::V3).with_thinking(true);
    assert_eq!(render(&begun("true"), &thinking), render(&begun("false"), &thinking));
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
