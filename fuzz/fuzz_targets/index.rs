//! Any text as `model.safetensors.index.json`: an answer or an error, and never a shard outside the directory.
#![no_main]

use std::path::{Component, Path};

use deepseek_v32::weights::parse_index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse_index(text) {
        Ok(index) => {
            for shard in index.weight_map.values() {
                let mut components = Path::new(shard).components();
                assert!(matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none());
            }
        }
        Err(error) => assert!(!error.at(Path::new("index")).to_string().contains('\n')),
    }
});
