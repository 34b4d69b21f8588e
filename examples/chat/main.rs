//! A chat in the terminal. The model's thinking is dimmed, its tools are called.
//!
//! ```bash
//! cargo run --release --example chat
//! cargo run --release --example chat -- --model DIR --thinking off --temperature 0.7
//! ```
//!
//! Lines that begin with `/` are commands: `/help` lists them. Reads whole lines from standard input, so a conversation
//! can be piped in.

#[path = "../common/mod.rs"]
mod common;
#[path = "../tool_calling/expression.rs"]
mod expression;
#[path = "../tool_calling/tools.rs"]
mod tools;

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use deepseek_v32::agent::{Agent, AgentEvent, AgentEventKind, AgentOptions, LocalChat, Outcome, Stop, Toolbox};
use deepseek_v32::chat::{Delta, Message, Version};
use deepseek_v32::generation::{EngineOptions, SamplingParams};
use deepseek_v32::weights::{GenerationConfig, LoadOptions};

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
    /// Whether the model thinks before it speaks.
    #[arg(long, value_enum, default_value = "on")]
    thinking: Switch,
    /// Whether the model may call the tools of /tools.
    #[arg(long, value_enum, default_value = "on")]
    tools: Switch,
    /// Say this, print the answer and end.
    #[arg(long, short)]
    prompt: Option<String>,
    /// Most tokens of an answer.
    #[arg(long, short = 'n')]
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
    /// Dtype of activations and cache.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: common::Dtype,
    /// How FP8 weights are computed.
    #[arg(long, value_enum, default_value = "dequant")]
    precision: common::PrecisionArg,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    let dir = common::resolve(args.model.as_deref())?;
    let model = load(&args, &dir)?;
    let mut chat = Chat {
        model: Arc::new(model),
        toolbox: tools::toolbox()?,
        options: AgentOptions {
            thinking: args.thinking == Switch::On,
            params: params(&args, &dir)?,
            max_answer_tokens: args.max_tokens,
            ..AgentOptions::default()
        },
        with_tools: args.tools == Switch::On,
        system: args.system,
        messages: Vec::new(),
    };
    chat.options.validate()?;
    if let Some(prompt) = args.prompt {
        return chat.say(&prompt);
    }
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        println!("{} ({}). /help lists the commands.", chat.model_name(), dir.display());
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if interactive {
            print!("> ");
            std::io::stdout().flush()?;
        }
        let Some(line) = lines.next() else { break };
        let line = line.context("standard input")?;
        let line = line.trim();
        let done = match line.strip_prefix('/') {
            _ if line.is_empty() => Ok(false),
            Some(command) => chat.command(command),
            None => chat.say(line).map(|()| false),
        };
        match done {
            Ok(true) => break,
            Ok(false) => {}
            // A person tries again; a script wants to know.
            Err(error) if interactive => eprintln!("error: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The checkpoint's engine. The conversation so far stays in its cache.
fn load(args: &Args, dir: &std::path::Path) -> Result<LocalChat> {
    let load = LoadOptions { dtype: args.dtype.into(), ..LoadOptions::default() };
    let engine = EngineOptions { prefix_tokens: 1 << 16, ..EngineOptions::speculative(args.mtp) };
    let chat =
        common::with_spinner(dir, |progress| LocalChat::load(dir, &load, args.precision.into(), engine, progress))?;
    Ok(match args.chat_format {
        Some(version) => chat.with_version(version)?,
        None => chat,
    })
}

fn params(args: &Args, dir: &std::path::Path) -> Result<SamplingParams> {
    let defaults = GenerationConfig::load(dir)?.filter(|config| config.do_sample != Some(false)).unwrap_or_default();
    let temperature = args.temperature.or(defaults.temperature).unwrap_or(0.0);
    let top_p = args.top_p.or(defaults.top_p).unwrap_or(1.0);
    Ok(SamplingParams { temperature, top_p, seed: Some(args.seed), ..SamplingParams::default() })
}

struct Chat {
    model: Arc<LocalChat>,
    toolbox: Toolbox,
    options: AgentOptions,
    with_tools: bool,
    system: String,
    messages: Vec<Message>,
}

const HELP: &str = "\
/tools [on|off]     the tools, or whether the model may call them
/thinking [on|off]  whether the model thinks before it speaks
/system [TEXT]      the instructions, or new ones (begins anew)
/new                begins a new conversation
/save FILE          writes the conversation as JSON
/quit               ends";

impl Chat {
    fn model_name(&self) -> &str {
        use deepseek_v32::agent::ChatModel;
        self.model.name()
    }

    /// Carries out a command; `true` ends the chat.
    fn command(&mut self, command: &str) -> Result<bool> {
        let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
        let argument = argument.trim();
        match name {
            "help" => println!("{HELP}"),
            "quit" | "exit" => return Ok(true),
            "new" => self.messages.clear(),
            "tools" => {
                set(&mut self.with_tools, "/tools", argument)?;
                for tool in self.toolbox.tools() {
                    println!("{}: {}", tool.name(), tool.description());
                }
                println!("tools are {}", if self.with_tools { "on" } else { "off" });
            }
            "thinking" => {
                set(&mut self.options.thinking, "/thinking", argument)?;
                println!("thinking is {}", if self.options.thinking { "on" } else { "off" });
            }
            "system" if argument.is_empty() => println!("{}", self.system),
            "system" => {
                self.system = argument.to_string();
                self.messages.clear();
            }
            "save" if argument.is_empty() => bail!("/save needs the name of a file"),
            "save" => self.save(PathBuf::from(argument))?,
            _ => bail!("/{name} is no command; /help lists them"),
        }
        Ok(false)
    }

    fn save(&self, path: PathBuf) -> Result<()> {
        let text = serde_json::to_string(&self.messages)?;
        let part = path.with_extension("part");
        let write = || std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path));
        write().with_context(|| path.display().to_string())
    }

    /// One turn: what the person says, the model's answer and the tools it calls on the way.
    fn say(&mut self, text: &str) -> Result<()> {
        let mut messages = self.messages.clone();
        if messages.is_empty() && !self.system.is_empty() {
            messages.push(Message::system(&self.system));
        }
        messages.push(Message::user(text));
        let tools = if self.with_tools { self.toolbox.clone() } else { Toolbox::new() };
        let agent = Agent::new(self.model.clone(), tools).with_options(self.options.clone());
        let mut screen = Screen::new();
        let outcome = agent.run(messages, &mut |event| screen.show(event));
        screen.end_line();
        screen.written?;
        let Outcome { messages, stop, usage, .. } = outcome?;
        self.messages = messages;
        if stop != Stop::Answer {
            println!("[ended: {stop:?}]");
        }
        let dim = Screen::new().dim;
        let count = format!(
            "{} tokens read ({} of them known), {} written ({} of them thinking)",
            usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens
        );
        println!("{}{count}{}", dim.0, dim.1);
        Ok(())
    }
}

/// Reads an optional `on` or `off`.
fn set(switch: &mut bool, command: &str, argument: &str) -> Result<()> {
    match argument {
        "" => {}
        "on" => *switch = true,
        "off" => *switch = false,
        other => bail!("{command} {other}: expected on or off"),
    }
    Ok(())
}

/// Prints a turn as it happens.
struct Screen {
    /// What begins and what ends dimmed text.
    dim: (&'static str, &'static str),
    dimmed: bool,
    at_line_start: bool,
    written: std::io::Result<()>,
}

impl Screen {
    fn new() -> Self {
        let dim = if std::io::stdout().is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        Self { dim, dimmed: false, at_line_start: true, written: Ok(()) }
    }

    fn show(&mut self, event: AgentEvent) {
        match event.kind {
            AgentEventKind::Delta(Delta::Reasoning(text)) => self.print(&text, true),
            AgentEventKind::Delta(Delta::Content(text)) => {
                if self.dimmed {
                    self.end_line();
                }
                self.print(&text, false);
            }
            AgentEventKind::Call(call) => {
                self.end_line();
                self.print(&format!("-> {}({})\n", call.name, call.arguments), true);
            }
            AgentEventKind::Result { call, result } => {
                self.end_line();
                self.print(&format!("<- {}: {}\n", call.name, result.content), true);
            }
            _ => {}
        }
    }

    fn print(&mut self, text: &str, dimmed: bool) {
        if text.is_empty() || self.written.is_err() {
            return;
        }
        // What comes from a model or a tool must not steer the terminal.
        let text: String = text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect();
        self.at_line_start = text.ends_with('\n');
        self.dimmed = dimmed;
        let mut out = std::io::stdout().lock();
        let (begin, end) = if dimmed { self.dim } else { ("", "") };
        self.written = write!(out, "{begin}{text}{end}").and_then(|()| out.flush());
    }

    fn end_line(&mut self) {
        if !self.at_line_start {
            self.print("\n", false);
        }
    }
}
