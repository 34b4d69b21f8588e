//! A reader of V3.2's answers that accepts just the format, and random answers within a constraint.

#![allow(dead_code)]

use deepseek_v32::chat::{Json, ParseOptions, Start, Version, parse};
use deepseek_v32::generation::{Constraint, SpecialTokens, Tokenizer};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// An answer, read.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Read {
    pub reasoning: Option<String>,
    pub content: String,
    /// Names and arguments as JSON text.
    pub calls: Vec<(String, String)>,
}

const FORBIDDEN: [&str; 5] = ["<think>", "</think>", "｜DSML｜", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"];

fn plain(text: &str) -> Result<String, String> {
    match FORBIDDEN.iter().find(|&&token| text.contains(token)) {
        Some(token) => Err(format!("{token} in {text:?}")),
        None => Ok(text.to_string()),
    }
}

fn after<'a>(text: &'a str, prefix: &str) -> Result<&'a str, String> {
    text.strip_prefix(prefix)
        .ok_or_else(|| format!("expected {prefix:?} at {:?}", &text[..text.floor_char_boundary(80)]))
}

fn until<'a>(text: &'a str, end: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(end).ok_or_else(|| format!("no {end:?} in {:?}", &text[..text.floor_char_boundary(80)]))
}

/// Reads an answer without its end token, or says what is wrong. The crate's own strict reader must agree.
pub fn read(text: &str, thinking: bool) -> Result<Read, String> {
    let read = read_alone(text, thinking)?;
    let start = if thinking { Start::Reasoning } else { Start::Content };
    let text = format!("{text}<｜end▁of▁sentence｜>");
    let parsed = parse(&text, &ParseOptions::new(Version::V32, start).strict()).map_err(|error| error.to_string())?;
    let calls: Vec<_> = parsed.message.tool_calls.iter().map(|call| call.name.as_str()).collect();
    let same = parsed.message.content == read.content
        && parsed.message.reasoning_content.unwrap_or_default() == read.reasoning.clone().unwrap_or_default()
        && calls == read.calls.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        && parsed
            .message
            .tool_calls
            .iter()
            .zip(&read.calls)
            .all(|(call, (_, arguments))| Json::parse(&call.arguments).ok() == Json::parse(arguments).ok());
    let tolerant = parse(&text, &ParseOptions::new(Version::V32, start)).map_err(|error| error.to_string())?.message;
    let (tolerant, strict) = (tolerant.tool_calls, parsed.message.tool_calls);
    let as_strict = tolerant.len() == strict.len()
        && tolerant.iter().zip(&strict).all(|(tolerant, strict)| {
            tolerant.name == strict.name && Json::parse(&tolerant.arguments).ok() == Json::parse(&strict.arguments).ok()
        });
    if same && as_strict { Ok(read) } else { Err(format!("read otherwise by the crate: {text}")) }
}

fn read_alone(text: &str, thinking: bool) -> Result<Read, String> {
    let mut read = Read::default();
    let mut text = text;
    if thinking {
        let (reasoning, rest) = until(text, "</think>")?;
        read.reasoning = Some(plain(reasoning)?);
        text = rest;
    }
    let Some((content, block)) = text.split_once("\n\n<｜DSML｜function_calls>\n") else {
        read.content = plain(text)?;
        return Ok(read);
    };
    read.content = plain(content)?;
    let mut rest = block;
    loop {
        let (name, body) = until(after(rest, "<｜DSML｜invoke name=\"")?, "\">\n")?;
        let mut arguments: Vec<(String, String)> = Vec::new();
        rest = body;
        if let Some(empty) = rest.strip_prefix("\n</｜DSML｜invoke>") {
            rest = empty;
        } else {
            loop {
                let (key, value) = until(after(rest, "<｜DSML｜parameter name=\"")?, "\" string=\"")?;
                if arguments.iter().any(|(known, _)| known == key) {
                    return Err(format!("parameter {key:?} twice"));
                }
                let string = value.starts_with("true\">");
                let value = if string { after(value, "true\">")? } else { after(value, "false\">")? };
                let (value, next) = until(value, "/｜DSML｜parameter")?;
                let value = value.strip_suffix('<').ok_or("a value without its end")?;
                let value = if string { serde_json::to_string(value).unwrap() } else { value.to_string() };
                arguments.push((key.to_string(), value));
                rest = after(next, ">\n")?;
                if let Some(next) = rest.strip_prefix("</｜DSML｜invoke>") {
                    rest = next;
                    break;
                }
            }
        }
        let entries: Vec<_> =
            arguments.iter().map(|(key, value)| format!("{}: {value}", serde_json::to_string(key).unwrap())).collect();
        read.calls.push((name.to_string(), format!("{{{}}}", entries.join(", "))));
        rest = after(rest, "\n")?;
        if let Some(end) = rest.strip_prefix("</｜DSML｜function_calls>") {
            return if end.is_empty() { Ok(read) } else { Err(format!("{end:?} after the block")) };
        }
    }
}

/// Whether JSON text follows a schema. A number beyond f64 is JSON, but no validator takes it.
pub fn follows(schema: &Value, text: &str) -> Result<(), String> {
    let json = Json::parse(text).map_err(|error| format!("{error} in {text}"))?;
    let value: Value = match serde_json::from_str(&json.to_string()) {
        Ok(value) => value,
        Err(error) if error.to_string().contains("out of range") => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let validator =
        jsonschema::options().should_validate_formats(true).build(schema).map_err(|error| error.to_string())?;
    validator.validate(&value).map_err(|error| format!("{error} in {text}"))
}

/// What a random answer tries to write now and then: to reach its end, or to violate the grammar.
const WISHES: [&str; 21] = [
    "</｜DSML｜parameter>",
    "</｜DSML｜parameter>",
    "</｜DSML｜parameter>",
    "</｜DSML｜parameter>",
    "\"",
    "\"",
    "]",
    "]",
    "}",
    "}",
    "</think>",
    "</think>",
    "\n\n<｜DSML｜function_calls>\n",
    "\n\n<｜DSML｜function_calls>\n",
    "\n</｜DSML｜invoke>\n",
    "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "<｜DSML｜parameter name=\"x\" string=\"false\">",
    "x/｜DSML｜parameter>\n",
    "｜DSML｜",
    "<think>",
    "\\\"</｜DSML｜parameter>",
];

/// Tokens chosen at random among those allowed, up to the end token; `None` if it does not end within `max`.
pub fn random(
    constraint: &mut dyn Constraint,
    tokenizer: &Tokenizer,
    eos: u32,
    seed: u64,
    max: usize,
) -> Result<Option<Vec<u32>>, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let texts: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32)
        .map(|id| tokenizer.decode(&[id], SpecialTokens::Keep).unwrap().into_bytes())
        .collect();
    let mut ids = Vec::new();
    let mut wish: Vec<u8> = Vec::new();
    while ids.len() < max {
        let allowed = constraint.allowed()?;
        let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32 + 64)
            .filter(|&id| allowed.as_ref().is_none_or(|allowed| allowed.contains(id)))
            .collect();
        if allowed.is_empty() {
            return Err("nothing is allowed".to_string());
        }
        if let Some(beyond) = allowed.iter().find(|&&id| texts.get(id as usize).is_none_or(Vec::is_empty)) {
            return Err(format!("token {beyond} without text is allowed"));
        }
        if allowed.contains(&eos) && rng.random_bool(if ids.len() > max / 2 { 1.0 } else { 0.3 }) {
            constraint.accept(eos)?;
            return Ok(Some(ids));
        }
        if wish.is_empty() && rng.random_bool(if ids.len() > max / 4 { 0.7 } else { 0.15 }) {
            wish = WISHES.choose(&mut rng).unwrap().as_bytes().to_vec();
        }
        let fits = |id: &&u32| !texts[**id as usize].is_empty() && wish.starts_with(&texts[**id as usize]);
        let wished: Vec<u32> = allowed.iter().filter(fits).copied().collect();
        let id = match wished.choose(&mut rng) {
            Some(&id) => {
                wish.drain(..texts[id as usize].len());
                id
            }
            None => {
                wish.clear();
                *allowed.choose(&mut rng).unwrap()
            }
        };
        constraint.accept(id)?;
        if id == eos {
            return Ok(Some(ids));
        }
        ids.push(id);
    }
    Ok(None)
}
