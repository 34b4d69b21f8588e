//! Streams: any split of a completion gives the same message, and the same events in the same order.

use crate::chat_support::{Record, coalesced, records};
use deepseek_v32::chat::{
    Accumulator, Delta, Ending, Json, ParseOptions, Parsed, Start, StreamParser, Tool, Version, parse,
};
use proptest::prelude::*;

fn stream<'a>(version: Version, start: Start, chunks: impl IntoIterator<Item = &'a str>) -> (Parsed, Vec<Delta>) {
    stream_with(&ParseOptions::new(version, start), chunks)
}

fn stream_with<'a>(options: &ParseOptions, chunks: impl IntoIterator<Item = &'a str>) -> (Parsed, Vec<Delta>) {
    let mut parser = StreamParser::new(options.version, options.start);
    if let Some(tools) = &options.tools {
        parser = parser.with_tools(tools);
    }
    let mut deltas = Vec::new();
    for chunk in chunks {
        deltas.extend(parser.push(chunk));
    }
    deltas.extend(parser.finish());
    let mut message = Accumulator::new();
    message.extend(deltas.clone());
    let parsed = parser.parsed(message.finish());
    (parsed, deltas)
}

fn batch(text: &str, version: Version, start: Start) -> Parsed {
    parse(text, &ParseOptions::new(version, start)).unwrap()
}

fn chars(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])
}

/// The events of the whole text.
fn events(text: &str, version: Version, start: Start) -> Vec<Delta> {
    coalesced(stream(version, start, [text]).1)
}

/// No markup in what is shown, and only well-formed arguments in calls that end.
fn check(parsed: &Parsed, deltas: &[Delta], version: Version) {
    let marks: &[&str] = match version {
        Version::V32 => &["｜DSML｜"],
        Version::Glm => &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        _ => &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"],
    };
    let message = &parsed.message;
    for mark in marks {
        assert!(!message.content.contains(mark), "{message:?}");
        assert!(!message.reasoning_content.as_deref().unwrap_or_default().contains(mark), "{message:?}");
    }
    for call in &message.tool_calls {
        assert!(matches!(Json::parse(&call.arguments), Ok(Json::Object(_))), "{call:?}");
    }
    for delta in deltas {
        match delta {
            Delta::Reasoning(text) | Delta::Content(text) | Delta::ToolCallArguments { fragment: text, .. } => {
                assert!(!text.is_empty());
            }
            Delta::ToolCallStart { .. } | Delta::ToolCallEnd { .. } => {}
        }
    }
}

#[test]
fn real_chunks() {
    let records = records("stream.jsonl");
    assert_eq!(records.len(), 264);
    for record in records {
        let text: String = record.chunks.concat();
        let expected = batch(&text, Version::V32, record.start());
        let (parsed, deltas) = stream(Version::V32, record.start(), record.chunks.iter().map(String::as_str));
        assert_eq!(parsed, expected, "{}", record.name);
        check(&parsed, &deltas, Version::V32);
        assert_eq!(coalesced(deltas), events(&text, Version::V32, record.start()), "{}", record.name);
        // Strict mode takes this truncated call for complete.
        if !record.tagged("arguments-not-valid-json") && record.name != "stream_trunc_266" {
            let want = record.expected.as_ref().unwrap();
            assert_eq!(parsed.message.content, want.get("content").unwrap().as_str().unwrap(), "{}", record.name);
            let reasoning = parsed.message.reasoning_content.unwrap_or_default();
            assert_eq!(reasoning, want.get("reasoning_content").unwrap().as_str().unwrap(), "{}", record.name);
            let Some(Json::Array(calls)) = want.get("tool_calls") else { panic!() };
            assert_eq!(calls.len(), parsed.message.tool_calls.len(), "{}", record.name);
            for (call, want) in parsed.message.tool_calls.iter().zip(calls) {
                let function = want.get("function").unwrap();
                assert_eq!(call.name, function.get("name").unwrap().as_str().unwrap());
                assert_eq!(call.arguments, function.get("arguments").unwrap().as_str().unwrap());
            }
        }
    }
}

/// Every completion there is, malformed ones too.
fn completions() -> Vec<(String, Start)> {
    let of = |record: &Record| (record.completion().to_string(), record.start());
    records("parse.jsonl").iter().map(of).collect()
}

#[test]
fn character_by_character() {
    for (text, start) in completions() {
        for start in [start, Start::Reasoning, Start::Content] {
            let expected = batch(&text, Version::V32, start);
            let (parsed, deltas) = stream(Version::V32, start, chars(&text));
            assert_eq!(parsed, expected, "{text}");
            check(&parsed, &deltas, Version::V32);
            assert_eq!(coalesced(deltas), events(&text, Version::V32, start), "{text}");
        }
    }
}

/// Wherever a completion is cut, what was streamed is the answer, and an answer that is cut later says all that one says
/// that is cut earlier.
#[test]
fn answers_that_are_cut_only_grow() {
    let call = "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">b < c\n\
                </｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";
    let v31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": \"b\"}<｜tool▁call▁end｜>\
               <｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    for (version, call, in_reasoning) in [(Version::V32, call, "if a < b,\n\nthen"), (Version::V31, v31, "<x>")] {
        let whole = format!("{in_reasoning}</think>a < b,\n\nc <｜ d.\n{call}");
        let mut last = (String::new(), String::new(), 0);
        for (at, _) in whole.char_indices().chain([(whole.len(), ' ')]) {
            let mut parser = StreamParser::new(version, Start::Reasoning).with_tools(&[tool()]);
            let mut message = Accumulator::new();
            for piece in chars(&whole[..at]) {
                message.extend(parser.push(piece));
            }
            message.extend(parser.finish_as(Ending::Cut));
            let streamed = parser.parsed(message.finish());
            let mut parser = StreamParser::new(version, Start::Reasoning).with_tools(&[tool()]);
            let mut message = Accumulator::new();
            message.extend(parser.push(&whole[..at]));
            message.extend(parser.finish_as(Ending::Cut));
            let batch = parser.parsed(message.finish());
            assert_eq!(streamed, batch, "{}", &whole[..at]);
            assert_eq!(streamed.unread, None);
            let message = streamed.message;
            let now = (message.reasoning_content.unwrap_or_default(), message.content, message.tool_calls.len());
            let grows = now.0.starts_with(&last.0) && now.1.starts_with(&last.1) && now.2 >= last.2;
            assert!(grows, "{last:?} became {now:?} at {}", &whole[..at]);
            last = now;
        }
        assert_eq!(last, (in_reasoning.to_string(), "a < b,\n\nc <｜ d.\n".to_string(), 2));
    }
    // Without tools, nothing is held back for markup.
    let text = "a\n\n<｜DSML｜function_calls>\n<";
    for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
        let mut parser = StreamParser::new(Version::V32, Start::Content).with_tools(&[]);
        let mut message = Accumulator::new();
        message.extend(parser.push(&text[..at]));
        message.extend(parser.finish_as(Ending::Cut));
        assert_eq!(message.finish().content, text[..at]);
    }
}

/// The arguments of a stream's calls, ended or not.
fn arguments(deltas: &[Delta]) -> Vec<String> {
    let mut calls = Vec::new();
    for delta in deltas {
        match delta {
            Delta::ToolCallStart { .. } => calls.push(String::new()),
            Delta::ToolCallArguments { index, fragment } => calls[*index].push_str(fragment),
            _ => {}
        }
    }
    calls
}

/// Any two pieces, and all prefixes: where a stream is cut, no markup gets into arguments.
#[test]
fn every_cut() {
    for (text, start) in completions().into_iter().filter(|(text, _)| text.len() < 700) {
        let expected = batch(&text, Version::V32, start);
        let expected_events = events(&text, Version::V32, start);
        for (at, _) in text.char_indices() {
            let (parsed, deltas) = stream(Version::V32, start, [&text[..at], &text[at..]]);
            assert_eq!(parsed, expected, "{at}: {text}");
            assert_eq!(coalesced(deltas), expected_events, "{at}: {text}");
            let (prefix, deltas) = stream(Version::V32, start, [&text[..at]]);
            check(&prefix, &deltas, Version::V32);
            for (cut, whole) in arguments(&deltas).iter().zip(arguments(&expected_events)) {
                for mark in ['<', '｜'] {
                    assert!(cut.matches(mark).count() <= whole.matches(mark).count(), "{at}: {cut} of {whole}");
                }
            }
        }
    }
}

/// What stood around a stray tag is not joined to a control token or to markup, wherever the tag stood in it.
#[test]
fn strays_join_nothing() {
    let tokens = [
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁output▁end｜>",
        "<｜search▁begin｜>",
        "<|EOT|>",
        "<think>",
        "</think>",
        "<｜DSML｜function_calls>",
        "</｜DSML｜invoke>",
        "｜DSML｜",
    ];
    let strays = ["</｜DSML｜function_calls>", "<｜DSML｜x>", "</｜DSML｜invoke", "｜DSML｜"];
    let before_v32 = ["<｜tool▁sep｜>", "<｜tool▁calls▁end｜>"];
    // As an element of GLM-5's is.
    let parsed = batch("<tool</tool_call>_call>f</tool_call>", Version::Glm, Start::Content);
    assert_eq!((parsed.message.content.as_str(), parsed.message.tool_calls.len()), ("<tool _call>f", 0));
    for version in Version::ALL {
        // The last three are markup in V3.2 only.
        let (strays, tokens) = match version {
            Version::V32 => (&strays[..], &tokens[..]),
            _ => (&before_v32[..], &tokens[..tokens.len() - 3]),
        };
        for (token, stray, start) in tokens.iter().flat_map(|token| {
            let starts = [Start::Content, Start::Reasoning];
            strays.iter().flat_map(move |stray| starts.map(|start| (*token, *stray, start)))
        }) {
            for (at, _) in token.char_indices().skip(1) {
                let text = format!("a {}{stray}{stray}{} b", &token[..at], &token[at..]);
                let (parsed, deltas) = stream(version, start, [text.as_str()]);
                let message = &parsed.message;
                for shown in [&message.content, message.reasoning_content.as_ref().unwrap_or(&String::new())] {
                    assert!(!shown.contains(token), "{version} {start:?} {text}: {shown}");
                }
                let (letters, pieces) = stream(version, start, chars(&text));
                assert_eq!((letters, coalesced(pieces)), (parsed, coalesced(deltas)), "{text}");
            }
        }
    }
    let content = |text: &str| batch(text, Version::V32, Start::Content).message.content;
    assert_eq!(content("a<｜end▁of▁sentenc</｜DSML｜function_calls>e｜>b"), "a<｜end▁of▁sentenc e｜>b");
    assert_eq!(content("HTML</｜DSML｜function_calls>5"), "HTML5");
}

/// Values arrive while they are written, whole values of other kinds when they are complete.
#[test]
fn progressive() {
    let mut parser = StreamParser::new(Version::V32, Start::Content);
    let mut push = |text: &str| parser.push(text);
    assert_eq!(push("Hi.\n"), [Delta::Content("Hi.".to_string())]);
    assert_eq!(push("\n<｜DS"), []);
    assert_eq!(push("ML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n"), []);
    assert_eq!(push("<｜DSML｜"), [Delta::ToolCallStart { index: 0, name: "f".to_string() }]);
    let arguments = |fragment: &str| [Delta::ToolCallArguments { index: 0, fragment: fragment.to_string() }];
    assert_eq!(push("parameter name=\"a\" string=\"true\">one"), arguments("{\"a\": \"one"));
    assert_eq!(push(" \"two\"\n<"), arguments(" \\\"two\\\"\\n"));
    assert_eq!(push("b> </"), arguments("<b> "));
    assert_eq!(push("｜DSML｜parameter>\n<｜DSML｜parameter"), []);
    assert_eq!(push(" name=\"n\" string=\"false\">1"), arguments("\""));
    assert_eq!(push("2</｜DSML｜parameter>\n</｜DSML｜invoke>\n"), []);
    let last = [arguments(", \"n\": 12}")[0].clone(), Delta::ToolCallEnd { index: 0 }];
    assert_eq!(push("</｜DSML｜function_calls>"), last);
}

/// Long texts take time in proportion, one character at a time.
#[test]
fn linear_time() {
    let long = 300_000;
    let open = "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n";
    let value = |kind: &str, text: &str| {
        format!("{open}<｜DSML｜parameter name=\"a\" string=\"{kind}\">{}", text.repeat(long / text.len()))
    };
    let texts = [
        "a<\n".repeat(long / 3),
        "\n".repeat(long),
        value("true", "x<"),
        value("false", "[1, "),
        value("maybe", "</｜DSML｜parameter> x"),
        value("true", "</｜DSML｜parameter>\n"),
        value("true", "</｜DSML｜invoke>\n"),
        format!("{open}<｜DSML｜parameter name=\"a\" string=\"true\">b</｜DSML｜parameter>{}", "\n".repeat(long)),
        format!("\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"{}", "\">".repeat(long / 2)),
        format!("{open}<｜DSML｜parameter name=\"{}", "\">".repeat(long / 2)),
        format!("{open}{{{}", "</｜DSML｜i".repeat(long / 15)),
        format!("<｜DSML｜function_calls>{}", " ".repeat(long)),
        "<｜DSML｜function_calls".repeat(long / 25),
        "<｜DSML｜invoke name=\"f\"/>\n".repeat(long / 30),
        "<".repeat(long),
        "<｜".repeat(long / 4),
    ];
    for text in texts {
        for start in [Start::Reasoning, Start::Content] {
            let begun = std::time::Instant::now();
            let expected = batch(&text, Version::V32, start);
            let (parsed, _) = stream(Version::V32, start, chars(&text));
            assert_eq!(parsed, expected);
            assert!(begun.elapsed().as_secs() < 5, "{}: {:?}", &text[..60], begun.elapsed());
        }
    }
}

/// Pieces of the formats.
const PIECES: &[&str] = &[
    "a",
    " ",
    "\n",
    "\n\n",
    "<",
    "</",
    "<｜",
    "</｜",
    "｜",
    "｜DSML｜",
    "<think>",
    "</think>",
    ">",
    "\"",
    "'",
    "{",
    "}",
    "{\"k\": 1}",
    "<｜end▁of▁sentence｜>",
    "<｜DSML｜function_calls>",
    "<｜DSML｜function_calls>\n",
    "</｜DSML｜function_calls>",
    "<｜DSML｜tool_calls>",
    "<｜DSML｜invoke",
    "<｜DSML｜invoke name=\"f\">\n",
    "</｜DSML｜invoke>",
    "</｜DSML｜invoke>\n",
    "<｜DSML｜invoke name=\"g\"/>",
    "<｜DSML｜parameter name=\"p\" string=\"true\">",
    "<｜DSML｜parameter name=\"q\" string=\"false\">",
    "<｜DSML｜parameter name=\"r\">",
    "</｜DSML｜parameter>",
    "</｜DSML｜parameter>\n",
    "<\n/｜DSML｜parameter>",
    "<｜DSML｜parameter name=\"input\" string=\"false\">",
    "<｜DSML｜parameter name=\"input\" string=\"true\">{",
    " name=\"n\"",
    " string=\"true\"",
    "é",
    "🔧",
    "12",
    "\u{1}",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "function",
    "<tool_call>",
    "<tool_call>f<arg_key>",
    "</arg_key>",
    "</arg_key><arg_value>",
    "</arg_value>",
    "</tool_call>",
    "<tool",
    "_call>",
    "\n```json\n",
    "\n```",
];

/// Text of a model gone wrong: pieces in any order.
fn noise() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// A completion of the vectors, with stretches of it replaced by pieces.
fn damaged() -> impl Strategy<Value = String> {
    let texts: Vec<String> = completions().into_iter().map(|(text, _)| text).filter(|text| text.len() < 700).collect();
    let damage = (any::<prop::sample::Index>(), 0..12usize, proptest::sample::select(PIECES));
    (proptest::sample::select(texts), proptest::collection::vec(damage, 0..4)).prop_map(|(text, damage)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, length, piece) in damage {
            let at = at.index(chars.len() + 1);
            let end = (at + length).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        chars.into_iter().collect()
    })
}

/// A tool with the parameters `p` and `q`.
fn tool() -> Tool {
    Tool::new("f", "", Json::parse(r#"{"type": "object", "properties": {"p": {}, "q": {}}}"#).unwrap())
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        4 => Just(Version::V32),
        1 => Just(Version::V31),
        1 => Just(Version::V3),
        1 => Just(Version::V3Dec2024),
        2 => Just(Version::Glm),
    ]
}

fn cut(text: &str, cuts: &[usize]) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (chars.len() + 1)).chain([0, chars.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| chars[pair[0]..pair[1]].iter().collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn any_split(
        text in prop_oneof![noise(), damaged()],
        version in version(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        thinks in any::<bool>(),
        tools in prop_oneof![Just(None), Just(Some(vec![])), Just(Some(vec![tool()]))],
    ) {
        let start = if thinks { Start::Reasoning } else { Start::Content };
        let mut options = ParseOptions::new(version, start);
        options.tools = tools;
        let expected = parse(&text, &options).unwrap();
        let (_, deltas) = stream_with(&options, [text.as_str()]);
        let expected_events = coalesced(deltas);
        let pieces = cut(&text, &cuts);
        for pieces in [pieces.iter().map(String::as_str).collect::<Vec<_>>(), chars(&text).collect()] {
            let (parsed, deltas) = stream_with(&options, pieces);
            if options.tools != Some(vec![]) {
                check(&parsed, &deltas, version);
            }
            prop_assert_eq!(&parsed, &expected);
            prop_assert_eq!(&coalesced(deltas), &expected_events);
        }
    }

    /// What strict mode accepts is what tolerant mode reads, unless values hold tags or are no JSON, or names hold
    /// what, in a tag with other blanks than the format's or with JSON as its body, would end the tag, or the content
    /// before calls ends with what a misspelt tag around them looks like.
    #[test]
    fn strict_agrees(text in prop_oneof![noise(), damaged()], thinks in any::<bool>()) {
        let start = if thinks { Start::Reasoning } else { Start::Content };
        let options = ParseOptions::new(Version::V32, start).strict();
        if let Ok(strict) = parse(&text, &options) {
            let plain = strict.message.tool_calls.iter().all(|call| {
                let Ok(Json::Object(entries)) = Json::parse(&call.arguments) else { return false };
                let attribute = entries.iter().any(|(key, _)| key.contains("string=\""));
                let json_body = call.name.contains('>') && call.name.contains('{');
                !attribute && !json_body && !format!("{}{}", call.name, call.arguments).contains("｜DSML｜")
            });
            let tolerant = batch(&text, Version::V32, start);
            let content = &strict.message.content;
            let end = content[content.floor_char_boundary(content.len().saturating_sub(80))..].to_ascii_lowercase();
            let misspelt = ["call", "func", "tool", "invo", "dsml"].iter().any(|word| end.contains(word));
            let plain = plain && (strict.message.tool_calls.is_empty() || !misspelt);
            if plain && !tolerant.incomplete {
                prop_assert_eq!(strict.message, tolerant.message);
            }
        }
    }
}
