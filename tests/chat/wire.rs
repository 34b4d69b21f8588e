//! Messages as clients write them.

use deepseek_v32::chat::{EncodeOptions, Json, Message, ToolCall, Version, encode, place_tools};

/// A conversation as others write it.
fn read(messages: &str) -> Result<Vec<Message>, String> {
    serde_json::from_str(messages).map_err(|error| error.to_string())
}

fn render(messages: &str, options: &EncodeOptions) -> String {
    encode(&read(messages).unwrap(), &[], options).unwrap().into_text()
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
    // A byte order mark before them counts as nothing.
    let call = |arguments: &str| {
        let json = format!(
            "{{\"role\": \"assistant\", \"tool_calls\": [{{\"id\": \"1\", \"type\": \"function\", \"function\": {{\"name\": \"f\", \"arguments\": \"{arguments}\"}}}}]}}"
        );
        serde_json::from_str::<Message>(&json).unwrap().tool_calls[0].arguments.clone()
    };
    assert_eq!([call("\u{feff}{}"), call("\u{feff}")], ["{}", "{}"]);
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
