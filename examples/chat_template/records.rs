//! Records, one a line.
//!
//! A record is `{"name", "input", "args"}`. The input is what `--encode` or `--parse` reads; instead of it there may be
//! `messages` (and `context`) in the record itself, or a completion in pieces, `chunks`. With `fn` the input is that of a
//! part of the format. Settings stand in `args` or in the record and go before the flags: `version`, `thinking_mode` (or
//! `mode`): `thinking` or `chat`, or `thinking`: true or false; `drop_thinking`, `add_default_bos_token`,
//! `add_generation_prompt`, `tolerant`, `no_tools`. A name that begins with `v3_1`, `v3_0324` or `v3_dec2024` is a version, too.

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result, anyhow, bail};
use deepseek_v32::chat::{
    Accumulator, Json, StreamParser, Tool, Version, arguments_from_dsml, arguments_to_dsml, tools_block,
};

use crate::common::error_line;
use crate::{Args, MAX_BYTES, Settings, line, message, object, prompt, shown, start, told};

/// Answers each line of the input with one line.
pub fn run(args: &Args, input: &mut impl BufRead, out: &mut impl Write) -> Result<()> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let length = input.take(MAX_BYTES as u64 + 1).read_until(b'\n', &mut bytes).context("stdin")?;
        if length == 0 {
            break;
        }
        let record = if length > MAX_BYTES && !bytes.ends_with(b"\n") {
            input.skip_until(b'\n').context("stdin")?;
            Err(anyhow!("longer than {} MB", MAX_BYTES >> 20))
        } else if bytes.trim_ascii().is_empty() {
            continue;
        } else {
            read(&bytes)
        };
        let name = record.as_ref().ok().and_then(|record| record.get("name").cloned()).or_else(|| first_name(&bytes));
        let answer = match record.and_then(|record| output(&record, args)) {
            Ok(output) => ("output", output),
            Err(error) if name.is_none() => ("error", Json::String(format!("line {number}: {}", error_line(&error)))),
            Err(error) => ("error", Json::String(error_line(&error))),
        };
        let answer = json_line(&object([("name", name.unwrap_or(Json::Null)), answer]));
        writeln!(out, "{answer}").context("standard output")?;
    }
    out.flush().context("standard output")
}

fn read(bytes: &[u8]) -> Result<Json> {
    let text = std::str::from_utf8(bytes).map_err(line).context("not UTF-8")?;
    // All of it is one line.
    let in_line = |error: serde_json::Error| {
        // JSON that nests too deep is JSON all the same; the record's own levels count.
        let what = if error.is_data() { "record" } else { "not JSON" };
        line(error.to_string().replace(" at line 1 column ", " at column ")).context(what)
    };
    match Json::parse(text.trim_end()).map_err(in_line)? {
        record @ Json::Object(_) => Ok(record),
        other => bail!("is {}, expected a record", shown(&other)),
    }
}

/// The name of a record that begins with it, even if the rest is no JSON.
fn first_name(bytes: &[u8]) -> Option<Json> {
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = text.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"name\"")?;
    let text = text.trim_ascii_start().strip_prefix(b":")?;
    serde_json::Deserializer::from_slice(text).into_iter().next()?.ok().map(Json::String)
}

/// One line of JSON, also for readers that take Unicode's line separators for line ends.
fn json_line(value: &Json) -> String {
    let text = value.to_string();
    text.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn output(record: &Json, args: &Args) -> Result<Json> {
    let input = record.get("input");
    if let Some(function) = record.get("fn").and_then(Json::as_str) {
        return part(function, input.unwrap_or(&Json::Null));
    }
    let settings = settings(record, args)?;
    if let Some(chunks) = record.get("chunks") {
        return stream(chunks, settings);
    }
    match (input, record.get("messages")) {
        (Some(Json::String(text)), _) if !args.encode => message(text, settings),
        (Some(input @ (Json::Object(_) | Json::Array(_))), _) if !args.parse => {
            prompt(input, settings).map(Json::String)
        }
        (None, Some(_)) if !args.parse => prompt(record, settings).map(Json::String),
        (None, _) => bail!("there is no `input`"),
        (Some(input), _) => {
            let expected = match (args.encode, args.parse) {
                (true, _) => "a conversation",
                (_, true) => "a completion",
                _ => "a conversation or a completion",
            };
            bail!("`input` is {}, expected {expected}", shown(input))
        }
    }
}

/// The message of a completion that comes in pieces.
fn stream(chunks: &Json, settings: Settings) -> Result<Json> {
    let pieces = match chunks {
        Json::Array(chunks) => chunks.iter().map(Json::as_str).collect(),
        _ => None,
    };
    let pieces: Vec<&str> = pieces.with_context(|| format!("`chunks` is {}, expected strings", shown(chunks)))?;
    if !settings.tolerant {
        return message(&pieces.concat(), settings);
    }
    let mut parser = StreamParser::new(settings.version, start(settings));
    if settings.no_tools {
        parser = parser.with_tools(&[]);
    }
    let mut message = Accumulator::new();
    for piece in pieces {
        message.extend(parser.push(piece));
    }
    message.extend(parser.finish());
    Ok(told(parser.parsed(message.finish())))
}

/// The settings of a record: its own, then those of the flags.
fn settings(record: &Json, args: &Args) -> Result<Settings> {
    let own = record.get("args");
    if let Some(own) = own.filter(|own| !matches!(own, Json::Object(_) | Json::Null)) {
        bail!("`args` is {}, expected an object", shown(own));
    }
    let field = |key: &str| own.and_then(|own| own.get(key)).or_else(|| record.get(key));
    let flag = |key: &str, default: bool| match field(key) {
        Some(Json::Bool(value)) => Ok(*value),
        None | Some(Json::Null) => Ok(default),
        Some(other) => Err(anyhow!("`{key}` is {}, expected true or false", shown(other))),
    };
    let given = Settings::from(args);
    let thinking = match field("thinking_mode").or_else(|| field("mode")) {
        Some(mode) => match mode.as_str() {
            Some("thinking") => true,
            Some("chat") => false,
            // Reading a completion, the published parser takes every other mode for chat.
            Some(_) if record.get("messages").is_none() && !is_conversation(record) => false,
            _ => bail!("`thinking_mode` is {}, expected \"thinking\" or \"chat\"", shown(mode)),
        },
        // `"thinking": null` is what a template takes for no thinking.
        None => flag("thinking", field("thinking").is_none() && given.thinking)?,
    };
    let tolerant = flag("tolerant", given.tolerant)?;
    Ok(Settings {
        version: version(record, field("version"), given.version)?,
        thinking,
        drop_thinking: flag("drop_thinking", given.drop_thinking)?,
        add_bos: flag("add_default_bos_token", given.add_bos)?,
        add_generation_prompt: flag("add_generation_prompt", given.add_generation_prompt)?,
        tolerant,
        absent_arguments: tolerant,
        no_tools: flag("no_tools", given.no_tools)?,
    })
}

fn is_conversation(record: &Json) -> bool {
    matches!(record.get("input"), Some(Json::Object(_) | Json::Array(_)))
}

/// The format: as the record says, or as its name begins, or as the flags say.
fn version(record: &Json, own: Option<&Json>, given: Version) -> Result<Version> {
    match own {
        None | Some(Json::Null) => {}
        Some(Json::String(name)) => return name.parse().map_err(line),
        Some(other) => bail!("`version` is {}, expected a name", shown(other)),
    }
    let name = record.get("name").and_then(Json::as_str).unwrap_or_default();
    let prefixes = [("v3_dec2024", Version::V3Dec2024), ("v3_0324", Version::V3), ("v3_1", Version::V31)];
    let found = prefixes.into_iter().find(|(prefix, _)| name.starts_with(prefix));
    Ok(found.map_or(given, |(_, version)| version))
}

/// A part of the format.
fn part(function: &str, input: &Json) -> Result<Json> {
    let text = |key: &str| input.get(key).and_then(Json::as_str).with_context(|| format!("`{key}` is no string"));
    match function {
        "to_json" => Ok(Json::String(input.to_python())),
        "encode_arguments_to_dsml" => Ok(Json::String(arguments_to_dsml(text("arguments")?).map_err(line)?)),
        "render_tools" => {
            let Json::Array(functions) = input else { bail!("`input` is no list of tools") };
            let tools: Result<Vec<Tool>, String> = functions.iter().cloned().map(Tool::from_function).collect();
            Ok(Json::String(tools_block(&tools.map_err(line)?)))
        }
        "decode_dsml_to_arguments" => {
            let Some(Json::Object(entries)) = input.get("tool_args") else { bail!("`tool_args` is no object") };
            let pair = |(key, value): &'_ (String, Json)| -> Result<(String, String, bool)> {
                let Json::Array(pair) = value else { bail!("{} is no pair", shown(value)) };
                match &pair[..] {
                    [Json::String(value), Json::String(kind)] => Ok((key.clone(), value.clone(), kind == "true")),
                    _ => bail!("{} is no pair of strings", shown(value)),
                }
            };
            let parameters: Vec<_> = entries.iter().map(pair).collect::<Result<_>>()?;
            let parameters = parameters.iter().map(|(key, value, kind)| (key.as_str(), value.as_str(), *kind));
            let arguments = Json::String(arguments_from_dsml(parameters));
            Ok(object([("name", Json::String(text("tool_name")?.to_string())), ("arguments", arguments)]))
        }
        other => Err(line(format!("no part of the format is named {other:?}"))),
    }
}
