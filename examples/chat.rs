//! A chat in the terminal. The model's thinking is dimmed, its tools are called.
//!
//! ```bash
//! cargo run --release --example chat
//! cargo run --release --example chat -- --model DIR --thinking off --temperature 0.7
//! ```
//!
//! Lines that begin with `/` are commands: `/help` lists them. Reads whole lines from standard input, so a conversation
//! can be piped in. Ctrl-C stops an answer, and ends the chat where none is being written.

mod chat {
    pub mod interrupt;
}
#[allow(dead_code)] // other examples use the rest
mod common;
mod tools;

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::chat::interrupt::{self, Answering};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, ValueEnum};
use common::NoAnswer;
use common::printer::{Printer, stop_name};
use common::terminal::{complain, escaped_lines};
use deepseek_v32::agent::{Agent, AgentOptions, Outcome, Stop};
use deepseek_v32::chat::{Message, Version};
use deepseek_v32::chat_model::{ChatModel, LocalChat};
use deepseek_v32::environment::Toolbox;
use deepseek_v32::error::{one_line, one_line_path};
use deepseek_v32::generation::{EngineOptions, SamplingParams};
use deepseek_v32::weights::GenerationConfig;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Parser)]
#[command(about = "A chat in the terminal")]
struct Args {
    /// Folder of the checkpoint, or owner/name on the hub (feature hub). Default: the embedded one.
    #[arg(long)]
    model: Option<String>,
    /// Instructions for the model.
    #[arg(long, default_value = "")]
    system: String,
    /// Whether the model thinks before it answers.
    #[arg(long, value_enum, default_value = "on")]
    thinking: Switch,
    /// Whether the model may call the tools of /tools.
    #[arg(long, value_enum, default_value = "on")]
    tools: Switch,
    /// Say this, print the answer and end.
    #[arg(long, short)]
    prompt: Option<String>,
    /// Most tokens of an answer.
    #[arg(long, short = 'n', allow_negative_numbers = true)]
    max_tokens: Option<usize>,
    /// 0 = greedy. Default: as generation_config.json says, else greedy.
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Keep the most probable tokens up to this mass.
    #[arg(long, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 299792458)]
    seed: u64,
    /// Chat format, e.g. v3.1. Default: what the checkpoint's files tell.
    #[arg(long)]
    chat_format: Option<Version>,
    /// Draft tokens with the MTP layer.
    #[arg(long)]
    mtp: bool,
    #[command(flatten)]
    model_args: common::ModelArgs,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    let dir = common::resolve(args.model.as_deref())?;
    let config = common::generation_config(&dir)?;
    let options = AgentOptions {
        thinking: args.thinking == Switch::On,
        params: params(&args, &config),
        max_answer_tokens: args.max_tokens.or(config.max_new_tokens),
        ..AgentOptions::default()
    };
    common::check_agent(&options)?;
    let model = load(&args, &dir)?;
    let mut chat = Chat {
        out: std::io::stdout().lock(),
        model: Arc::new(model),
        toolbox: tools::toolbox()?,
        options,
        with_tools: args.tools == Switch::On,
        system: args.system,
        messages: Vec::new(),
        dir,
    };
    if let Some(prompt) = args.prompt {
        return match chat.say(&prompt)? {
            None => Ok(()),
            Some(why) => Err(NoAnswer(why).into()),
        };
    }
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        interrupt::listen()?;
        let (name, dir) = (chat.model.name().to_string(), one_line_path(&chat.dir));
        let format = format!("Chat format {}: {}.", chat.model.version(), chat.model.version_reason());
        chat.print(&format!("{name} ({dir}). {format} /help lists the commands."))?;
    }
    let mut input = std::io::stdin().lock();
    for number in 1.. {
        if interactive {
            write!(chat.out, "> ").and_then(|()| chat.out.flush()).context("standard output")?;
        }
        let line = match read_line(&mut input).context("standard input")? {
            None => break,
            Some(Ok(line)) => line,
            Some(Err(problem)) => {
                complain(&format!("standard input: line {number} is {problem} and is passed over"));
                continue;
            }
        };
        let line = line.trim();
        let done = match line.strip_prefix('/') {
            _ if line.is_empty() => Ok(false),
            Some(command) => chat.command(command),
            None => chat.say(line).map(|_| false),
        };
        match done {
            Ok(true) => break,
            Ok(false) => {}
            // A person tries again; a script wants to know.
            Err(error) if interactive && !error.is::<std::io::Error>() => {
                complain(&format!("error: {}", common::error_line(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next line, or what is wrong with it; `None` at the end.
fn read_line(input: &mut impl BufRead) -> std::io::Result<Option<std::result::Result<String, &'static str>>> {
    const LONGEST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    if input.take(LONGEST).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() as u64 == LONGEST && !bytes.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        return Ok(Some(Err("longer than 16 MB")));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|_| "not UTF-8")))
}

/// The checkpoint's engine. The conversation so far stays in its cache.
fn load(args: &Args, dir: &Path) -> Result<LocalChat> {
    let load = args.model_args.load_options()?;
    let engine = EngineOptions { prefix_tokens: 1 << 16, ..EngineOptions::speculative(args.mtp) };
    let chat = common::with_spinner(dir, |progress| LocalChat::load(dir, &load, args.model_args, engine, progress))?;
    Ok(match args.chat_format {
        Some(version) => chat.with_version(version)?,
        None => chat,
    })
}

fn params(args: &Args, config: &GenerationConfig) -> SamplingParams {
    let recommended = SamplingParams::recommended(config);
    SamplingParams {
        temperature: args.temperature.unwrap_or(recommended.temperature),
        top_p: args.top_p.unwrap_or(recommended.top_p),
        seed: Some(args.seed),
        ..recommended
    }
}

struct Chat<W> {
    out: W,
    model: Arc<LocalChat>,
    toolbox: Toolbox,
    options: AgentOptions,
    with_tools: bool,
    system: String,
    messages: Vec<Message>,
    dir: PathBuf,
}

const HELP: &str = "\
/tools [on|off]     the tools, or whether the model may call them
/thinking [on|off]  whether the model thinks before it speaks
/system [TEXT]      the instructions, or new ones (begins anew)
/new                begins a new conversation
/save FILE          writes the conversation as JSON
/quit               ends";

impl<W: Write> Chat<W> {
    fn print(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{}", escaped_lines(line)).context("standard output")
    }

    /// Carries out a command; `true` ends the chat.
    fn command(&mut self, command: &str) -> Result<bool> {
        let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
        let argument = argument.trim();
        match name {
            "help" => self.print(HELP)?,
            "quit" | "exit" => return Ok(true),
            "new" => self.messages.clear(),
            "tools" => {
                set(&mut self.with_tools, "/tools", argument)?;
                for tool in self.toolbox.tools() {
                    self.print(&format!("{}: {}", tool.name(), tool.description()))?;
                }
                self.print(if self.with_tools { "tools are on" } else { "tools are off" })?;
            }
            "thinking" => {
                set(&mut self.options.thinking, "/thinking", argument)?;
                self.print(if self.options.thinking { "thinking is on" } else { "thinking is off" })?;
            }
            "system" if argument.is_empty() => self.print(&self.system.clone())?,
            "system" => {
                self.system = argument.to_string();
                self.messages.clear();
            }
            "save" if argument.is_empty() => bail!("/save needs the name of a file"),
            "save" => self.save(Path::new(argument))?,
            _ => bail!("/{}: no such command; /help lists them", one_line(name)),
        }
        Ok(false)
    }

    fn save(&self, path: &Path) -> Result<()> {
        common::refuse_checkpoint_file("/save", path, &self.dir)?;
        let text = serde_json::to_string(&self.messages)?;
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
        written.map_err(|error| anyhow!("/save {}: {error}", one_line_path(path)))
    }

    /// One turn: what the person says, the model's answer and the tools it calls on the way.
    fn say(&mut self, text: &str) -> Result<Option<String>> {
        let mut messages = self.messages.clone();
        if messages.is_empty() && !self.system.is_empty() {
            messages.push(Message::system(&self.system));
        }
        messages.push(Message::user(text));
        let tools = if self.with_tools { self.toolbox.clone() } else { Toolbox::new() };
        let mut printer = Printer::new(&mut self.out);
        let _answering = Answering::new(printer.cancel());
        let agent = Agent::new(self.model.clone(), tools).with_options(self.options.clone());
        let outcome = agent.with_cancel(printer.cancel()).run(messages, &mut |event| printer.event(event))?;
        let is_empty = outcome.message.as_ref().is_none_or(|message| message.content.trim().is_empty());
        let Outcome { messages, stop, usage, .. } = outcome;
        if stop == Stop::ContextFull {
            printer.line("[ended: context_full: what you said does not fit and is not kept; /new begins anew]");
        } else {
            self.messages = messages;
            if stop != Stop::Answer {
                printer.line(&format!("[ended: {}]", stop_name(stop)));
            }
        }
        printer.dim_line(&format!(
            "{} tokens read ({} of them known), {} written ({} of them thinking)",
            usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens
        ));
        printer.finish()?;
        Ok(match stop {
            Stop::Answer if is_empty => Some("the model wrote nothing".to_string()),
            Stop::Answer => None,
            stop => Some(stop_name(stop)),
        })
    }
}

/// Reads an optional `on` or `off`.
fn set(switch: &mut bool, command: &str, argument: &str) -> Result<()> {
    match argument {
        "" => {}
        "on" => *switch = true,
        "off" => *switch = false,
        other => bail!("{command} {}: expected on or off", one_line(other)),
    }
    Ok(())
}
