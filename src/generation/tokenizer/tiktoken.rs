//! Tokenizers in tiktoken's format, as Moonlight and Kimi-K2 have them: `tiktoken.model` holds the tokens and their
//! ranks, `tokenizer_config.json` the control tokens.
//!
//! A line of `tiktoken.model` is a token in Base64, a space and its rank, which is its id. Encoding a word, the pair of
//! neighbours whose concatenation has the lowest rank is merged first, of several the leftmost, until no concatenation
//! is a token; a word that is a token as a whole is not split at all.
//!
//! The `tokenizers` crate merges by a list of pairs instead. Both give the same ids if the list has, for each token, the
//! pair that is left last when the token's own bytes are encoded, ordered by rank: while the parts of a word that make
//! up a token are neighbours, no merge has crossed the token's ends, so the merges between its ends were those of the
//! token alone. A token that never comes down to two parts needs no pair: it is found as a whole word only.
//!
//! # Source
//! The format: OpenAI's tiktoken. The split pattern, the number of reserved tokens and their names: `TikTokenTokenizer`
//! in the repositories of Moonlight-16B-A3B and Kimi-K2, where both are the same.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::super::byte_level::char_of;
use super::super::error::{GenerationError, Result};
use super::require_file;
use crate::config::json;
use crate::foreign::ForeignFile;
use crate::show::{one_line, quoted};

/// The ranks' file in a checkpoint folder.
pub(super) const RANKS_FILE: &str = "tiktoken.model";
/// The file with the control tokens.
const CONFIG_FILE: &str = "tokenizer_config.json";
/// The class of the tokenizers whose pattern and reserved tokens are known.
const CLASS: &str = "TikTokenTokenizer";

/// Words: runs of Han characters; other letters, with contractions; up to three digits; punctuation; white space.
const PATTERN: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Control tokens: their ids follow those of the tokens with ranks.
const CONTROL_TOKENS: u32 = 256;

/// The largest file that is read; Kimi-K2's takes 2.8 MB.
const MAX_BYTES: u64 = 32 << 20;
/// The longest token in bytes; Kimi-K2's longest has 256.
const MAX_TOKEN: usize = 512;
/// The longest line: such a token in Base64, a space, a rank and the line's end.
const MAX_LINE: u64 = (MAX_TOKEN as u64).div_ceil(3) * 4 + 16;
/// The largest `tokenizer_config.json` that is read; chat templates in it take some 10 kB.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What is wrong with a `tiktoken.model`. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RanksProblem {
    /// The file is the pointer that Git LFS leaves in place of a large file.
    #[error("is {}", ForeignFile::LfsPointer)]
    LfsPointer,
    /// The file is larger than any tokenizer's.
    #[error("larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// A line is not a token and a rank.
    #[error("line {line}: expected a token in Base64, a space and a rank, found {}", quoted(found))]
    Line {
        /// Which line.
        line: usize,
        /// Its beginning.
        found: String,
    },
    /// A token is longer than any tokenizer's.
    #[error("line {line}: the token is longer than {MAX_TOKEN} bytes")]
    TokenTooLong {
        /// Which line.
        line: usize,
    },
    /// Two lines have the same token.
    #[error("line {line}: the token has rank {first} already")]
    TokenTwice {
        /// The second of the lines.
        line: usize,
        /// The token's rank in the first of them.
        first: u32,
    },
    /// Two lines have the same rank.
    #[error("line {line}: rank {rank} stands on an earlier line already")]
    RankTwice {
        /// The second of the lines.
        line: usize,
        /// The rank.
        rank: u32,
    },
    /// The ranks are not 0 and the whole numbers after it.
    #[error("there is no rank {missing}, expected 0 to {} for {tokens} tokens", tokens - 1)]
    MissingRank {
        /// The smallest rank that is missing.
        missing: u32,
        /// Number of tokens.
        tokens: usize,
    },
    /// There is no token for a byte: a text with it could not be encoded.
    #[error("no token is the single byte {0:#04x}")]
    MissingByte(u8),
}

/// Reads the tokenizer of a folder.
pub(super) fn load(dir: &Path) -> Result<tokenizers::Tokenizer> {
    let path = dir.join(RANKS_FILE);
    let read = |source| GenerationError::TokenizerRead { path: path.clone(), source };
    require_file(&path).map_err(read)?;
    let file = File::open(&path).map_err(read)?;
    let tokens = read_ranks(file).map_err(|error| match error {
        ReadError::Io(source) => read(source),
        ReadError::Problem(problem) => GenerationError::TokenizerRanks { path: path.clone(), problem },
    })?;
    let control = control_tokens(&dir.join(CONFIG_FILE), tokens.len() as u32)?;
    build(&tokens, control)
        .map_err(|error| GenerationError::TokenizerFormat { path: path.clone(), message: error.to_string() })
}

enum ReadError {
    Io(std::io::Error),
    Problem(RanksProblem),
}

impl From<RanksProblem> for ReadError {
    fn from(problem: RanksProblem) -> Self {
        Self::Problem(problem)
    }
}

/// Returns the tokens in the order of their ranks, which are 0, 1 and so on without a gap.
fn read_ranks(file: impl Read) -> std::result::Result<Vec<Vec<u8>>, ReadError> {
    let mut reader = BufReader::new(file.take(MAX_BYTES + 1));
    let mut ranks: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut tokens: Vec<(u32, Vec<u8>, usize)> = Vec::new();
    let (mut line, mut bytes) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        bytes += reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(ReadError::Io)? as u64;
        if line.is_empty() {
            break;
        }
        if bytes > MAX_BYTES {
            return Err(RanksProblem::TooLarge.into());
        }
        if number == 1 && ForeignFile::of(&line) == Some(ForeignFile::LfsPointer) {
            return Err(RanksProblem::LfsPointer.into());
        }
        if line.len() as u64 > MAX_LINE {
            return Err(RanksProblem::TokenTooLong { line: number }.into());
        }
        let content = line.trim_ascii_end();
        // tiktoken skips empty lines.
        if content.is_empty() {
            continue;
        }
        let (token, rank) = parse_line(content)
            .ok_or_else(|| RanksProblem::Line { line: number, found: String::from_utf8_lossy(content).into_owned() })?;
        if token.len() > MAX_TOKEN {
            return Err(RanksProblem::TokenTooLong { line: number }.into());
        }
        if let Some(first) = ranks.insert(token.clone(), rank) {
            return Err(RanksProblem::TokenTwice { line: number, first }.into());
        }
        tokens.push((rank, token, number));
    }
    tokens.sort_by_key(|(rank, _, line)| (*rank, *line));
    for (expected, (rank, _, line)) in tokens.iter().enumerate() {
        let expected = expected as u32;
        if *rank < expected {
            return Err(RanksProblem::RankTwice { line: *line, rank: *rank }.into());
        }
        if *rank > expected {
            return Err(RanksProblem::MissingRank { missing: expected, tokens: tokens.len() }.into());
        }
    }
    if let Some(byte) = (0..=u8::MAX).find(|byte| !ranks.contains_key([*byte].as_slice())) {
        return Err(RanksProblem::MissingByte(byte).into());
    }
    Ok(tokens.into_iter().map(|(_, token, _)| token).collect())
}

/// Reads a token in Base64, a space and a rank.
fn parse_line(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let token = decode_base64(&line[..space])?;
    let rank = line[space + 1..].trim_ascii_start();
    let is_number = !rank.is_empty() && rank.iter().all(u8::is_ascii_digit);
    let rank = std::str::from_utf8(rank).ok().filter(|_| is_number)?.parse().ok()?;
    (!token.is_empty()).then_some((token, rank))
}

/// Decodes Base64 with `+`, `/` and padding; `None` if the text is not in canonical form.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for &byte in &text[..text.len() - padding] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0).then_some(bytes)
}

/// Reads the control tokens of `tokenizer_config.json`, in the order of their ids, which begin at `first`; those that
/// the file does not name are reserved.
fn control_tokens(path: &Path, first: u32) -> Result<Vec<AddedToken>> {
    let read = |source| GenerationError::TokenizerRead { path: path.to_path_buf(), source };
    let format = |message: String| GenerationError::TokenizerFormat { path: path.to_path_buf(), message };
    require_file(path).map_err(read)?;
    let mut text = String::new();
    File::open(path).map_err(read)?.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(format(format!("larger than {} MiB", MAX_CONFIG_BYTES >> 20)));
    }
    let config = json::parse(&text).map_err(|error| format(format!("invalid JSON: {error}")))?;
    let class = &config["tokenizer_class"];
    if class != CLASS {
        return Err(format(format!(
            "tokenizer_class is {}: the split pattern of {RANKS_FILE} is known for {CLASS} only",
            json::describe(class)
        )));
    }
    let mut named: HashMap<u32, AddedToken> = HashMap::new();
    let entries = config["added_tokens_decoder"].as_object();
    for (key, entry) in entries.into_iter().flatten() {
        let place = format!("added_tokens_decoder: `{}`", one_line(key));
        let last = first + CONTROL_TOKENS - 1;
        let id = key.parse().ok().filter(|id| (first..=last).contains(id));
        let id = id.ok_or_else(|| format(format!("{place}: expected an id from {first} to {last}")))?;
        let content = entry["content"].as_str().filter(|content| !content.is_empty());
        let content = content.ok_or_else(|| format(format!("{place}: expected a text as `content`")))?;
        let special = entry["special"] == Value::Bool(true);
        named.insert(id, AddedToken::from(content, special).normalized(false));
    }
    let reserved = |id| AddedToken::from(format!("<|reserved_token_{id}|>"), true);
    let tokens = (first..first + CONTROL_TOKENS).map(|id| named.remove(&id).unwrap_or_else(|| reserved(id)));
    Ok(tokens.collect())
}

fn build(tokens: &[Vec<u8>], control: Vec<AddedToken>) -> tokenizers::Result<tokenizers::Tokenizer> {
    let ranks: HashMap<&[u8], u32> = tokens.iter().zip(0..).map(|(token, rank)| (token.as_slice(), rank)).collect();
    let written = |bytes: &[u8]| bytes.iter().map(|&byte| char_of(byte)).collect::<String>();
    let merges = tokens.iter().filter_map(|token| {
        let at = last_split(token, &ranks)?;
        Some((written(&token[..at]), written(&token[at..])))
    });
    let vocab: Vocab = tokens.iter().zip(0..).map(|(token, rank)| (written(token), rank)).collect();
    let model = BPE::builder().vocab_and_merges(vocab, merges.collect()).ignore_merges(true).build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let split = Split::new(SplitPattern::Regex(PATTERN.to_string()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])));
    tokenizer.with_decoder(Some(bytes));
    let first = tokens.len() as u32;
    for (token, id) in control.into_iter().zip(first..) {
        let content = token.content.clone();
        tokenizer.add_tokens([token])?;
        let found = tokenizer.token_to_id(&content);
        if found != Some(id) {
            let found = found.map_or("none".to_string(), |found| found.to_string());
            return Err(format!("the control token `{}` has id {found}, expected {id}", one_line(&content)).into());
        }
    }
    Ok(tokenizer)
}

/// Returns where the two parts meet that are left last when `token` is encoded by ranks; `None` if it is a single byte
/// or never comes down to two parts.
fn last_split(token: &[u8], ranks: &HashMap<&[u8], u32>) -> Option<usize> {
    let rank_of = |start: usize, end: usize| ranks.get(&token[start..end]).copied().unwrap_or(u32::MAX);
    // Where each part begins, and the rank of what it and the next part make together.
    let mut parts: Vec<(usize, u32)> = (0..token.len()).map(|at| (at, u32::MAX)).collect();
    for (at, part) in parts.iter_mut().enumerate().take(token.len().saturating_sub(1)) {
        part.1 = rank_of(at, at + 2);
    }
    let end = |parts: &[(usize, u32)], part: usize| parts.get(part + 1).map_or(token.len(), |next| next.0);
    while parts.len() > 2 {
        // Of equal ranks, `min_by_key` returns the first.
        let (at, &(_, rank)) = parts.iter().enumerate().min_by_key(|(_, part)| part.1)?;
        if rank == u32::MAX {
            return None;
        }
        parts.remove(at + 1);
        for part in [at.checked_sub(1), Some(at)].into_iter().flatten() {
            let is_last = part + 1 == parts.len();
            parts[part].1 = if is_last { u32::MAX } else { rank_of(parts[part].0, end(&parts, part + 1)) };
        }
    }
    parts.get(1).map(|part| part.0)
}
