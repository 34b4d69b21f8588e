//! Tokenizer, streaming detokenizer and stop strings.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use deepseek_v32::generation::{Detokenizer, GenerationError, SpecialTokens, StopMatcher, Tokenizer};
use proptest::prelude::*;
use serde_json::json;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");
const VOCAB_SIZE: u32 = 2560;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::load(FOLDER).unwrap());

fn stream(detokenizer: &mut Detokenizer, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
    pieces.push(detokenizer.finish().unwrap());
    pieces
}

fn id(token: &str) -> u32 {
    TOKENIZER.token_to_id(token).unwrap()
}

// ---- detokenizer

#[test]
fn texts_come_back_in_whole_characters() {
    for text in [
        "",
        "hello  world\n",
        "深度求索：你好，世界！",
        "🦀👩‍👩‍👧‍👦 naïve 🇩🇪",
        "<think>\n½ ﷽</think>",
        "\u{0} \u{7f} \u{a0} \u{ad}",
        "{\"a\": [1, 23]}",
    ] {
        let ids = TOKENIZER.encode(text, false).unwrap();
        for special in [SpecialTokens::Drop, SpecialTokens::Keep] {
            let pieces = stream(&mut TOKENIZER.detokenizer(special), &ids);
            assert_eq!(pieces.concat(), text);
            assert!(!pieces.concat().contains('\u{fffd}'));
        }
    }
}

#[test]
fn a_character_in_three_tokens_is_held_back() {
    let ids: Vec<u32> = ["ä", "½", "ł"].iter().map(|token| id(token)).collect(); // the bytes of 你
    assert_eq!(stream(&mut TOKENIZER.detokenizer(SpecialTokens::Drop), &ids), ["", "", "你", ""]);
    assert_eq!(stream(&mut TOKENIZER.detokenizer(SpecialTokens::Drop), &ids[..2]), ["", "", "\u{fffd}"]);
    // A broken one comes out as soon as it is known to be.
    let broken = [ids[0], ids[1], id("!"), ids[2], id("!")];
    assert_eq!(
        stream(&mut TOKENIZER.detokenizer(SpecialTokens::Drop), &broken),
        ["", "", "\u{fffd}!", "\u{fffd}", "!", ""]
    );
}

#[test]
fn special_tokens_that_matter_stay() {
    let ids = [0, id("<think>"), id("!"), id("</think>"), id("<｜User｜>"), 1];
    let text = |special| stream(&mut TOKENIZER.detokenizer(special), &ids).concat();
    assert_eq!(text(SpecialTokens::Drop), "<think>!</think><｜User｜>");
    assert_eq!(text(SpecialTokens::Keep), "<｜begin▁of▁sentence｜><think>!</think><｜User｜><｜end▁of▁sentence｜>");

    // Even where the checkpoint marks them as special.
    let json = std::fs::read_to_string(Path::new(FOLDER).join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        token["special"] = true.into();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let dropped = stream(&mut tokenizer.detokenizer(SpecialTokens::Drop), &ids).concat();
    assert_eq!(dropped, "<think>!</think>");
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Drop).unwrap(), dropped);
}

/// A tokenizer with another decoder: bytes as `<0xE4>`, spaces as `▁`.
fn byte_fallback() -> (tempfile::TempDir, Tokenizer) {
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte.into())).collect();
    for (at, token) in ["▁a", "b", "▁"].into_iter().enumerate() {
        vocab.insert(token.into(), (256 + at).into());
    }
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    (folder, tokenizer)
}

#[test]
fn other_decoders_stream_too() {
    let (_folder, tokenizer) = byte_fallback();
    let ids = [256, 257, 0xe4, 0xbd, 0xa0, 258, 256, 0xe4, 0xbd];
    let pieces = stream(&mut tokenizer.detokenizer(SpecialTokens::Drop), &ids);
    assert_eq!(pieces, ["a", "b", "", "", "你", " ", " a", "", "", "\u{fffd}\u{fffd}"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any ids, also such as no text has and such as have no token: the pieces are the batch decode, and no piece
    /// holds half a character.
    #[test]
    fn pieces_are_the_batch_decode(
        ids in prop::collection::vec(prop_oneof![
            // Single bytes (3..259 after the three special tokens), any token, ids beyond the vocabulary.
            3 => 3u32..259,
            3 => 0..VOCAB_SIZE,
            1 => VOCAB_SIZE - 6..VOCAB_SIZE + 3,
            1 => Just(u32::MAX),
        ], 0..60),
        keep in any::<bool>(),
    ) {
        let special = if keep { SpecialTokens::Keep } else { SpecialTokens::Drop };
        let pieces = stream(&mut TOKENIZER.detokenizer(special), &ids);
        let text = pieces.concat();
        prop_assert_eq!(&text, &TOKENIZER.decode(&ids, special).unwrap());
        // The library itself says the same; this checkpoint marks no content token as special.
        prop_assert_eq!(&text, &TOKENIZER.inner().decode(&ids, !keep).unwrap());
    }

    #[test]
    fn texts_survive(text in "\\PC{0,40}") {
        let ids = TOKENIZER.encode(&text, false).unwrap();
        let pieces = stream(&mut TOKENIZER.detokenizer(SpecialTokens::Keep), &ids);
        let broken = |piece: &String| piece.contains(char::REPLACEMENT_CHARACTER);
        prop_assert!(broken(&text) || !pieces.iter().any(broken));
        prop_assert_eq!(pieces.concat(), text);
    }

    #[test]
    fn other_decoders_give_the_batch_decode(
        characters in prop::collection::vec(prop::sample::select(vec![
            &[256][..], &[257], &[258], &[0x41], &[0xc3, 0xa9], &[0xe4, 0xbd, 0xa0], &[0xf0, 0x9f, 0xa6, 0x80],
        ]), 0..30),
    ) {
        let (_folder, tokenizer) = byte_fallback();
        let ids = characters.concat();
        let pieces = stream(&mut tokenizer.detokenizer(SpecialTokens::Drop), &ids);
        prop_assert_eq!(pieces.concat(), tokenizer.decode(&ids, SpecialTokens::Drop).unwrap());
    }
}

// ---- tokenizer files

#[test]
fn bad_tokenizer_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let missing = Tokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(missing, GenerationError::TokenizerRead { .. }));
    assert!(missing.to_string().contains("tokenizer.json"), "{missing}");

    let good = std::fs::read(Path::new(FOLDER).join("tokenizer.json")).unwrap();
    let bad: [&[u8]; 9] = [
        b"",
        b"{",
        b"{}",
        b"null",
        b"\xff\xfe",
        br#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}"#,
        br#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}"#,
        br#"{"version": "1.0", "added_tokens": 3, "model": {"type": "BPE", "vocab": {}, "merges": []}}"#,
        &good[..good.len() / 2],
    ];
    for bytes in bad {
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::load(folder.path()).unwrap_err();
        assert!(matches!(error, GenerationError::TokenizerFormat { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_tokenizer_larger_than_the_model_is_refused() {
    assert_eq!(TOKENIZER.vocab_size(), 2560);
    assert!(TOKENIZER.check_vocab_size(2560).is_ok() && TOKENIZER.check_vocab_size(4096).is_ok());
    let error = TOKENIZER.check_vocab_size(2559).unwrap_err().to_string();
    assert!(error.contains("2560") && error.contains("2559") && error.contains("tokenizer.json"), "{error}");
}

// ---- stop strings

/// By the definition: the match that ends first, of those the longest, over the whole text.
fn expected(text: &str, stops: &[String]) -> (String, Option<String>) {
    for (end, _) in text.char_indices().skip(1).chain([(text.len(), ' ')]) {
        let longest = stops.iter().filter(|stop| text[..end].ends_with(*stop)).max_by_key(|stop| stop.len());
        if let Some(stop) = longest {
            return (text[..end - stop.len()].to_string(), Some(stop.clone()));
        }
    }
    (text.to_string(), None)
}

/// Feeds pieces until a stop string matches; checks on the way that nothing comes out too early or too late.
fn feed(pieces: &[String], stops: &[String]) -> (String, Option<String>) {
    let mut matcher = StopMatcher::new(stops);
    let mut fed = String::new();
    let mut out = String::new();
    for piece in pieces {
        fed.push_str(piece);
        let (text, stop) = matcher.push(piece);
        out.push_str(&text);
        if stop.is_some() {
            return (out, stop);
        }
        let held = fed.strip_prefix(&out).expect("text that was not fed");
        let beginnings = stops.iter().flat_map(|stop| stop.char_indices().map(|(at, _)| &stop[..at]));
        let longest = beginnings.filter(|beginning| fed.ends_with(beginning)).map(str::len).max();
        assert_eq!(held.len(), longest.unwrap_or(0), "{held:?} held back of {fed:?} for {stops:?}");
    }
    (out + &matcher.finish(), None)
}

#[test]
fn stop_strings_match_across_pieces() {
    let stops = ["STOP".to_string(), "世界!".to_string()];
    let feed = |pieces: &[&str]| feed(&pieces.iter().map(ToString::to_string).collect::<Vec<_>>(), &stops);
    assert_eq!(feed(&["a S", "T", "O", "Px"]), ("a ".into(), Some("STOP".into())));
    assert_eq!(feed(&["SSTSTOP"]), ("SST".into(), Some("STOP".into())));
    assert_eq!(feed(&["你好世", "界", "!"]), ("你好".into(), Some("世界!".into())));
    assert_eq!(feed(&["你好世", "界", "?STO"]), ("你好世界?STO".into(), None));
    assert_eq!(feed(&[]), (String::new(), None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stop_strings_match_whatever_the_pieces(
        text in "[abé]{0,24}",
        stops in prop::collection::vec("[abé]{1,5}", 0..4),
        cuts in prop::collection::vec(1usize..6, 24),
    ) {
        let chars: Vec<char> = text.chars().collect();
        let mut rest = chars.as_slice();
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece.iter().collect());
            rest = after;
        }
        prop_assert_eq!(feed(&pieces, &stops), expected(&text, &stops));
    }
}

#[test]
fn settings_left_from_training_do_not_touch_prompts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32/tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = "hello world how are you today";
    let expected = deepseek_v32::generation::Tokenizer::from_file(path).unwrap().encode(text, false).unwrap();
    json["truncation"] =
        serde_json::json!({"max_length": 2, "stride": 5, "direction": "Right", "strategy": "LongestFirst"});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 2, "pad_type_id": 0, "pad_token": "x"});
    json["model"]["dropout"] = serde_json::json!(0.9);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let found = deepseek_v32::generation::Tokenizer::from_file(&path).unwrap().encode(text, false).unwrap();
    assert_eq!(found, expected);
    assert!(deepseek_v32::generation::Tokenizer::from_file(dir.path()).unwrap_err().to_string().contains("not a file"));
}

// ---- tokenizers that no one should have written

/// The embedded checkpoint's tokenizer with a change, loaded; also how its file is called.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> (Result<Tokenizer, GenerationError>, String) {
    let text = std::fs::read_to_string(Path::new(FOLDER).join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    (Tokenizer::from_file(&path), path.display().to_string())
}

/// One line that names the file.
fn is_clear(error: &GenerationError, path: &str) -> bool {
    let line = error.to_string();
    line.contains(path) && !line.contains('\n') && line.len() < 500
}

#[test]
fn steps_that_panic_are_errors() {
    // The process's own hook sees every panic, and nothing takes its place.
    let seen = Arc::new(AtomicUsize::new(0));
    let (hook, count, this) = (std::panic::take_hook(), Arc::clone(&seen), std::thread::current().id());
    let others = Arc::new(hook);
    let after = Arc::clone(&others);
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == this {
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            others(info);
        }
    }));
    let (mut at_load, mut at_encode) = (0, 0);
    for (key, step) in [
        ("normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"})),
        ("normalizer", json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "x"})),
        ("normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": "x"})),
        ("normalizer", json!({"type": "Prepend", "prepend": ""})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": 3})),
        ("normalizer", json!("Lowercase")),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("pre_tokenizer", json!({"type": "CharDelimiterSplit", "delimiter": ""})),
    ] {
        let (tokenizer, path) = changed(|json| json[key] = step.clone());
        match tokenizer {
            Err(error @ GenerationError::TokenizerFormat { .. }) if is_clear(&error, &path) => at_load += 1,
            Ok(tokenizer) => match tokenizer.encode("hello 你好", false) {
                Err(error @ GenerationError::Tokenizer { .. }) if is_clear(&error, &path) => at_encode += 1,
                other => panic!("{step}: {other:?}"),
            },
            Err(error) => panic!("{step}: {error}"),
        }
    }
    assert!(at_load > 0 && at_encode > 0);

    let strip = json!({"type": "Strip", "content": "!", "start": 0, "stop": 5});
    let (tokenizer, path) = changed(|json| json["decoder"] = strip);
    let tokenizer = tokenizer.unwrap();
    let error = tokenizer.decode(&[id("!")], SpecialTokens::Keep).unwrap_err();
    assert!(matches!(error, GenerationError::Tokenizer { .. }) && is_clear(&error, &path), "{error}");
    assert!(tokenizer.detokenizer(SpecialTokens::Keep).push(id("!")).is_err());
    let caught = seen.load(Ordering::Relaxed);
    assert!(caught >= 3, "{caught} panics reached the hook");
    assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
    assert_eq!(seen.load(Ordering::Relaxed), caught + 1);
    drop(std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| after(info)));
}

#[test]
fn tokenizers_that_contradict_themselves_are_refused() {
    let other =
        |json: &serde_json::Value| json["model"]["vocab"].as_object().unwrap().keys().nth(300).cloned().unwrap();
    let longer = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    type Change = Box<dyn FnOnce(&mut serde_json::Value)>;
    let cases: [(&str, Change); 5] = [
        (
            "both have id 5",
            Box::new(move |json| {
                let (one, two) = (json["model"]["vocab"]["$"].clone(), other(json));
                json["model"]["vocab"][two] = json!(5);
                let five = json["model"]["vocab"].as_object().unwrap().values().filter(|id| **id == 5).count();
                assert!(five == 2 && !one.is_null());
            }),
        ),
        (
            "added_tokens: `<think>` has id 7",
            Box::new(|json| {
                let tokens = json["added_tokens"].as_array_mut().unwrap();
                tokens.iter_mut().find(|token| token["content"] == "<think>").unwrap()["id"] = json!(7);
            }),
        ),
        (
            "normalizer",
            Box::new(move |json| json["normalizer"] = json!({"type": "Sequence", "normalizers": vec![longer; 60]})),
        ),
        (
            "pre_tokenizer",
            Box::new(move |json| {
                json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![bytes; 60]});
            }),
        ),
        ("version", Box::new(|json| json["version"] = json!("9".repeat(100_000)))),
    ];
    for (part, change) in cases {
        let (tokenizer, path) = changed(change);
        let error = tokenizer.unwrap_err();
        assert!(matches!(error, GenerationError::TokenizerFormat { .. }) && is_clear(&error, &path), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let text = std::fs::read_to_string(Path::new(FOLDER).join("tokenizer.json")).unwrap();
    std::fs::write(&path, text.replacen("\"vocab\":", "\"vocab\": {}, \"vocab\":", 1)).unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("duplicate key `vocab`"), "{error}");
}
