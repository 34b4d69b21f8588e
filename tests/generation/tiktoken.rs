//! Tokenizers in tiktoken's format.

use std::fs;
use std::path::Path;

use deepseek_v32::generation::{GenerationError, RanksProblem, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tokenizer");

fn golden() -> Vec<Value> {
    let text = fs::read_to_string(Path::new(FOLDER).join("ids.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn an_excerpt_of_kimi_k2_gives_the_ids_of_tiktoken() {
    let tokenizer = Tokenizer::load(FOLDER).unwrap();
    assert_eq!(tokenizer.vocab_size(), 754 + 256);
    for line in golden() {
        let text = line["text"].as_str().unwrap();
        let expected = ids(&line["ids"]);
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{text:?}");
        let all = 0..text.len();
        let plain = tokenizer.encode_guarded(text, std::slice::from_ref(&all)).unwrap();
        assert_eq!(plain, ids(&line["plain"]), "{text:?}");
        assert_eq!(tokenizer.decode(&expected, SpecialTokens::Keep).unwrap(), text);
        let mut detokenizer = tokenizer.detokenizer(SpecialTokens::Keep);
        let mut streamed: String = expected.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
        streamed.push_str(&detokenizer.finish().unwrap());
        assert_eq!(streamed, text);
    }
}

/// Run with the folder of a whole vocabulary: `KIMI_K2=FOLDER cargo test --test generation -- --ignored whole`.
#[test]
#[ignore = "needs Kimi-K2's tiktoken.model and tokenizer_config.json in the folder $KIMI_K2"]
fn the_whole_vocabulary_of_kimi_k2_gives_the_ids_of_tiktoken() {
    let tokenizer = Tokenizer::load(std::env::var("KIMI_K2").unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 163_840);
    for line in golden() {
        let text = line["text"].as_str().unwrap().replace("reserved_token_854", "reserved_token_163684");
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids(&line["kimi_ids"]), "{text:?}");
    }
}

#[test]
fn control_tokens_follow_the_ranks() {
    let tokenizer = Tokenizer::load(FOLDER).unwrap();
    for (token, id, text) in [
        ("[BOS]", 754, ""),
        ("<|im_end|>", 756, ""),
        ("<|tool_calls_section_begin|>", 765, "<|tool_calls_section_begin|>"),
        ("<think>", 776, "<think>"),
        ("<|reserved_token_854|>", 854, ""),
        ("[PAD]", 1009, ""),
    ] {
        assert_eq!(tokenizer.token_to_id(token), Some(id));
        assert_eq!(tokenizer.decode(&[id], SpecialTokens::Drop).unwrap(), text);
    }
    assert_eq!(tokenizer.find_control_token("a <|im_end|> b"), Some("<|im_end|>"));
}

// ---- ranks against merges

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}

/// A folder with the single bytes and then these tokens.
fn folder(tokens: &[&str]) -> TempDir {
    let mut lines: Vec<String> = (0..=255).map(|byte: u8| base64(&[byte])).collect();
    lines.extend(tokens.iter().map(|token| base64(token.as_bytes())));
    let lines: String = lines.iter().enumerate().map(|(rank, token)| format!("{token} {rank}\n")).collect();
    folder_of(&lines)
}

fn folder_of(model: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("tiktoken.model"), model).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), json!({"tokenizer_class": "TikTokenTokenizer"}).to_string())
        .unwrap();
    dir
}

/// Encodes a word by ranks as tiktoken does: again and again the leftmost pair of lowest rank.
fn by_ranks(word: &str, tokens: &[&str]) -> Vec<u32> {
    let rank = |text: &str| match tokens.iter().position(|token| *token == text) {
        Some(at) => Some(256 + at as u32),
        None if text.len() == 1 => Some(u32::from(text.as_bytes()[0])),
        None => None,
    };
    if let Some(whole) = rank(word) {
        return vec![whole];
    }
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    loop {
        let pairs = parts.windows(2).enumerate();
        let ranked = pairs.filter_map(|(at, pair)| rank(&pair.concat()).map(|rank| (rank, at)));
        let Some((_, at)) = ranked.min() else { break };
        let right = parts.remove(at + 1);
        parts[at].push_str(&right);
    }
    parts.iter().map(|part| rank(part).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Vocabularies that no training gives: tokens whose parts are no tokens, or have higher ranks than they.
    #[test]
    fn merges_are_those_of_the_ranks(
        tokens in proptest::collection::btree_set("[ab]{2,6}|[abc]{2,3}", 1..24).prop_flat_map(|tokens| {
            Just(tokens.into_iter().collect::<Vec<_>>()).prop_shuffle()
        }),
        words in proptest::collection::vec("[abc]{1,24}", 8),
    ) {
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let dir = folder(&tokens);
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        for word in &words {
            prop_assert_eq!(tokenizer.encode(word, false).unwrap(), by_ranks(word, &tokens), "{} {:?}", word, &tokens);
        }
    }
}

// ---- malformed files

fn problem(model: &str) -> RanksProblem {
    match Tokenizer::load(folder_of(model).path()).unwrap_err() {
        GenerationError::TokenizerRanks { path, problem } => {
            assert!(path.ends_with("tiktoken.model"));
            problem
        }
        other => panic!("{other}"),
    }
}

#[test]
fn malformed_ranks_are_refused_by_line() {
    let line = |line: usize, found: &str| RanksProblem::Line { line, found: found.to_string() };
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2795286\n";
    let long = base64(&[b'a'; 600]);
    for (model, expected) in [
        (pointer.to_string(), RanksProblem::LfsPointer),
        ("IQ== 0\nIg==\n".into(), line(2, "Ig==")),
        ("IQ== 0\n\nIg== one\n".into(), line(3, "Ig== one")),
        ("IQ== 0\nIg== -1\n".into(), line(2, "Ig== -1")),
        ("IQ== 4294967296\n".into(), line(1, "IQ== 4294967296")),
        ("IQ= 0\n".into(), line(1, "IQ= 0")),
        ("IR== 0\n".into(), line(1, "IR== 0")),
        ("I*== 0\n".into(), line(1, "I*== 0")),
        (" 0\n".into(), line(1, " 0")),
        ("IQ== 0\nIQ== 1\n".into(), RanksProblem::TokenTwice { line: 2, first: 0 }),
        ("IQ== 0\nIg== 0\n".into(), RanksProblem::RankTwice { line: 2, rank: 0 }),
        ("IQ== 0\nIg== 2\n".into(), RanksProblem::MissingRank { missing: 1, tokens: 2 }),
        ("IQ== 0\nIg== 1\n".into(), RanksProblem::MissingByte(0)),
        (String::new(), RanksProblem::MissingByte(0)),
        (format!("{long} 0\n"), RanksProblem::TokenTooLong { line: 1 }),
        ("A".repeat(5000), RanksProblem::TokenTooLong { line: 1 }),
    ] {
        assert_eq!(problem(&model), expected, "{:?}", &model[..model.len().min(40)]);
    }
}

#[test]
fn control_tokens_that_do_not_fit_are_refused() {
    let dir = folder(&["ab"]);
    let path = dir.path().join("tokenizer_config.json");
    let refused = |config: &str| {
        fs::write(&path, config).unwrap();
        match Tokenizer::load(dir.path()).unwrap_err() {
            GenerationError::TokenizerFormat { message, .. } => message,
            other => panic!("{other}"),
        }
    };
    let with = |decoder: Value| {
        refused(&json!({"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": decoder}).to_string())
    };
    assert!(with(json!({"256": {"content": "<a>"}})).contains("expected an id from 257 to 512"));
    assert!(with(json!({"513": {"content": "<a>"}})).contains("expected an id from 257 to 512"));
    assert!(with(json!({"x": {"content": "<a>"}})).contains("`x`: expected an id"));
    assert!(with(json!({"300": {"content": ""}})).contains("`300`: expected a text"));
    // The same text as a token with a rank, or as another control token.
    assert!(with(json!({"300": {"content": "ab"}})).contains("`ab` has id 256, expected 300"));
    assert!(with(json!({"300": {"content": "<a>"}, "301": {"content": "<a>"}})).contains("`<a>` has id 300"));
    assert!(refused("{}").contains("known for TikTokenTokenizer only"));
    assert!(refused("[").contains("invalid JSON"));
    fs::remove_file(&path).unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err();
    assert!(matches!(error, GenerationError::TokenizerRead { path, .. } if path.ends_with("tokenizer_config.json")));
}

#[test]
fn a_pointer_in_place_of_tokenizer_json_is_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("tokenizer.json"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("Git LFS pointer"), "{error}");
}
