//! Any JSON as a list of messages, in every version and mode: a prompt whose pieces are its text, or an error of one
//! line. What is rendered after a context is the end of the whole.
#![no_main]

use deepseek_v32::chat::{EncodeOptions, Json, Message, Version, encode, order_results};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(value) = Json::parse(text) {
        let python = value.to_python();
        if let Ok(again) = Json::parse(&python) {
            assert_eq!(again.to_python(), python);
        }
    }
    let Ok(mut messages) = serde_json::from_str::<Vec<Message>>(text) else { return };
    for version in Version::ALL {
        for thinking in [false, true] {
            let options = EncodeOptions { add_generation_prompt: false, ..EncodeOptions::new(version) }.with_thinking(thinking);
            let whole = match encode(&messages, &[], &options) {
                Ok(prompt) => prompt,
                Err(error) => {
                    assert!(!error.to_string().contains('\n'), "{error}");
                    continue;
                }
            };
            let joined: String = whole.pieces().map(|piece| piece.text).collect();
            assert_eq!(joined, whole.text());
            for at in 1..messages.len() {
                if let Ok(rest) = encode(&messages[at..], &messages[..at], &options) {
                    assert!(whole.text().ends_with(rest.text()));
                }
            }
        }
    }
    let _ = order_results(&mut messages);
});
