//! Any text as `config.json` and as `generation_config.json`: an answer or an error. A config that is accepted is
//! written back and read again to the same value.
#![no_main]

use deepseek_v32::Config;
use deepseek_v32::weights::GenerationConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = GenerationConfig::from_json(text);
    match Config::from_json(text) {
        Ok(config) => {
            assert!(config.softmax_scale().is_finite());
            let again = Config::from_json(&config.to_json()).expect("what was written is valid");
            // Numbers are printed and read to within one unit in the last place.
            assert_eq!(again.mlp_layer_types, config.mlp_layer_types);
            assert_eq!(again.indexer_types, config.indexer_types);
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
