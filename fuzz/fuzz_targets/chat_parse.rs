//! Any text as a completion, in every version and mode: no markup in content or reasoning, arguments that are JSON
//! objects, and the strict reading where there is one and it has neither.
#![no_main]

use deepseek_v32::chat::{EncodeOptions, Json, Message, ParseOptions, Start, ToolCall, Version, encode, parse};
use libfuzzer_sys::fuzz_target;

fn is_object(text: &str) -> bool {
    matches!(Json::parse(text), Ok(Json::Object(_)))
}

/// Whether a call's names hold what, in a tag with other blanks than the format's or with JSON as its body, would end the
/// tag: the published parser takes all of it for the name.
fn names_hold_tags(call: &ToolCall) -> bool {
    let attribute = match Json::parse(&call.arguments) {
        Ok(Json::Object(entries)) => entries.iter().any(|(key, _)| key.contains("string=\"")),
        _ => false,
    };
    attribute || (call.name.contains('>') && call.name.contains('{'))
}

fuzz_target!(|text: &str| {
    for version in Version::ALL {
        for start in [Start::Reasoning, Start::Content] {
            let options = ParseOptions::new(version, start);
            let parsed = parse(text, &options).expect("tolerant mode reads anything");
            let message = &parsed.message;
            let mark = if version == Version::V32 { "｜DSML｜" } else { "<｜tool▁call▁begin｜>" };
            assert!(!message.content.contains(mark));
            assert!(!message.reasoning_content.as_deref().unwrap_or_default().contains(mark));
            assert!(message.tool_calls.iter().all(|call| is_object(&call.arguments)));
            // What was read can be written.
            let conversation = [Message::user(""), message.clone()];
            encode(&conversation, &[], &EncodeOptions::new(version)).expect("a message that can be written");

            let Ok(strict) = parse(text, &options.strict()) else { continue };
            let plain = strict.message.tool_calls.iter().all(|call| {
                is_object(&call.arguments)
                    && !names_hold_tags(call)
                    && !call.name.contains(mark)
                    && !call.arguments.contains(mark)
            });
            if plain && !parsed.incomplete {
                assert_eq!(strict.message, *message);
            }
        }
    }
});
