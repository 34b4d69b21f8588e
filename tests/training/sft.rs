//! What of a conversation is learnt: exactly what the model has to write.

use std::path::Path;

use deepseek_v32::chat::{EncodeOptions, Message, Version, encode, order_results};
use deepseek_v32::generation::Tokenizer;
use deepseek_v32::training::Example;
use deepseek_v32::training::sft::{Conversation, LearntTurns, SftOptions, Thinking, conversation, read_conversations};
use serde_json::{Value, json};

use crate::support::tiny_tokenizer;

const EOS: &str = "<｜end▁of▁sentence｜>";
/// What stands directly in front of what the model writes.
const OPENERS: [&str; 4] = [
    "<｜Assistant｜><think>",
    "<｜Assistant｜></think>",
    "</function_results>\n\n<think>",
    "</function_results>\n\n</think>",
];

/// The stretches of a V3.2 prompt that the model wrote, found in the text alone: from behind an opener to the end of the
/// sentence. `None` if the text holds such marks elsewhere, too.
fn written(text: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(EOS) {
        let turn = &rest[..end + EOS.len()];
        let openers = OPENERS.iter().flat_map(|opener| turn.match_indices(opener)).collect::<Vec<_>>();
        let [(at, opener)] = openers[..] else { return None };
        found.push(&turn[at + opener.len()..]);
        rest = &rest[end + EOS.len()..];
    }
    Some(found)
}

fn text(tokenizer: &Tokenizer, ids: impl Iterator<Item = u32>) -> String {
    String::from_utf8(ids.flat_map(|id| tokenizer.token_bytes(id)).collect()).unwrap()
}

fn learnt(tokenizer: &Tokenizer, example: &Example) -> String {
    let learnt = example.ids.iter().zip(&example.learnt).filter(|(_, learnt)| **learnt);
    text(tokenizer, learnt.map(|(&id, _)| id))
}

fn options(thinking: Thinking, turns: LearntTurns) -> SftOptions {
    SftOptions { version: Version::V32, thinking, turns }
}

/// Every recorded conversation of the published encoder that ends with the model: the ids are those of its prompt, the
/// learnt ones those of what the model wrote behind the last question.
#[test]
fn recorded_conversations() {
    let tokenizer = tiny_tokenizer();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat/encode.jsonl");
    let (mut compared, mut with_calls, mut with_reasoning) = (0, 0, 0);
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let (name, args) = (record["name"].as_str().unwrap(), &record["args"]);
        let Some(expected) = record["expected"].as_str() else { continue };
        let Ok(messages) = serde_json::from_value::<Vec<Message>>(record["input"]["messages"].clone()) else {
            continue;
        };
        let plain = record["input"].get("context").is_none_or(|context| context.as_array().is_none_or(Vec::is_empty));
        let usual = args["drop_thinking"] == true && args["add_default_bos_token"] == true;
        if !plain || !usual || !expected.ends_with(EOS) || record.get("tags").is_some() {
            continue;
        }
        let thinking = if args["thinking_mode"] == "thinking" { Thinking::Always } else { Thinking::Never };
        let Some(all) = written(expected) else { continue };
        let whole = Conversation { messages, tools: Vec::new() };
        let Ok(found) = conversation(&whole, &tokenizer, &options(thinking, LearntTurns::Last)) else {
            // A result whose id is that of another call, and the like.
            continue;
        };
        let [example] = &found[..] else { panic!("{name}") };
        assert_eq!(text(&tokenizer, example.ids.iter().copied()), expected, "{name}");
        assert_eq!(example.ids, tokenizer.encode_guarded(expected, &outside(&whole, thinking)).unwrap(), "{name}");
        // What stands behind the last question.
        let last = expected.rfind("<｜User｜>").unwrap_or(0);
        let before = written(&expected[..last]).map_or(0, |before| before.len());
        assert_eq!(learnt(&tokenizer, example), all[before..].concat(), "{name}");
        if thinking == Thinking::Never {
            let all_turns = conversation(&whole, &tokenizer, &options(thinking, LearntTurns::All)).unwrap();
            assert_eq!(learnt(&tokenizer, &all_turns[0]), all.concat(), "{name}");
        }
        compared += 1;
        with_calls += usize::from(all[before..].concat().contains("function_calls"));
        with_reasoning += usize::from(all[before..].concat().contains("</think>"));
    }
    assert!(compared >= 40 && with_calls >= 10 && with_reasoning >= 10, "{compared}, {with_calls}, {with_reasoning}");
}

/// The stretches from outside of the whole prompt, as the encoder tells them.
fn outside(conversation: &Conversation, thinking: Thinking) -> Vec<std::ops::Range<usize>> {
    let mut messages = conversation.messages.clone();
    order_results(&mut messages).unwrap();
    let options = EncodeOptions::new(Version::V32).with_thinking(thinking == Thinking::Always);
    encode(&messages, &[], &options).unwrap().outside()
}

fn read(messages: Value, tools: Value) -> Conversation {
    serde_json::from_value(json!({"messages": messages, "tools": tools, "parallel_tool_calls": true})).unwrap()
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}])
}

/// Two questions with reasoning, calls and a result.
fn agentic() -> Conversation {
    let call = json!({"id": "c", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
    read(
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "reasoning_content": "R1", "content": "A1"},
            {"role": "user", "content": "Two, </think> or <｜User｜>?"},
            {"role": "assistant", "reasoning_content": "R2", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "2"},
            {"role": "assistant", "reasoning_content": "R3", "content": "A3"},
        ]),
        tools(),
    )
}

const CALL: &str = "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"add\">\n<｜DSML｜parameter name=\"a\" string=\"false\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";

#[test]
fn every_turn_with_thinking_is_an_example() {
    let tokenizer = tiny_tokenizer();
    let found = conversation(&agentic(), &tokenizer, &options(Thinking::AsWritten, LearntTurns::All)).unwrap();
    let second = format!("R2</think>{CALL}{EOS}R3</think>A3{EOS}");
    let texts: Vec<_> = found.iter().map(|example| learnt(&tokenizer, example)).collect();
    assert_eq!(texts, [format!("R1</think>A1{EOS}"), second.clone()]);
    // The first turn's reasoning has gone from the second example.
    let all: Vec<_> = found.iter().map(|example| text(&tokenizer, example.ids.iter().copied())).collect();
    assert!(all[0].ends_with(&format!("<｜Assistant｜><think>R1</think>A1{EOS}")));
    assert!(all[1].contains(&format!("<｜Assistant｜></think>A1{EOS}<｜User｜>")) && !all[1].contains("R1"));
    assert!(all[1].contains("\"name\": \"add\""), "tools are in the prompt: {}", all[1]);
    let last = conversation(&agentic(), &tokenizer, &options(Thinking::AsWritten, LearntTurns::Last)).unwrap();
    assert_eq!(last, found[1..]);
    let never = conversation(&agentic(), &tokenizer, &options(Thinking::Never, LearntTurns::All)).unwrap();
    assert_eq!(never.len(), 1);
    assert_eq!(learnt(&tokenizer, &never[0]), format!("A1{EOS}{CALL}{EOS}A3{EOS}"));
    // The user's marks are text.
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    let count = |example: &Example, token: &str| example.ids.iter().filter(|&&i| i == id(token)).count();
    assert_eq!(count(&found[1], "<｜User｜>"), 2);
}

/// Ids that the model wrote stay what they are, even where the text would be tokenized in another way; an end that it did
/// not write is not learnt.
#[test]
fn written_ids_are_kept() {
    let tokenizer = tiny_tokenizer();
    let mut whole =
        read(json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "honey"}]), json!([]));
    let letters: Vec<u32> = "honey".chars().flat_map(|c| tokenizer.encode(&c.to_string(), false).unwrap()).collect();
    assert_ne!(letters, tokenizer.encode("honey", false).unwrap());
    whole.messages[1].written_ids = Some(letters.clone());
    let [example] = &conversation(&whole, &tokenizer, &SftOptions::default()).unwrap()[..] else { panic!() };
    let (prompt, rest) = example.ids.split_at(example.ids.len() - letters.len() - 1);
    assert_eq!(rest[..letters.len()], letters);
    assert_eq!(rest[letters.len()], tokenizer.token_to_id(EOS).unwrap());
    assert!(example.learnt[..prompt.len()].iter().all(|&learnt| !learnt));
    assert!(example.learnt[prompt.len()..example.ids.len() - 1].iter().all(|&learnt| learnt));
    assert!(!example.learnt[example.ids.len() - 1]);
}

/// Without thinking all formats learn the same.
#[test]
fn every_format_learns_its_answers() {
    let tokenizer = tiny_tokenizer();
    let whole = read(
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "A1"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "A2"},
        ]),
        json!([]),
    );
    for version in Version::ALL {
        let options = SftOptions { version, thinking: Thinking::Never, turns: LearntTurns::All };
        let [example] = &conversation(&whole, &tokenizer, &options).unwrap()[..] else { panic!("{version}") };
        assert_eq!(learnt(&tokenizer, example), format!("A1{EOS}A2{EOS}"), "{version}");
        let rendered = EncodeOptions { add_generation_prompt: false, ..EncodeOptions::new(version) };
        let prompt = encode(&whole.messages, &[], &rendered).unwrap();
        assert_eq!(text(&tokenizer, example.ids.iter().copied()), prompt.text(), "{version}");
    }
}

#[test]
fn options_are_read_by_name() {
    let read = |text: &str| serde_json::from_str::<SftOptions>(text);
    let found = read(r#"{"version": "v3.1", "thinking": "never", "turns": "last"}"#).unwrap();
    let expected = SftOptions { version: Version::V31, thinking: Thinking::Never, turns: LearntTurns::Last };
    assert_eq!(found, expected);
    assert_eq!(read(&serde_json::to_string(&found).unwrap()).unwrap(), expected);
    assert_eq!(read("{}").unwrap(), SftOptions::default());
    assert!(read(r#"{"version": "v9"}"#).unwrap_err().to_string().contains("v9"));
    assert!(read(r#"{"turn": "last"}"#).unwrap_err().to_string().contains("unknown field `turn`"));
}

#[test]
fn files_of_conversations() {
    let tokenizer = tiny_tokenizer();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chats.jsonl");
    let good =
        json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "weight": 1});
    std::fs::write(&file, format!("{good}\n\n{good}")).unwrap();
    let found = read_conversations(&file, &tokenizer, &SftOptions::default()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(learnt(&tokenizer, &found[1]), format!("Ho{EOS}"));
    let refused = |line: Value, part: &str| {
        std::fs::write(&file, format!("{good}\n{line}\n")).unwrap();
        let error = read_conversations(&file, &tokenizer, &SftOptions::default()).unwrap_err().to_string();
        assert!(error.contains("chats.jsonl:2: ") && error.contains(part), "{error}");
    };
    refused(json!({"prompt": "Hi"}), "missing field `messages`");
    refused(
        json!({"messages": [{"role": "user", "content": "Hi"}]}),
        "messages is none, expected an assistant's message",
    );
    refused(json!({"messages": [{"role": "robot", "content": "Hi"}]}), "robot");
    refused(json!({"messages": [{"role": "tool", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}), "");
    let mixed = json!({"messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"},
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "b", "reasoning_content": "r"},
        {"role": "assistant", "content": "c"},
    ]});
    refused(mixed, "reasoning_content");
}
