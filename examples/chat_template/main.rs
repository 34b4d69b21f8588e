//! Writes prompts and reads completions, for people who debug prompts.
//!
//! ```bash
//! echo '{"messages": [{"role": "user", "content": "Hi"}]}' | cargo run --release --example chat_template -- --encode --thinking
//! printf 'Well</think>Hi!<｜end▁of▁sentence｜>' | cargo run --release --example chat_template -- --parse --thinking
//! cargo run --release --example chat_template -- --jsonl < tests/data/chat/encode.jsonl
//! ```
//!
//! `--encode` reads `{"messages": […], "context": […]}` (`context` may be absent) and prints the prompt, with no line
//! break behind it. `--parse` reads a completion, every byte of it, and prints the message. A conversation or completion
//! that does not follow the format gives one line on stderr and exit status 1.
//!
//! With `--jsonl` each line is a record: `{"name", "input", "args"}` with the input of `--encode` or `--parse`, or a
//! stream in `chunks` instead, or the `input` of a helper named `fn`. Its `args` go before the flags. Each gives one line,
//! `{"name", "output"}` or `{"name", "error"}`. `tests/data/chat` has such files.

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use deepseek_v32::chat::{
    Accumulator, EncodeOptions, Json, Message, ParseMode, ParseOptions, Start, StreamParser, Tool, Version,
    arguments_from_dsml, arguments_to_dsml, encode, parse, tools_block,
};

#[derive(Debug, Parser)]
#[command(about = "Writes prompts and reads completions in the chat formats of the DeepSeek-V3 family")]
struct Args {
    /// Read a conversation, print the prompt.
    #[arg(long, conflicts_with = "parse", required_unless_present_any = ["parse", "jsonl"])]
    encode: bool,
    /// Read a completion, print the message.
    #[arg(long)]
    parse: bool,
    /// The format: v3.2, v3.1, v3 (R1 and V3-0324) or v3-dec2024.
    #[arg(long, default_value_t = Version::V32)]
    version: Version,
    /// The model thinks.
    #[arg(long)]
    thinking: bool,
    /// Leave out the begin-of-sentence token.
    #[arg(long)]
    no_bos: bool,
    /// Keep reasoning before the last user message (V3.2 never writes it).
    #[arg(long)]
    keep_thinking: bool,
    /// Read what a model may write, not only what the published parser accepts; take arguments that are objects.
    #[arg(long)]
    tolerant: bool,
    /// Read records, one a line.
    #[arg(long)]
    jsonl: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

fn run(args: &Args) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    if args.jsonl {
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.context("stdin")?;
            if !line.trim_ascii().is_empty() {
                writeln!(stdout, "{}", json_line(&answer(&line, args)))?;
            }
        }
        return Ok(());
    }
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).context("stdin")?;
    let empty = Json::Object(Vec::new());
    if args.encode {
        let input = Json::parse(&input).context("the conversation is no JSON")?;
        write!(stdout, "{}", prompt(&input, &encode_options(&empty, args.version, args)?, args)?)?;
    } else {
        let options = parse_options(&empty, args.version, args);
        writeln!(stdout, "{}", wire(&parse(&input, &options)?.message))?;
    }
    Ok(stdout.flush()?)
}

/// One line of JSON, also for readers that take Unicode's line separators for line ends.
fn json_line(value: &Json) -> String {
    let text = value.to_string();
    text.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// The answer to a record.
fn answer(line: &[u8], args: &Args) -> Json {
    let record = std::str::from_utf8(line).map_err(|error| anyhow!(error));
    let record = record.and_then(|line| Json::parse(line).map_err(|error| anyhow!("no JSON: {error}")));
    let name = record.as_ref().ok().and_then(|record| record.get("name").cloned()).unwrap_or(Json::Null);
    let entry = match record.and_then(|record| output(&record, args)) {
        Ok(output) => ("output", output),
        Err(error) => ("error", Json::String(one_line(&error))),
    };
    object([("name", name), entry])
}

fn output(record: &Json, args: &Args) -> Result<Json> {
    let none = Json::Null;
    let field = |key: &str| record.get(key).unwrap_or(&none);
    let (own, input) = (field("args"), field("input"));
    let version = version(record, own, args)?;
    if let Some(function) = field("fn").as_str() {
        return helper(function, input);
    }
    if let Json::Array(chunks) = field("chunks") {
        let chunks: Option<Vec<&str>> = chunks.iter().map(Json::as_str).collect();
        let chunks = chunks.context("`chunks` are not all strings")?;
        let options = parse_options(own, version, args);
        if options.mode == ParseMode::Strict {
            return Ok(wire(&parse(&chunks.concat(), &options)?.message));
        }
        let mut parser = StreamParser::new(version, options.start);
        let mut message = Accumulator::new();
        for chunk in chunks {
            message.extend(parser.push(chunk));
        }
        message.extend(parser.finish());
        return Ok(wire(&message.finish()));
    }
    match input {
        Json::String(text) if !args.encode => Ok(wire(&parse(text, &parse_options(own, version, args))?.message)),
        Json::Object(_) | Json::Array(_) if !args.parse => {
            Ok(Json::String(prompt(input, &encode_options(own, version, args)?, args)?))
        }
        _ => bail!("`input` is neither a conversation nor a completion"),
    }
}

/// The format: as the record says, or as its name begins, or as the flags say.
fn version(record: &Json, own: &Json, args: &Args) -> Result<Version> {
    if let Some(name) = own.get("version").and_then(Json::as_str) {
        return Ok(name.parse()?);
    }
    let name = record.get("name").and_then(Json::as_str).unwrap_or_default();
    let prefixes = [("v3_dec2024", Version::V3Dec2024), ("v3_0324", Version::V3), ("v3_1", Version::V31)];
    let found = prefixes.into_iter().find(|(prefix, _)| name.starts_with(prefix));
    Ok(found.map_or(args.version, |(_, version)| version))
}

fn flag(own: &Json, key: &str) -> Option<bool> {
    match own.get(key) {
        Some(Json::Bool(value)) => Some(*value),
        _ => None,
    }
}

fn encode_options(own: &Json, version: Version, args: &Args) -> Result<EncodeOptions> {
    let thinking = match own.get("thinking_mode").map(|mode| (mode, mode.as_str())) {
        Some((_, Some("thinking"))) => true,
        Some((_, Some("chat"))) => false,
        Some((mode, _)) => bail!("thinking_mode is {mode}, expected \"chat\" or \"thinking\""),
        // `"thinking": null` is what a template takes for no thinking.
        None if own.get("thinking").is_some() => flag(own, "thinking").unwrap_or(false),
        None => args.thinking,
    };
    Ok(EncodeOptions {
        thinking,
        drop_thinking: flag(own, "drop_thinking").unwrap_or(!args.keep_thinking),
        add_bos: flag(own, "add_default_bos_token").unwrap_or(!args.no_bos),
        add_generation_prompt: flag(own, "add_generation_prompt").unwrap_or(true),
        ..EncodeOptions::new(version)
    })
}

fn parse_options(own: &Json, version: Version, args: &Args) -> ParseOptions {
    let thinking = match own.get("thinking_mode") {
        Some(mode) => mode.as_str() == Some("thinking"),
        None => flag(own, "thinking").unwrap_or(args.thinking),
    };
    let start = if thinking { Start::Reasoning } else { Start::Content };
    let options = ParseOptions::new(version, start);
    if args.tolerant { options } else { options.strict() }
}

/// The prompt of `{"messages", "context"}`, or of a list of messages.
fn prompt(input: &Json, options: &EncodeOptions, args: &Args) -> Result<String> {
    let list = |key: &str, list: Option<&Json>| -> Result<Vec<Message>> {
        match list {
            Some(list) => serde_json::from_str(&list.to_string()).with_context(|| key.to_string()),
            None => Ok(Vec::new()),
        }
    };
    let (messages, context) = match input {
        Json::Array(_) => (Some(input), None),
        input => (input.get("messages"), input.get("context")),
    };
    if messages.is_none() {
        bail!("there are no `messages`");
    }
    if let (Some(Json::Array(messages)), false) = (messages, args.tolerant) {
        messages.iter().try_for_each(arguments_are_text)?;
    }
    Ok(encode(&list("messages", messages)?, &list("context", context)?, options)?.into_text())
}

/// The published encoder takes arguments as text only; the library takes objects too.
fn arguments_are_text(message: &Json) -> Result<()> {
    let Some(Json::Array(calls)) = message.get("tool_calls") else { return Ok(()) };
    for call in calls {
        match call.get("function").and_then(|function| function.get("arguments")) {
            Some(Json::String(_)) | None => {}
            Some(other) => bail!("`arguments` are {other}, expected text"),
        }
    }
    Ok(())
}

/// The parts of the format.
fn helper(function: &str, input: &Json) -> Result<Json> {
    let text = |key: &str| input.get(key).and_then(Json::as_str).with_context(|| format!("`{key}` is no string"));
    match function {
        "to_json" => Ok(Json::String(input.to_python())),
        "encode_arguments_to_dsml" => Ok(Json::String(arguments_to_dsml(text("arguments")?)?)),
        "render_tools" => {
            let Json::Array(functions) = input else { bail!("`input` is no list of tools") };
            let tools: Result<Vec<Tool>, String> = functions.iter().cloned().map(Tool::from_function).collect();
            Ok(Json::String(tools_block(&tools.map_err(|error| anyhow!(error))?)))
        }
        "decode_dsml_to_arguments" => {
            let Some(Json::Object(entries)) = input.get("tool_args") else { bail!("`tool_args` is no object") };
            let pair = |(key, value): &'_ (String, Json)| -> Result<(String, String, bool)> {
                let Json::Array(pair) = value else { bail!("`{key}` is no pair") };
                match &pair[..] {
                    [Json::String(value), Json::String(kind)] => Ok((key.clone(), value.clone(), kind == "true")),
                    _ => bail!("`{key}` is no pair of strings"),
                }
            };
            let parameters: Vec<_> = entries.iter().map(pair).collect::<Result<_>>()?;
            let parameters = parameters.iter().map(|(key, value, kind)| (key.as_str(), value.as_str(), *kind));
            let arguments = Json::String(arguments_from_dsml(parameters));
            Ok(object([("name", Json::String(text("tool_name")?.to_string())), ("arguments", arguments)]))
        }
        other => bail!("no helper {other:?}"),
    }
}

/// A message with all its fields, empty ones too.
fn wire(message: &Message) -> Json {
    let text = |text: &str| Json::String(text.to_string());
    let calls = message.tool_calls.iter().map(|call| {
        let function = object([("name", text(&call.name)), ("arguments", text(&call.arguments))]);
        object([("type", text("function")), ("function", function)])
    });
    object([
        ("role", text("assistant")),
        ("content", text(&message.content)),
        ("reasoning_content", text(message.reasoning_content.as_deref().unwrap_or_default())),
        ("tool_calls", Json::Array(calls.collect())),
    ])
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Json {
    Json::Object(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}
