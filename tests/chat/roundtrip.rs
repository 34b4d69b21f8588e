//! What is written reads back the same.

use deepseek_v32::chat::{
    EncodeOptions, Json, Message, ParseOptions, Role, Start, Tool, ToolCall, Version, encode, parse,
};
use proptest::prelude::*;

/// Text without markup, otherwise anything.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9 .,!?]{0,12}",
        2 => "[<>/\"'{}\\[\\]\\\\:&;=|]{0,4}",
        1 => "\n{1,3}",
        1 => "\\PC{0,6}",
        1 => Just("｜".to_string()),
        1 => Just("</".to_string()),
        1 => Just("\u{1}\t\r".to_string()),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn json(depth: u32) -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|n| Json::Number(n.to_string())),
        "[1-9][0-9]{0,40}".prop_map(Json::Number),
        any::<f64>().prop_filter("a number", |f| f.is_finite()).prop_map(|f| Json::parse(&format!("{f:?}")).unwrap()),
        text().prop_map(Json::String),
    ];
    leaf.prop_recursive(depth, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// Arguments as Python writes them: what survives a round trip byte for byte.
fn arguments() -> impl Strategy<Value = String> {
    proptest::collection::btree_map("[a-zA-Z_$.\\-\\[\\]é 名]{0,10}", json(2), 0..4)
        .prop_map(|map| Json::Object(map.into_iter().collect()).to_python())
}

fn call() -> impl Strategy<Value = ToolCall> {
    ("[a-zA-Z0-9_-]{1,24}", arguments()).prop_map(|(name, arguments)| ToolCall { id: None, name, arguments })
}

fn answer() -> impl Strategy<Value = Message> {
    let reasoning = text().prop_map(|text| Some(text).filter(|text| !text.is_empty()));
    (text(), reasoning, proptest::collection::vec(call(), 0..4)).prop_map(|(content, reasoning, calls)| {
        let mut message = Message::assistant(content);
        message.reasoning_content = reasoning;
        message.tool_calls = calls;
        message
    })
}

/// What the model would have written for a message, and in what state it began.
fn completion(message: &Message, options: &EncodeOptions) -> Option<(String, Start)> {
    let question = [Message::user("q")];
    let prompt = encode(&question, &[], options).unwrap();
    let whole = encode(&[question[0].clone(), message.clone()], &[], options).ok()?;
    Some((whole.text()[prompt.text().len()..].to_string(), prompt.start()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn v32(message in answer(), thinking in any::<bool>()) {
        let options = EncodeOptions::new(Version::V32).with_thinking(thinking);
        let mut expected = message.clone();
        if !thinking {
            expected.reasoning_content = None;
        }
        let Some((text, start)) = completion(&message, &options) else {
            // Neither reasoning nor calls while thinking.
            prop_assert!(thinking && message.reasoning_content.is_none() && message.tool_calls.is_empty());
            return Ok(());
        };
        let how = ParseOptions::new(Version::V32, start);
        let parsed = parse(&text, &how).unwrap();
        prop_assert_eq!(&parsed.message, &expected);
        prop_assert!(!parsed.incomplete && parsed.dropped.is_empty());
        prop_assert_eq!(&parse(&text, &how.strict()).unwrap().message, &expected);
        // What was read writes the same.
        prop_assert_eq!(completion(&parsed.message, &options).unwrap().0, text);
    }

    #[test]
    fn v31_and_v3(message in answer(), old in any::<bool>()) {
        let version = if old { Version::V3 } else { Version::V31 };
        let options = EncodeOptions::new(version);
        let mut expected = message.clone();
        expected.reasoning_content = None;
        // A message with content `<think>` has a reasoning for these versions.
        prop_assume!(!message.content.contains("think>"));
        let question = [Message::user("q")];
        let prompt = encode(&question, &[], &options).unwrap();
        let closed = EncodeOptions { add_generation_prompt: false, ..options };
        let whole = encode(&[question[0].clone(), message], &[], &closed).unwrap();
        let text = &whole.text()[prompt.text().len()..];
        let parsed = parse(text, &ParseOptions::new(version, prompt.start()).strict()).unwrap();
        prop_assert_eq!(parsed.message, expected);
    }

    /// Any conversation is either written or refused; what is written is its pieces.
    #[test]
    fn any_conversation(
        roles in proptest::collection::vec((0..5usize, text(), answer()), 0..8),
        thinking in any::<bool>(),
        split in 0..8usize,
        version in 0..4usize,
    ) {
        let role = [Role::System, Role::User, Role::Assistant, Role::Tool, Role::Developer];
        let messages: Vec<Message> = roles
            .into_iter()
            .map(|(at, content, answer)| match role[at] {
                Role::Assistant => answer,
                Role::System => Message::system(content.clone()).with_tools([Tool::new("f", content, Json::Null)]),
                role => Message::new(role, content),
            })
            .collect();
        let (context, rest) = messages.split_at(split.min(messages.len()));
        let options = EncodeOptions::new(Version::ALL[version]).with_thinking(thinking);
        if let Ok(prompt) = encode(rest, context, &options) {
            let joined: String = prompt.pieces().map(|piece| piece.text).collect();
            prop_assert_eq!(joined, prompt.text());
        }
    }

    /// What Python would write, Python's reader and ours agree on.
    #[test]
    fn python_text(value in json(3)) {
        let text = value.to_python();
        let again = Json::parse(&text).unwrap();
        prop_assert_eq!(again.to_python(), text);
    }
}
