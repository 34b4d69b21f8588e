//! An agent with tools that really do something: calculator, clock, unit conversion, a price list; or with your own.
//!
//! ```bash
//! cargo run --release --example tool_calling
//! cargo run --release --example tool_calling -- --prompt "What time is it in Tokyo?" --no-thinking --trace trace.jsonl
//! cargo run --release --example tool_calling -- --trace trace.jsonl --resume
//! cargo run --release --example tool_calling -- --tools tools.json --prompt "What is the weather in Lisbon?"
//! cargo run --release --features client --example tool_calling -- --base-url http://127.0.0.1:8000/v1 --model NAME
//! cargo run --release --example tool_calling -- --contexts
//! cargo run --release --example tool_calling -- --replay examples/assets/tiny-v32/golden.json
//! ```
//!
//! Exit status: 0 after an answer, 1 after an error, 2 for wrong arguments, 3 where a run ended at a limit, without an
//! answer. `tool_calling/own_tools.rs` says what `--tools` reads.

#[allow(dead_code)] // other examples use the rest
mod common;
mod tool_calling {
    pub mod contexts;
    pub mod own_tools;
    pub mod remote;
    pub mod replay;
}
mod tools;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::tool_calling::{contexts, own_tools, remote, replay};
use anyhow::{Result, bail};
use clap::Parser;
use common::NoAnswer;
use common::printer::{Printer, stop_name};
use deepseek_v32::agent::{Agent, AgentEvent, AgentEventKind, AgentOptions, ContextManagement, Outcome, Stop};
use deepseek_v32::chat::Message;
use deepseek_v32::chat_model::{ChatModel, LocalChat};
use deepseek_v32::error::one_line;
use deepseek_v32::generation::{EngineOptions, SamplingParams};

/// What the embedded checkpoint can answer with these tools.
const DEFAULT_PROMPT: &str = "Calculate 177 times 579. And: What is the price of the lamp?";

/// Tokens of ended requests that are kept for the next.
const PREFIX_TOKENS: usize = 16_384;

const DEFAULT_STEPS: usize = 20;

const EXIT_STATUS: &str = "Exit status: 0 after an answer, 1 after an error, 2 for wrong arguments, 3 where a run ended without \
an answer: at its limit of steps or tokens, or in a full context";

#[derive(Debug, Parser)]
#[command(about = "Answers with the help of tools", after_help = EXIT_STATUS)]
struct Args {
    /// Folder of the checkpoint, or owner/name on the hub (feature hub). Default: the embedded one. With --base-url: the
    /// model's name there.
    #[arg(long)]
    model: Option<String>,
    /// Ask an OpenAI-compatible server instead, e.g. http://127.0.0.1:8000/v1 (feature client).
    #[arg(long, value_name = "URL", requires = "model", conflicts_with_all = ["dtype", "precision", "cache_format", "replay"])]
    base_url: Option<String>,
    /// Key for the server.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Your own tools instead: a list as in OpenAI's protocol. Results are typed, or stand beside `function` in `result`.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// The question. May be given several times: one turn after the other.
    #[arg(long, default_value = DEFAULT_PROMPT, allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// Instructions before the first turn.
    #[arg(long, default_value = "You are a helpful assistant.")]
    system: String,
    /// Think before speaking (the default).
    #[arg(long, overrides_with = "no_thinking")]
    thinking: bool,
    /// Do not think.
    #[arg(long)]
    no_thinking: bool,
    /// Most answers of the model; with --resume, a new limit. Default: 20, or what the trace says.
    #[arg(long)]
    steps: Option<usize>,
    /// What to do when the context fills: none, summary, discard-75, discard-all, parallel-fewest-step[:RUNS].
    #[arg(long, default_value = "none")]
    context: ContextManagement,
    /// 0 = greedy.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 299792458)]
    seed: u64,
    /// Write everything down in a new file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Go on where the trace ends, as it began. Of a run that has ended, the answer is printed.
    #[arg(long, requires = "trace", conflicts_with_all = ["prompt", "system", "thinking", "no_thinking", "context", "temperature", "seed"])]
    resume: bool,
    #[command(flatten)]
    model_args: common::ModelArgs,
    /// Play recorded conversations and compare every step.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Hold one chat that does not fit the context under each --context, and compare what it answers and costs.
    #[arg(long, conflicts_with_all = ["replay", "tools", "trace", "prompt", "context"])]
    contexts: bool,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    if args.trace.is_some() && args.prompt.len() > 1 {
        bail!("--trace: a trace holds one turn, but there are {} prompts", args.prompt.len());
    }
    let options = AgentOptions {
        thinking: !args.no_thinking,
        params: SamplingParams::sampled(args.temperature, args.seed),
        max_steps: args.steps.unwrap_or(DEFAULT_STEPS),
        context: args.context,
        ..AgentOptions::default()
    };
    common::check_agent(&options)?;
    let tools = match &args.tools {
        Some(file) => own_tools::toolbox(file)?,
        None => tools::toolbox()?,
    };
    let model: Arc<dyn ChatModel> = match &args.base_url {
        Some(url) => remote::chat(&args, url)?,
        None => {
            let chat = load(&args)?;
            if let Some(file) = &args.replay {
                return replay::replay(&chat, file, &mut std::io::stdout().lock());
            }
            Arc::new(chat)
        }
    };
    if args.contexts {
        return contexts::table(&model, &args.system, &options, &mut std::io::stdout().lock());
    }
    let mut printer = Printer::new(std::io::stdout().lock());
    let agent = Agent::new(model, tools).with_options(options).with_cancel(printer.cancel());
    let mut messages = vec![Message::system(&args.system)];
    for prompt in &args.prompt {
        let outcome = match &args.trace {
            Some(trace) if args.resume => resume(&agent, trace, args.steps, &mut printer)?,
            trace => {
                printer.line(&format!("> {prompt}"));
                messages.push(Message::user(prompt));
                let mut on_event = |event| printer.event(event);
                match trace {
                    Some(trace) => agent.run_traced(messages, trace, &mut on_event)?,
                    None => agent.run(messages, &mut on_event)?,
                }
            }
        };
        end(&mut printer, &outcome);
        if let Some(why) = why_no_answer(&outcome) {
            printer.finish()?;
            return Err(NoAnswer(why).into());
        }
        messages = outcome.messages;
    }
    printer.finish()
}

/// Continues a trace. Prints the answer if the trace has one.
fn resume(agent: &Agent, trace: &Path, steps: Option<usize>, printer: &mut Printer<impl Write>) -> Result<Outcome> {
    let mut answered = false;
    let mut on_event = |event: AgentEvent| {
        answered |= matches!(event.kind, AgentEventKind::Answered { .. });
        printer.event(event);
    };
    let outcome = match steps {
        Some(steps) => agent.resume_with_max_steps(trace, steps, &mut on_event)?,
        None => agent.resume(trace, &mut on_event)?,
    };
    if let Some(message) = outcome.message.as_ref().filter(|_| !answered && outcome.runs.len() == 1)
        && !message.content.is_empty()
    {
        printer.line(&message.content);
    }
    Ok(outcome)
}

/// Why a run came to no answer, if it did not.
fn why_no_answer(outcome: &Outcome) -> Option<String> {
    match outcome.stop {
        Stop::Answer => {
            let said = outcome.message.as_ref().is_some_and(|message| !message.content.trim().is_empty());
            match (&outcome.call_error, outcome.dropped.first()) {
                (Some(error), _) => Some(format!("its call could not be read: {error}")),
                (None, _) if said => None,
                (None, Some(text)) => {
                    Some(format!("what the model wrote is malformed and was dropped: {}", one_line(text)))
                }
                (None, None) => Some("the model wrote nothing".to_string()),
            }
        }
        Stop::StepLimit => Some(format!("the limit is reached after {} steps (--steps)", outcome.steps)),
        Stop::TokenLimit => Some("the last one was cut off at the limit of tokens".to_string()),
        Stop::TimeLimit => Some("the time is over".to_string()),
        Stop::Cancelled => Some("the run was cancelled".to_string()),
        Stop::ContextFull => Some("the context is full (--context says what may go)".to_string()),
    }
}

fn load(args: &Args) -> Result<LocalChat> {
    let dir = common::resolve(args.model.as_deref())?;
    if let Some(trace) = &args.trace {
        common::refuse_checkpoint_file("--trace", trace, &dir)?;
    }
    let load = args.model_args.load_options()?;
    // Prompts that begin alike are read once: each step of a run begins with the one before.
    let engine = EngineOptions { prefix_tokens: PREFIX_TOKENS, ..EngineOptions::default() };
    common::with_spinner(&dir, |progress| LocalChat::load(&dir, &load, args.model_args, engine, progress))
}

fn end(printer: &mut Printer<impl Write>, outcome: &Outcome) {
    let usage = outcome.usage;
    printer.line(&format!(
        "\n{}: {} steps, {} prompt tokens ({} cached), {} generated",
        stop_name(outcome.stop),
        outcome.steps,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens
    ));
    if outcome.runs.len() > 1 {
        let steps: Vec<String> = outcome.runs.iter().map(|run| run.steps.to_string()).collect();
        printer.line(&format!("run {} of {}, whose steps are {}", outcome.run, steps.len(), steps.join(", ")));
        let answer = outcome.message.as_ref().map(|message| message.content.clone());
        printer.line(&answer.unwrap_or_default());
    }
}
