//! Writes prompts and reads completions, for people who debug prompts.
//!
//! ```bash
//! echo '{"messages": [{"role": "user", "content": "Hi"}]}' | cargo run --release --example chat_template -- --encode --thinking
//! printf 'Well</think>Hi!<｜end▁of▁sentence｜>' | cargo run --release --example chat_template -- --parse --thinking
//! cargo run --release --example chat_template -- --jsonl < tests/data/chat/encode.jsonl
//! ```
//!
//! `--encode` reads `{"messages": […], "context": […]}` (`context` may be absent) and prints the prompt, with no line
//! break behind it. `tools` and `response_format` beside the messages, as in a request, join those of the first system
//! message. `--parse` reads a completion, every byte of it, and prints the message. With `--tolerant`, a call that cannot
//! be read is content, and `tool_call_error` beside it says why; `dropped` lists what was taken for markup and is in no
//! call. Any error is one line on stderr and exit status 1.
//!
//! A call without `arguments` has none; records (`--jsonl`) refuse it, as the published encoder does, unless `--tolerant`.
//!
//! With `--jsonl` each line is a record, which gives one line: `{"name", "output"}` or `{"name", "error"}`. See
//! `chat_template/records.rs` for what a record may have, and `tests/data/chat` for files of them.

mod chat_template {
    pub mod records;
}
#[allow(dead_code)] // other examples use the rest
mod common;

use std::fmt::Display;
use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{ArgGroup, Parser};
use deepseek_v32::chat::{
    EncodeOptions, Json, Message, ParseOptions, Parsed, Role, Start, Tool, Version, encode, parse, place_tools,
};
use deepseek_v32::error::one_line;
use serde::de::DeserializeOwned;

/// The longest input, or line of it, that is read.
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Parser)]
#[command(about = "Writes prompts and reads completions in the chat formats of the DeepSeek-V3 family")]
#[command(group(ArgGroup::new("what").args(["encode", "parse", "jsonl"]).required(true).multiple(true)))]
struct Args {
    /// Read a conversation, print the prompt.
    #[arg(long, conflicts_with = "parse")]
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
    /// No tool was offered: nothing in a completion is a call (with --tolerant).
    #[arg(long)]
    no_tools: bool,
    /// Read records, one a line.
    #[arg(long)]
    jsonl: bool,
}

/// How a conversation or a completion is treated.
#[derive(Debug, Clone, Copy)]
struct Settings {
    version: Version,
    thinking: bool,
    drop_thinking: bool,
    add_bos: bool,
    add_generation_prompt: bool,
    tolerant: bool,
    /// A call may have no `arguments`, as in requests.
    absent_arguments: bool,
    no_tools: bool,
}

impl From<&Args> for Settings {
    fn from(args: &Args) -> Self {
        Self {
            version: args.version,
            thinking: args.thinking,
            drop_thinking: !args.keep_thinking,
            add_bos: !args.no_bos,
            add_generation_prompt: true,
            tolerant: args.tolerant,
            absent_arguments: args.tolerant || !args.jsonl,
            no_tools: args.no_tools,
        }
    }
}

fn main() -> ExitCode {
    common::start_filter(run)
}

fn run(args: Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.jsonl {
        return chat_template::records::run(&args, &mut std::io::stdin().lock(), &mut out);
    }
    let settings = Settings::from(&args);
    let input = read_stdin()?;
    let output = if args.encode {
        let input = Json::parse(&input).map_err(line).context("stdin: expected a conversation as JSON")?;
        prompt(&input, settings)?
    } else {
        format!("{}\n", message(&input, settings)?)
    };
    out.write_all(output.as_bytes()).and_then(|()| out.flush()).context("standard output")
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).context("stdin")?;
    ensure!(bytes.len() <= MAX_BYTES, "stdin: longer than {} MB", MAX_BYTES >> 20);
    String::from_utf8(bytes).map_err(|error| line(error.utf8_error())).context("stdin: not UTF-8")
}

/// An error whose text may quote what was read.
fn line(error: impl Display) -> anyhow::Error {
    anyhow!(one_line(&error.to_string()))
}

/// The prompt of `{"messages", "context", "tools", "response_format"}`, or of a list of messages.
fn prompt(input: &Json, settings: Settings) -> Result<String> {
    let options = EncodeOptions {
        thinking: settings.thinking,
        drop_thinking: settings.drop_thinking,
        add_bos: settings.add_bos,
        add_generation_prompt: settings.add_generation_prompt,
        ..EncodeOptions::new(settings.version)
    };
    let (list, context) = match input {
        Json::Array(_) => (input, &Json::Null),
        Json::Object(_) => {
            (input.get("messages").context("there are no `messages`")?, input.get("context").unwrap_or(&Json::Null))
        }
        other => bail!("the conversation is {}, expected an object with `messages`", shown(other)),
    };
    let context = match context {
        // As the published encoder takes it, empty is none.
        Json::Null | Json::Bool(false) => Vec::new(),
        Json::Object(entries) if entries.is_empty() => Vec::new(),
        Json::String(text) if text.is_empty() => Vec::new(),
        context => messages("context", context, settings)?,
    };
    let (mut context, mut messages) = (context, messages("messages", list, settings)?);
    let beside = |key: &str| input.get(key).filter(|value| **value != Json::Null);
    let tools = beside("tools").map(tools).transpose()?.unwrap_or_default();
    // What is in front of the messages has the system message, if any has.
    let is_system = |message: &Message| message.role == Role::System;
    let in_context = context.iter().any(is_system) || !context.is_empty() && !messages.iter().any(is_system);
    place_tools(if in_context { &mut context } else { &mut messages }, tools, beside("response_format").cloned());
    Ok(encode(&messages, &context, &options).map_err(line)?.into_text())
}

/// The tools that stand beside the messages.
fn tools(list: &Json) -> Result<Vec<Tool>> {
    let Json::Array(list) = list else { bail!("`tools` is {}, expected a list", shown(list)) };
    list.iter().enumerate().map(|(i, tool)| read(tool).with_context(|| format!("tools[{i}]"))).collect()
}

/// A value of the protocol.
fn read<T: DeserializeOwned>(value: &Json) -> Result<T> {
    serde_json::from_str(&value.to_string()).map_err(|error| {
        // The place in a text that nobody has seen.
        let text = error.to_string();
        line(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text))
    })
}

fn messages(key: &str, list: &Json, settings: Settings) -> Result<Vec<Message>> {
    let Json::Array(list) = list else { bail!("`{key}` is {}, expected a list", shown(list)) };
    let message = |message: &Json| -> Result<Message> {
        ensure!(matches!(message, Json::Object(_)), "is {}, expected an object", shown(message));
        if !settings.tolerant {
            arguments_are_text(message, settings.absent_arguments)?;
        }
        read(message)
    };
    list.iter().enumerate().map(|(i, value)| message(value).with_context(|| format!("{key}[{i}]"))).collect()
}

/// The published encoder takes arguments as text only, and fails where there are none; the library takes objects, too, and
/// calls without arguments.
fn arguments_are_text(message: &Json, may_be_absent: bool) -> Result<()> {
    let Some(Json::Array(calls)) = message.get("tool_calls") else { return Ok(()) };
    for call in calls {
        let Some(function) = call.get("function") else { continue };
        match function.get("arguments") {
            Some(Json::String(_) | Json::Null) => {}
            None if may_be_absent => {}
            None => bail!("a call has no `arguments` (--tolerant takes it)"),
            Some(other) => bail!("`arguments` are {}, expected text", shown(other)),
        }
    }
    Ok(())
}

/// A value for a message.
fn shown(value: &Json) -> String {
    one_line(&value.to_string())
}

/// The message of a completion.
fn message(text: &str, settings: Settings) -> Result<Json> {
    parse(text, &parse_options(settings)).map(told).map_err(line)
}

/// What is told of a completion: the message as a client should see it, why a call could not be read, and what was
/// dropped.
fn told(mut parsed: Parsed) -> Json {
    let problem = parsed.call_problem;
    let dropped: Vec<_> = std::mem::take(&mut parsed.dropped).into_iter().map(Json::String).collect();
    let mut told = wire(&parsed.answer());
    if let Json::Object(entries) = &mut told {
        let problem = problem.map(|problem| Json::String(problem.to_string()));
        entries.extend(problem.map(|problem| ("tool_call_error".to_string(), problem)));
        entries.extend((!dropped.is_empty()).then(|| ("dropped".to_string(), Json::Array(dropped))));
    }
    told
}

fn parse_options(settings: Settings) -> ParseOptions {
    let options = ParseOptions::new(settings.version, start(settings));
    let options = if settings.no_tools { options.with_tools([]) } else { options };
    if settings.tolerant { options } else { options.strict() }
}

fn start(settings: Settings) -> Start {
    if settings.thinking { Start::Reasoning } else { Start::Content }
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
